"""What every schedule can do, from one table: a new one is tested by being put into it."""

import copy
import dataclasses
import doctest
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from schedule_classes import CLASSES
from schedule_tables import EXAMPLES, HOLDS, SIGNATURES

from instep import schedules
from instep.schedules import (
    Constant,
    CosineDecay,
    InverseSqrtDecay,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PolynomialDecay,
    Schedule,
    Warmup,
    from_dict,
)
from instep.schedules.writing import defaults_left_out

WHOLE_STEPS = [*range(75), 1000, 10**6, 10**12]
STEPS = [*map(float, WHOLE_STEPS), 0.5, 7.25, 14.999999, 33.3, 58.0001, 1e15 / 3, 1e300]

every_example = pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
every_class = pytest.mark.parametrize("cls", CLASSES)


def rebuilt(schedule):
    return eval(repr(schedule), {name: getattr(schedules, name) for name in schedules.__all__})


def bits(values):
    return np.asarray(values, np.float64).view(np.uint64).tolist()


def test_table_has_every_class():
    assert {type(schedule) for schedule in EXAMPLES} == set(CLASSES)
    assert {cls.__name__ for cls in CLASSES} <= set(schedules.__all__)


def test_the_page_has_every_class():
    page = Path(__file__).parents[2] / "docs" / "schedules.md"
    rows = re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(cls.__name__ for cls in CLASSES)


@every_class
def test_signature_is_the_documented_one(cls):
    signature = inspect.signature(cls)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[cls.__name__]


@every_example
def test_repr_rebuilds(schedule):
    again = rebuilt(schedule)
    assert again is not schedule
    assert type(again) is type(schedule)
    assert again == schedule
    assert repr(again) == repr(schedule)
    assert bits(again(STEPS)) == bits(schedule(STEPS))


def test_equal_only_to_itself_and_its_like():
    for i, one in enumerate(EXAMPLES):
        for j, other in enumerate(EXAMPLES):
            assert (one == rebuilt(other)) is (i == j)
            assert (one != rebuilt(other)) is (i != j)
        assert one != repr(one)
    assert Constant(1) != InverseSqrtDecay(1)


def test_equal_schedules_hash_alike():
    assert len({*EXAMPLES, *map(rebuilt, EXAMPLES)}) == len(EXAMPLES)
    frozen = [one for one in EXAMPLES if not hasattr(one, "load_state_dict")]
    assert len(set(map(hash, frozen))) == len(frozen)


def test_int_and_numpy_arguments_make_equal_schedules():
    for init in (1, np.float32(1), np.int64(1), np.float64(1)):
        schedule = CosineDecay(init, np.int32(10), end=0, exponent=init)
        assert schedule == CosineDecay(1.0, 10)
        assert [type(v) for v in vars(schedule).values()] == [float, int, float, float]
    assert PiecewiseConstant(np.array([1, 2]), np.array([3])) == PiecewiseConstant((1.0, 2.0), (3,))


@every_example
def test_pickles(schedule):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(schedule, protocol))
        assert again == schedule
        assert bits(again(STEPS)) == bits(schedule(STEPS))


@every_example
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies(schedule, copied):
    again = copied(schedule)
    assert again is not schedule
    assert again == schedule
    assert bits(again(STEPS)) == bits(schedule(STEPS))


@every_example
def test_dictionary_restores_by_way_of_json(schedule):
    stored = schedule.to_dict()
    assert stored["schedule"] == type(schedule).__name__
    later = defaults_left_out(type(schedule)).items()
    left_out = [name for name, default in later if getattr(schedule, name) == default]
    names = [f.name for f in dataclasses.fields(schedule) if f.init and f.name not in left_out]
    keys = ["of" if name == "schedule" else name for name in names]
    assert list(stored) == ["schedule", *keys, *["state"] * hasattr(schedule, "state_dict")]
    text = json.dumps(stored, allow_nan=False)
    again = from_dict(json.loads(text))
    assert again == schedule
    assert repr(again) == repr(schedule)
    assert json.dumps(again.to_dict()) == text


@pytest.mark.parametrize(
    ("schedule", "names"),
    [
        (CosineDecay(0.1, 50), ["init", "steps", "end"]),
        (PolynomialDecay(0.1, 50), ["init", "steps", "end", "power"]),
        (
            OneCycle(0.1, 60),
            ["peak", "steps", "warmup_fraction", "init_div", "end_div", "anneal"],
        ),
    ],
)
def test_what_earlier_versions_lack_is_stored_only_where_it_is_used(schedule, names):
    stored = schedule.to_dict()
    assert list(stored) == ["schedule", *names]
    assert from_dict(stored) == schedule


@every_example
def test_frozen(schedule):
    assert dataclasses.is_dataclass(schedule)
    for name in [*(f.name for f in dataclasses.fields(schedule)), "another"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, name, 1.0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(schedule, name)


@every_example
def test_number_gives_float(schedule):
    for t in (3, 3.0, np.int64(3), np.uint8(3), np.float64(3), np.float32(3)):
        value = schedule(t)
        assert type(value) is float
        assert value == schedule(3)


@every_example
def test_array_is_its_numbers_to_the_bit(schedule):
    alone = [schedule(t) for t in STEPS]
    values = schedule(np.array(STEPS))
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    assert bits(values) == bits(alone)
    assert bits(schedule(STEPS)) == bits(alone)
    assert bits(schedule(np.array(WHOLE_STEPS))) == bits(alone[: len(WHOLE_STEPS)])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8", "f2", "f4", ">f8", "longdouble"])
def test_array_of_any_number_type(dtype):
    schedule = CosineDecay(0.1, 50)
    values = schedule(np.arange(60).astype(dtype))
    assert values.dtype == np.dtype("f8")
    assert bits(values) == bits([schedule(t) for t in range(60)])


@every_example
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 3)], ids=str)
def test_array_keeps_its_shape(schedule, shape):
    t = np.arange(np.prod(shape)).reshape(shape)
    values = schedule(t)
    assert isinstance(values, np.ndarray)
    assert values.shape == shape
    assert values.dtype == np.float64
    assert bits(values.ravel()) == bits([schedule(x) for x in t.ravel().tolist()])


def test_array_of_any_strides():
    t = np.arange(48.0).reshape(6, 8)
    for view in (t.T, t[::-1, ::2], np.asfortranarray(t), np.broadcast_to(t[0], (3, 8))):
        np.testing.assert_array_equal(Linear(0.0, 48.0, 48)(view), view)


@every_example
def test_finite_at_every_step(schedule):
    values = [schedule(t) for t in (0, 10**12, 10**15, 10**100, 10**300, 1e12, 1e15, 1e300)]
    assert np.all(np.isfinite(values))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (-1, ValueError),
        (-1e-300, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (-float("inf"), ValueError),
        (10**301, ValueError),
        (10**400, ValueError),
        (np.float64("nan"), ValueError),
        (np.int64(-1), ValueError),
        ([0, 1, -1], ValueError),
        (np.array([0.0, np.nan]), ValueError),
        (np.array(-1), ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        (np.array([True]), TypeError),
        (None, TypeError),
        ("1", TypeError),
        (["1"], TypeError),
        (1j, TypeError),
        (object(), TypeError),
    ],
)
def test_refuses_what_is_no_step(step, error):
    for schedule in EXAMPLES:
        with pytest.raises(error, match=r"^step must be a number .*, got [^\n]*$"):
            schedule(step)


@pytest.mark.parametrize(("schedule", "step", "value"), HOLDS, ids=repr)
def test_holds_its_end_exactly(schedule, step, value):
    assert schedule(step - 1) != value
    for t in (step, step + 0.25, step + 1, 10 * step, 10**12, 1e12, 1e300):
        assert schedule(t) == value


@every_class
def test_documentation(cls):
    text = inspect.getdoc(cls)
    for heading in ("Parameters\n-", "Raises\n-", "Examples\n-"):
        assert heading in text
    assert "References\n-" in text or "Source:" in text or cls is schedules.Product
    for field in dataclasses.fields(cls):
        if field.init:
            before_types = [line.split(" : ")[0] for line in text.splitlines() if " : " in line]
            assert field.name in ", ".join(before_types).split(", ")


@pytest.mark.parametrize(
    "name", [n for n in schedules.__all__ if n not in ("Schedule", "StepFunction")]
)
def test_example_in_the_docstring(name):
    member = getattr(schedules, name)
    (example,) = (
        test for test in doctest.DocTestFinder(recurse=False).find(member, name, globs={})
    )
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_examples_of_the_package():
    for member in (schedules, Schedule.to_dict):
        (example,) = doctest.DocTestFinder(recurse=False).find(member, "schedules", globs={})
        assert example.examples
        assert doctest.DocTestRunner().run(example).failed == 0


def test_plot_draws_the_values():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    schedule = Warmup(CosineDecay(0.1, 30), 11)
    ax = schedule.plot(50)
    try:
        assert isinstance(ax, matplotlib.axes.Axes)
        (line,) = ax.get_lines()
        np.testing.assert_array_equal(line.get_xdata(), np.arange(50))
        assert bits(line.get_ydata()) == bits(schedule(np.arange(50)))
        assert line.get_label() == "Warmup"
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "value")
        assert Constant(0.1).plot(steps=20, ax=ax) is ax
        assert len(ax.get_lines()) == 2
        assert Constant(0.1).plot(20) is not ax
    finally:
        pyplot.close("all")


@pytest.mark.parametrize(
    ("steps", "error"), [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_plot_refuses(steps, error):
    with pytest.raises(error, match=r"^plot: steps must be an int"):
        Constant(0.1).plot(steps, ax=object())


def test_plot_names_the_extra_when_matplotlib_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(ImportError, match=r"instep\[plot\]"):
        Constant(0.1).plot(10)


def test_import_is_light():
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import instep.schedules; "
        "heavy = {'matplotlib', 'torch', 'dataclasses', 'instep.schedules.base'}; "
        "print(*(heavy & set(sys.modules)))"
    )
    without_numpy = code.replace("import instep.schedules", "import numpy")
    loaded, before = (
        set(subprocess.check_output([sys.executable, "-c", c], text=True).split())
        for c in (code, without_numpy)
    )
    assert loaded == before
