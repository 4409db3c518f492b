"""What an optimizer tells and takes besides gradients: attributes, text, arguments and their help."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import pydoc
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS, ALL_PARAMETERS, OPTIMIZERS, number_of

import instep
from instep import schedules

ATTRIBUTES = [(rule, name) for rule in OPTIMIZERS for name in rule._hyperparameters]


def two_groups(rule: type[instep.Optimizer], **more: Any) -> Any:
    return rule([{"params": np.ones(2)}, {"params": np.ones(3), "l1": 0.5}], **more)


def other_value(rule: Any, name: str, value: Any) -> Any:
    """A value that the rule takes at any time."""
    if isinstance(value, bool):
        return not value
    return number_of(rule, name)


@pytest.mark.parametrize(("rule", "name"), ATTRIBUTES)
def test_a_hyperparameter_is_read_and_set_in_all_groups(rule: Any, name: str) -> None:
    optimizer = two_groups(rule)
    values = [group[name] for group in optimizer.param_groups]
    if name == "l1":
        with pytest.raises(
            ValueError,
            match=r"l1 must be the same in all groups .*, got .*; read param_groups\[k\]",
        ):
            _ = optimizer.l1
    else:
        assert getattr(optimizer, name) == values[0]
    new = other_value(rule, name, values[0])
    try:
        setattr(optimizer, name, new)
    except ValueError:  # would need other states
        assert [group[name] for group in optimizer.param_groups] == values
        return
    assert getattr(optimizer, name) == new
    assert [group[name] for group in optimizer.param_groups] == [new, new]


def test_what_is_set_is_used_from_the_next_step_on() -> None:
    optimizer = two_groups(instep.SGD, lr=0.5)
    optimizer.step([np.zeros(2), np.zeros(3)])
    optimizer.l1, optimizer.weight_decay = 0.0, 1.0
    optimizer.lr = schedules.Constant(0.25)
    optimizer.step([np.zeros(2), np.zeros(3)])
    assert optimizer.params["0"].tolist() == [0.75] * 2
    assert optimizer.params["1"].tolist() == [0.5625] * 3


def test_a_value_that_one_group_refuses_is_set_in_none() -> None:
    groups = [{"params": np.ones(1)}, {"params": np.ones(1), "nesterov": True}]
    optimizer = instep.SGD(groups, momentum=lambda step: 0.5)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ValueError, match=r"dampening must be 0 with nesterov=True, got 0.5"):
        optimizer.dampening = 0.5
    with pytest.raises(ValueError, match=r"lr must be .*, got -1.0"):
        optimizer.lr = -1.0
    assert [dict(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("name", ["rate", "learning_rate", "step_count", "params"])
def test_what_would_set_nothing_is_refused(rule: Any, name: str) -> None:
    optimizer = rule(np.ones(1))
    with pytest.raises(AttributeError, match=name):
        setattr(optimizer, name, 1)


def test_the_decay_of_averages_can_change_but_not_come_or_go() -> None:
    w = np.zeros(1)
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.5)
    optimizer.ema_decay = 0.75
    assert optimizer.ema_decay == 0.75
    optimizer.step(np.array([-4.0]))
    assert optimizer.averages["0"].tolist() == [1.0]
    optimizer.ema_decay = lambda step: 0.0
    optimizer.step(np.zeros(1))
    assert optimizer.averages["0"].tolist() == [4.0]
    with pytest.raises(ValueError, match=r"ema_decay must stay a number, got None, since averages"):
        optimizer.ema_decay = None
    with pytest.raises(ValueError, match=r"ema_decay must be a number in \[0, 1\], got 1\.5"):
        optimizer.ema_decay = 1.5
    plain = instep.SGD(w)
    with pytest.raises(ValueError, match=r"ema_decay must stay None, got 0\.5"):
        plain.ema_decay = 0.5
    assert plain.ema_decay is None


def test_momentum_can_not_come_or_go_but_be_scheduled_to_zero() -> None:
    w = np.zeros(2)
    optimizer = instep.SGD(w, lr=1.0, momentum=0.5)
    optimizer.step(np.ones(2))
    with pytest.raises(
        ValueError, match=r"must stay other than 0, got 0.0, .*; pass schedules.Constant\(0.0\)$"
    ):
        optimizer.momentum = 0.0
    optimizer.momentum = schedules.Constant(0.0)
    optimizer.step(np.full(2, 3.0))
    assert w.tolist() == [-4.0, -4.0]
    with pytest.raises(ValueError, match=r"momentum must stay 0.0, got 0.5, .*; make a new opt"):
        instep.SGD(w).momentum = 0.5
    with pytest.raises(ValueError, match=r"amsgrad must stay True, got False, .*; make a new"):
        instep.Adam(w, amsgrad=True).amsgrad = False


def test_repr_of_what_is_no_default() -> None:
    optimizer = instep.SGD(np.zeros(1), nonfinite="skip", state_dtype="f2", clip_norm=2.0)
    assert repr(optimizer).endswith(
        ", clip_norm=2.0, nonfinite='skip', state_dtype='float16', parameters=1, elements=1, step_count=0)"
    )


def test_repr() -> None:
    one = instep.RMSprop({"w": np.ones(2), "b": np.ones(3)}, centered=True)
    assert repr(one) == (
        "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, centered=True, momentum=0.0, "
        "eps_inside_sqrt=False, lr_in_velocity=False, initial_square_avg=0.0, "
        "decoupled_weight_decay=False, weight_decay=0.0, l1=0.0, clip_value=None, maximize=False, "
        "decoupled_l1=False, parameters=2, elements=5, step_count=0)"
    )
    two = two_groups(instep.Adam, lr=schedules.Constant(0.5), clip_norm=2.0, ema_decay=0.25)
    two.step([None, np.ones(3)])
    assert repr(two) == (
        "Adam(lr=Constant(value=0.5), betas=(0.9, 0.999), eps=1e-08, amsgrad=False, "
        "eps_hat=False, clip_update=None, weight_decay=0.0, l1=[0.0, 0.5], clip_value=None, "
        "maximize=False, decoupled_l1=False, clip_norm=2.0, ema_decay=0.25, parameters=2, "
        "groups=2, elements=5, step_count=1)"
    )


# ---- arrays ------------------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[Any], Any]] = {
    "params": lambda o: o.params,
    "state": lambda o: o.state,
    "a parameter's state": lambda o: o.state["w"],
    "averages": lambda o: o.averages,
    "accumulated": lambda o: o.accumulated,
}

CHANGES: dict[str, Callable[[Any, str], Any]] = {
    "set": lambda view, key: view.__setitem__(key, np.ones(2)),
    "set anew": lambda view, key: view.__setitem__("x", np.ones(2)),
    "delete": lambda view, key: view.__delitem__(key),
    "update": lambda view, key: view.update({key: np.ones(2)}),
    "or": lambda view, key: view.__ior__({key: np.ones(2)}),
    "pop": lambda view, key: view.pop(key),
    "popitem": lambda view, key: view.popitem(),
    "clear": lambda view, key: view.clear(),
    "setdefault": lambda view, key: view.setdefault("x", np.ones(2)),
}


def with_all_arrays() -> Any:
    optimizer = instep.Adam({"w": np.ones(2)}, ema_decay=0.5)
    optimizer.step({"w": np.ones(2)})
    optimizer.accumulate({"w": np.ones(2)})
    return optimizer


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", VIEWS)
def test_an_array_put_where_it_would_be_lost_is_refused(what: str, change: str) -> None:
    optimizer = with_all_arrays()
    view = VIEWS[what](optimizer)
    before = {key: id(value) for key, value in view.items()}
    with pytest.raises(TypeError, match=r"can't be replaced or removed; write into it"):
        CHANGES[change](view, next(iter(view)))
    assert {key: id(value) for key, value in view.items()} == before


@pytest.mark.parametrize("what", [what for what in VIEWS if what != "state"])
def test_the_arrays_can_be_written_into(what: str) -> None:
    optimizer = with_all_arrays()
    key, array = next(iter(VIEWS[what](optimizer).items()))
    VIEWS[what](optimizer)[key][...] = 3.0
    VIEWS[what](optimizer)[key] *= 2
    assert VIEWS[what](optimizer)[key] is array
    assert array.tolist() == [6.0, 6.0]


@pytest.mark.parametrize("what", VIEWS)
def test_what_is_shown_is_a_dict_and_so_are_its_copies(what: str) -> None:
    view = VIEWS[what](with_all_arrays())
    assert isinstance(view, dict)
    assert repr(view) == repr(dict(view))
    for again in (copy.copy(view), copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert type(again) is dict
        assert repr(again) == repr(view)
    inside = copy.deepcopy(view)
    inside["x"] = 1
    for value in inside.values():
        assert type(value) in (dict, np.ndarray, int)
    other = instep.SGD(with_all_arrays().params, lr=0.5)  # taken for a container
    assert copy.deepcopy(other).params["w"].tolist() == other.params["w"].tolist()


# ---- arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_signature_is_whole(rule: Any) -> None:
    """Every argument with its default, though constructors name only their own."""
    arguments = inspect.signature(rule).parameters
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in arguments.values())
    assert list(arguments)[:2] == ["params", "lr"]
    assert set(arguments) == {"params", *rule._hyperparameters, *ALL_PARAMETERS}
    defaults = {n: p.default for n, p in arguments.items() if n != "params"}
    plain, spelled_out = rule(np.ones(1)), rule(np.ones(1), **defaults)
    assert repr(spelled_out) == repr(plain)
    for name in rule._hyperparameters:
        assert getattr(plain, name) == defaults[name]


@pytest.mark.parametrize("rule", ALL_OPTIMIZERS)
def test_help_is_whole(rule: Any) -> None:
    text = io.StringIO()
    pydoc.Helper(output=text).help(rule)
    page = pydoc.plain(text.getvalue())
    assert not re.search("As for `[A-Z]", page)
    for name in inspect.signature(rule).parameters:
        entries = re.findall(rf"^ \|  (?:\w+, )*{name}(?:, \w+)* : .+\n \|      \w", page, re.M)
        assert len(entries) == 1, name
    assert "can't be updated in place" in page
    before_titles = re.findall(r"\n \|(.*)\n \|  [A-Z]\w+\n \|  --", page)
    assert len(before_titles) >= 3
    assert not any(line.strip() for line in before_titles)
    assert "weight_decay of all groups, to read and set." in page


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_an_unknown_argument(rule: Any) -> None:
    with pytest.raises(TypeError) as caught:
        rule(np.ones(1), learning_rate=0.1)
    known = ", ".join(list(inspect.signature(rule).parameters)[1:])
    assert str(caught.value) == (
        f"an argument of {rule.__name__} must be one of {known}, got 'learning_rate'; did you mean 'lr'?"
    )


# ---- schedules that raise ----------------------------------------------------------------------------


def raises(step: int) -> float:
    raise ZeroDivisionError("by zero")


SCHEDULED: list[tuple[str, Callable[[], Any]]] = [
    ("lr", lambda: instep.SGD(np.ones(1), lr=raises)),
    ("betas[1]", lambda: instep.Adam(np.ones(1), betas=(0.5, raises))),
    ("weight_decay", lambda: instep.AdamW(np.ones(1), weight_decay=raises)),
    ("clip_value", lambda: instep.SGD(np.ones(1), clip_value=raises)),
    ("clip_norm", lambda: instep.SGD(np.ones(1), clip_norm=raises)),
    ("ema_decay", lambda: instep.SGD(np.ones(1), ema_decay=raises)),
]


@pytest.mark.parametrize(("name", "make"), SCHEDULED)
def test_what_a_schedule_raises_names_its_hyperparameter(name: str, make: Any) -> None:
    optimizer = make()
    before = optimizer.params["0"].copy()
    with pytest.raises(ZeroDivisionError, match=r"^by zero") as caught:
        optimizer.step(np.ones(1))
    assert caught.value.__notes__ == [f"raised by the schedule of {name} at step 0"]
    assert optimizer.step_count == 0
    assert optimizer.params["0"].tobytes() == before.tobytes()


def test_a_group_is_a_mapping_of_what_it_has() -> None:
    group = instep.SGD({"w": np.zeros(1)}, lr=0.5).param_groups[0]
    assert len(group) == len(dict(group))
    assert "lr=0.5" in repr(group)
    assert "params=['w']" in repr(group)
    with pytest.raises(TypeError, match="a hyperparameter can't be deleted; set it instead"):
        del group["lr"]
