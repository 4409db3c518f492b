"""What an optimizer tells and takes besides gradients: attributes, text, arguments and their help."""

from __future__ import annotations

import inspect
import io
import pydoc
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import NUMBERS, OPTIMIZERS

import instep
from instep import schedules

ATTRIBUTES = [(rule, name) for rule in OPTIMIZERS for name in rule._hyperparameters]


def two_groups(rule: type[instep.Optimizer], **more: Any) -> Any:
    return rule([{"params": np.ones(2)}, {"params": np.ones(3), "l1": 0.5}], **more)


def other_value(name: str, value: Any) -> Any:
    """A value that every rule takes at any time."""
    if isinstance(value, bool):
        return not value
    return NUMBERS[name]


@pytest.mark.parametrize(("rule", "name"), ATTRIBUTES)
def test_a_hyperparameter_is_read_and_set_in_all_groups(rule: Any, name: str) -> None:
    optimizer = two_groups(rule)
    values = [group[name] for group in optimizer.param_groups]
    if name == "l1":
        with pytest.raises(ValueError, match=r"groups' l1 differ; read each as param_groups\[k\]"):
            _ = optimizer.l1
    else:
        assert getattr(optimizer, name) == values[0]
    new = other_value(name, values[0])
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
    with pytest.raises(ValueError, match=r"nesterov is True and dampening is 0.5"):
        optimizer.dampening = 0.5
    with pytest.raises(ValueError, match=r"lr is -1.0"):
        optimizer.lr = -1.0
    assert [dict(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("name", ["rate", "learning_rate", "step_count", "nonfinite", "params"])
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
    with pytest.raises(ValueError, match=r"ema_decay can't go from .* to None: whether there are"):
        optimizer.ema_decay = None
    with pytest.raises(ValueError, match=r"ema_decay is 1.0"):
        optimizer.ema_decay = 1.0
    plain = instep.SGD(w)
    with pytest.raises(ValueError, match=r"ema_decay can't go from None to 0.5"):
        plain.ema_decay = 0.5
    assert plain.ema_decay is None


def test_repr() -> None:
    one = instep.RMSprop({"w": np.ones(2), "b": np.ones(3)}, centered=True)
    assert repr(one) == (
        "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, centered=True, momentum=0.0, "
        "eps_inside_sqrt=False, weight_decay=0.0, l1=0.0, clip_value=None, maximize=False, "
        "parameters=2)"
    )
    two = two_groups(instep.Adam, lr=schedules.Constant(0.5), clip_norm=2.0, ema_decay=0.25)
    assert repr(two) == (
        "Adam(lr=Constant(value=0.5), betas=(0.9, 0.999), eps=1e-08, amsgrad=False, "
        "weight_decay=0.0, l1=[0.0, 0.5], clip_value=None, maximize=False, "
        "clip_norm=2.0, ema_decay=0.25, parameters=2, groups=2)"
    )


# ---- arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_signature_is_whole(rule: Any) -> None:
    """Every argument with its default, though constructors name only their own."""
    arguments = inspect.signature(rule).parameters
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in arguments.values())
    assert list(arguments)[:2] == ["params", "lr"]
    extras = ("clip_norm", "nonfinite", "ema_decay", "copy_to", "state_dtype")
    assert set(arguments) == {"params", *rule._hyperparameters, *extras}
    defaults = {n: p.default for n, p in arguments.items() if n != "params"}
    plain, spelled_out = rule(np.ones(1)), rule(np.ones(1), **defaults)
    assert repr(spelled_out) == repr(plain)
    for name in rule._hyperparameters:
        assert getattr(plain, name) == defaults[name]


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_help_is_whole(rule: Any) -> None:
    text = io.StringIO()
    pydoc.Helper(output=text).help(rule)
    page = pydoc.plain(text.getvalue())
    assert not re.search("As for `[A-Z]", page)
    for name in inspect.signature(rule).parameters:
        entries = re.findall(rf"^ \|  (?:\w+, )*{name}(?:, \w+)* : .+\n \|      \w", page, re.M)
        assert len(entries) == 1, name
    assert "can't be updated in place" in page
    assert "weight_decay of all groups, to read and set." in page


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_an_unknown_argument(rule: Any) -> None:
    with pytest.raises(TypeError) as caught:
        rule(np.ones(1), learning_rate=0.1)
    known = ", ".join(list(inspect.signature(rule).parameters)[1:])
    assert str(caught.value) == f"{rule.__name__} has no argument 'learning_rate'; it has {known}"


def test_a_rule_of_ones_own_keeps_its_docstring() -> None:
    class Mine(instep.SGD):
        """Mine: as for `SGD`."""

    class Bare(instep.SGD):
        pass

    assert Mine.__doc__ == "Mine: as for `SGD`."
    assert Bare.__doc__ is None
    assert inspect.signature(Bare) == inspect.signature(instep.SGD)
    w = np.ones(1)
    Mine(w, lr=1.0).step(np.ones(1))
    assert w[0] == 0.0


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
