"""`instep.thinc`: the numbers of thinc's optimizers, in thinc's protocol."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep

theirs = pytest.importorskip("thinc.api", reason="needs thinc")
from instep import thinc as ours  # noqa: E402

SHAPES = [(7, 5), (300,), (3, 4, 5), (1,)]
THINC_9 = hasattr(theirs.Optimizer, "step")

# float32 has these betas, and 1 - beta; thinc takes the difference of the rounded betas, instep rounds the difference.
BETAS = {"beta1": 0.75, "beta2": 0.984375}
OPTIONS = [
    dict(zip(("L2", "L2_is_weight_decay", "grad_clip", "use_averages"), choice, strict=True))
    for choice in itertools.product((0.0, 0.01), (True, False), (0.0, 1.0), (False, True))
]


def trained(optimizer: Any, steps: int = 100, lr_scale: float = 1.0) -> dict[Any, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {
        (k, "W"): rng.standard_normal(shape).astype(np.float32) for k, shape in enumerate(SHAPES)
    }
    for _ in range(steps):
        for key, w in found.items():
            g = (2 * w + rng.standard_normal(w.shape)).astype(np.float32)
            found[key], g = optimizer(key, w, g, lr_scale=lr_scale)
            assert not g.any()
        optimizer.step_schedules()
    return found


def difference(mine: dict[Any, np.ndarray], other: dict[Any, np.ndarray]) -> float:
    assert mine.keys() == other.keys()
    return max(float(np.abs(mine[k] - other[k]).max() / np.abs(other[k]).max()) for k in other)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_the_numbers_are_those_of_thinc(rule: str, options: dict[str, Any]) -> None:
    betas = BETAS if rule == "Adam" else {}
    pair = [getattr(module, rule)(0.01, **options, **betas) for module in (ours, theirs)]
    for lr_scale in (1.0, 0.5):
        mine, other = (trained(optimizer, lr_scale=lr_scale) for optimizer in pair)
        assert difference(mine, other) < 5e-6
    mine, other = pair
    assert dict(mine.nr_update) == dict(other.nr_update)
    for state in ("mom1", "mom2", "averages"):
        if getattr(other, state) is None:
            assert getattr(mine, state) is None
        elif getattr(other, state):
            assert difference(getattr(mine, state), getattr(other, state)) < 5e-6
    # The same operations in the same order.
    if (
        rule == "SGD"
        and not options["grad_clip"]
        and not (options["L2"] and options["L2_is_weight_decay"])
    ):
        assert difference(trained(mine), trained(other)) == 0


def test_adam_with_its_default_betas() -> None:
    """thinc's 1 - beta2 is off by a part in 75,000."""
    assert difference(trained(ours.Adam(0.01)), trained(theirs.Adam(0.01))) < 5e-5


@pytest.mark.parametrize("rule", ["Adam", "RAdam", "SGD"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_bits_are_those_of_instep(rule: str, clip: float) -> None:
    """Each parameter is one of its own optimizer's: the norm is that of one gradient."""
    optimizer = getattr(ours, rule)(0.01, grad_clip=clip, use_averages=False)
    mine = trained(optimizer, 30)
    rng = np.random.default_rng(1)
    params = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    more = {"eps_hat": True} if rule == "Adam" else {}
    twins = [getattr(instep, rule)(w, lr=0.01, clip_norm=clip or None, **more) for w in params]
    for _ in range(30):
        for twin, w in zip(twins, params, strict=True):
            twin.step((2 * w + rng.standard_normal(w.shape)).astype(np.float32))
    for (key, w), twin in zip(mine.items(), params, strict=True):
        assert_same_bits(w, twin, str(key))


def test_averages_start_from_zero() -> None:
    optimizer = ours.SGD(0.0)
    w = np.array([1.0, -2.0], np.float32)
    average = np.zeros(2, np.float32)
    for t in range(1, 4):
        optimizer((0, "W"), w, np.ones(2, np.float32))
        average -= (1 - (1.0 + t) / (10.0 + t)) * (average - w)
        assert_same_bits(optimizer.averages[0, "W"], average)
    optimizer.nr_update[0, "W"] = 10**9
    optimizer((0, "W"), w, np.ones(2, np.float32))
    average -= (1 - 0.9999) * (average - w)
    assert_same_bits(optimizer.averages[0, "W"], average)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_stepped_in_place(dtype: str, order: Any) -> None:
    """Of any layout; thinc makes copies of some. It has no Adam for float64."""
    optimizer = ours.Adam(0.5, grad_clip=0.0)
    w, g = np.ones((2, 3), dtype, order), np.full((2, 3), 2.0, dtype, order)
    g[0, 1] = np.nan
    found = optimizer((0, "W"), w, g)
    assert found[0] is w
    assert found[1] is g
    assert not g.any()
    assert np.isnan(w[0, 1])
    assert w[1, 1] == pytest.approx(0.5)
    assert optimizer.mom1[0, "W"].reshape(2, 3)[0, 0] == np.dtype(dtype).type(1 - 0.9) * 2
    assert {
        s[0, "W"].dtype.str[1:] for s in (optimizer.mom1, optimizer.mom2, optimizer.averages)
    } == {dtype}


@pytest.mark.parametrize("name", ["Adam", "RAdam", "SGD"])
def test_a_config_finds_them(name: str) -> None:
    config = {"@optimizers": f"instep.{name}.v1", "learn_rate": [0.5, 0.25], "L2": 0.125}
    optimizer = theirs.registry.resolve({"optimizer": config})["optimizer"]
    assert type(optimizer) is ours.Optimizer
    assert isinstance(optimizer, theirs.Optimizer)
    w = np.zeros(2, np.float32)
    for _ in range(3):
        optimizer((0, "W"), w, np.full(2, 0.5, np.float32))
        optimizer.step_schedules()
    if name == "SGD":
        decayed = (-0.25 * (1 - 0.5 * 0.125) - 0.125) * (1 - 0.25 * 0.125)
        assert w[0] == np.float32((decayed - 0.125) * (1 - 0.25 * 0.125))
    assert optimizer.averages is not None
    assert optimizer.use_radam == (name == "RAdam")
    assert inspect.signature(getattr(ours, name)) == inspect.signature(getattr(theirs, name))


def test_a_config_with_an_unknown_argument() -> None:
    config = {"@optimizers": "instep.Adam.v1", "rate": 0.5}
    with pytest.raises(ValueError, match="rate"):
        theirs.registry.resolve({"optimizer": config})
    with pytest.raises(TypeError, match="rate"):
        ours.Adam(rate=0.5)


def test_no_attribute_beside_those_of_thinc() -> None:
    with pytest.raises(AttributeError):
        ours.Adam().rate = 0.5  # type: ignore[attr-defined]


@pytest.mark.skipif(THINC_9, reason="its numbers are schedules")
def test_numbers_may_be_set() -> None:
    optimizer = ours.Adam(0.5, grad_clip=0.0, use_averages=False)
    w = np.zeros(1, np.float32)

    def moved(by: float = 1.0) -> float:
        before = float(w[0])
        optimizer((0, "W"), w, np.full(1, by, np.float32))
        return before - float(w[0])

    assert moved() == pytest.approx(0.5)
    optimizer.learn_rate = 0.25
    assert moved() == pytest.approx(0.25)
    optimizer.learn_rate = np.array(0.5)
    assert moved() == pytest.approx(0.5)
    optimizer.learn_rate[...] = 0.25  # the same object has another number
    assert moved() == pytest.approx(0.25)
    optimizer.b1 = optimizer.b2 = 0.0  # SGD from here
    assert moved() == pytest.approx(0.25)
    assert moved(2.0) == pytest.approx(0.5)
    optimizer.grad_clip = 1.0
    assert moved(2.0) == pytest.approx(0.25)
    assert optimizer.nr_update[0, "W"] == 7
    optimizer.b1, optimizer.b2, optimizer.use_radam = 0.9, 0.999, True
    mom1 = optimizer.mom1[0, "W"].copy()
    moved()
    assert optimizer.mom1[0, "W"] == np.float32(0.9) * mom1 + np.float32(1 - 0.9)


class Twice:
    """An optimizer with weights, and what must not change in a call that raises."""

    def __init__(self, **numbers: Any) -> None:
        self.optimizer = ours.Adam(**{"learn_rate": 0.5, "L2": 0.1, **numbers})
        self.w, self.g = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)

    def state(self) -> Any:
        o = self.optimizer
        held = [{k: v.tolist() for k, v in s.items()} for s in (o.mom1, o.mom2, o.averages)]
        return self.w.tolist(), self.g.tolist(), held, dict(o.nr_update)

    def call(self, **arrays: Any) -> Any:
        return self.optimizer((0, "W"), arrays.get("w", self.w), arrays.get("g", self.g))


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ({"learn_rate": -1.0}, ValueError, "learn_rate must be a finite number.*, got -1.0"),
        ({"learn_rate": np.nan}, ValueError, "learn_rate must be a finite number.*, got nan"),
        ({"beta1": 1.0}, ValueError, r"beta1 must be a number in \[0, 1\), got 1.0"),
        ({"eps": -1.0}, ValueError, "eps must be a finite number.*, got -1.0"),
        ({"L2": -1.0}, ValueError, "L2 must be a finite number.*, got -1.0"),
        ({"grad_clip": -1.0}, ValueError, "grad_clip must be a number greater than 0, got -1.0"),
        ({"beta1": 0.0}, NotImplementedError, "beta1 must be greater than 0 if beta2 is, got 0.0"),
    ],
)
def test_numbers_that_are_refused(numbers: Any, error: Any, message: str) -> None:
    twice = Twice(**numbers)
    before = twice.state()
    for _ in range(2):
        with pytest.raises(error, match=message):
            twice.call()
        assert twice.state() == before


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"g": read_only(np.ones((2, 2), "f4"))}, "gradient must be writeable.*, got a read-only"),
        ({"w": read_only(np.ones((2, 2), "f4"))}, r"\(0, 'W'\)' must be writeable"),
        ({"g": np.ones((2, 2), "i4")}, r"the gradient of '\(0, 'W'\)' must have dtype"),
        ({"g": np.ones((2, 2), "c8")}, r"the gradient of '\(0, 'W'\)' must have dtype"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_arrays_that_are_refused(arrays: Any, message: str, known: bool) -> None:
    twice = Twice()
    if known:
        twice.call()
        twice.g[...] = 1
    before = twice.state()
    with pytest.raises((TypeError, ValueError), match=message):
        twice.call(**arrays)
    assert twice.state() == before
    twice.call()
    assert twice.state() != before


def test_a_gradient_of_the_weights_memory_is_refused() -> None:
    twice = Twice()
    with pytest.raises(ValueError, match="shares memory"):
        twice.call(g=twice.w)
    assert twice.w.tolist() == [[1.0, 1.0]] * 2


class Own(np.ndarray):
    """A class for which thinc's code may do something else."""


def in_turn() -> Iterator[Any]:
    yield "another shape", lambda a: a, lambda g: g.reshape(-1)
    yield "a class of its own", lambda a: a.view(Own), lambda g: g
    yield "gradients of a class", lambda a: a, lambda g: g.view(Own)


@pytest.mark.parametrize(
    ("of_w", "of_g"), [one[1:] for one in in_turn()], ids=[o[0] for o in in_turn()]
)
def test_other_arrays_are_stepped_by_thinc(
    of_w: Any, of_g: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same state: steps of both kinds may take turns."""
    calls = []
    call = theirs.Optimizer.__call__
    monkeypatch.setattr(
        theirs.Optimizer, "__call__", lambda *a, **k: (calls.append(a[0]), call(*a, **k))[1]
    )
    mixed, plain = ours.Adam(0.1, **BETAS), theirs.Adam(0.1, **BETAS)
    w, twin = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    rng = np.random.default_rng(4)
    for k in range(9):
        g = rng.standard_normal((2, 3)).astype(np.float32)
        plain((0, "W"), twin, g.copy())
        if k % 3 == 1:
            mixed((0, "W"), of_w(w), of_g(g))
        else:
            mixed((0, "W"), w, g)
        np.testing.assert_allclose(w, twin, rtol=1e-5)
    assert mixed.nr_update == plain.nr_update
    assert calls.count(mixed) == 3


@pytest.mark.parametrize("dtype", ["f2", ">f4"])
def test_other_dtypes_have_the_bits_of_thinc(dtype: str) -> None:
    rng = np.random.default_rng(5)
    start = rng.standard_normal(50).astype(dtype)
    found = []
    for module in (theirs, ours):
        w, optimizer = start.copy(), module.SGD(0.1, grad_clip=0.0, use_averages=False)
        for k in range(5):
            w, _ = optimizer((0, "W"), w, (start * k).astype(dtype))
        found.append(w.astype(dtype[-2:]))
    assert_same_bits(found[1], found[0])


def test_what_thinc_refuses() -> None:
    """Its words are not ours; nothing is stepped halfway."""
    optimizer = ours.Adam()
    w = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="shape"):
        optimizer((0, "W"), w, np.ones((3, 3), np.float32))
    with pytest.raises(ValueError, match="dtype"):
        optimizer((0, "W"), w.astype(np.float16), np.ones((2, 2), np.float16))
    assert w.tolist() == [[1.0, 1.0]] * 2


def test_nothing_to_step() -> None:
    optimizer = ours.Adam()
    w, g = np.ones((1, 2), np.float32), np.zeros(0, np.float32)
    found = optimizer((0, "W"), w, g)
    assert found[0] is w
    assert found[1] is g
    empty = np.zeros((0, 2), np.float32)
    optimizer((0, "W"), empty, empty.copy())
    assert not optimizer.nr_update
    none = np.zeros((3, 0), np.float32)
    optimizer((0, "W"), none, none.copy())
    assert optimizer.nr_update == {(0, "W"): 1}
