"""Combined: whatever is refused for one optimizer has changed nothing in any of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from snapshots import snapshot

import instep
from instep.optimizers.combined_state import about


def made(**limits: Any) -> tuple[instep.Combined, dict[str, np.ndarray]]:
    params = {"a": np.ones((2, 3)), "b": np.ones(4, "f4"), "c": np.ones(2), "d": np.ones(())}
    first = instep.Momentum({n: params[n] for n in "ab"}, lr=0.1, ema_decay=0.5)
    second = instep.Adam({n: params[n] for n in "cd"}, lr=0.1)
    combined = instep.Combined(first, second, **limits)
    combined.step({name: np.ones(p.shape) for name, p in params.items()})
    return combined, params


def everything(combined: instep.Combined) -> Any:
    return [snapshot(optimizer) for optimizer in combined.optimizers], combined.state_dict().keys()


def grads(**others: Any) -> dict[str, Any]:
    shapes = {"a": (2, 3), "b": 4, "c": 2, "d": ()}
    return {**{name: np.ones(shape) for name, shape in shapes.items()}, **others}


class Bad:
    """A gradient whose conversion fails."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise KeyError("nothing here")


GRADIENTS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "shape": (lambda p: grads(d=np.ones(2)), ValueError, r"optimizers\[1\]: the gradient of 'd'"),
    "dtype": (lambda p: grads(c=np.ones(2, int)), TypeError, r"optimizers\[1\]: the gradient of"),
    "first": (lambda p: grads(a=np.ones(2)), ValueError, r"optimizers\[0\]: the gradient of 'a'"),
    "own memory": (lambda p: grads(c=p["c"]), ValueError, "with parameter 'c'; pass a copy"),
    "memory of the other": (
        lambda p: grads(b=p["c"].view("f4")),
        ValueError,
        r"optimizers\[0\]: the gradient of 'b' must have memory of its own, got an array that "
        r"shares memory with parameter 'c' of optimizers\[1\]; pass a copy",
    ),
    "missing": (lambda p: {"a": np.ones((2, 3))}, ValueError, "missing: 'b', 'c', 'd'"),
    "unknown": (lambda p: grads(e=1.0), ValueError, "unknown: 'e'"),
    "no container": (lambda p: 3.0, TypeError, "must be a dict over the names of all parameters"),
    "array": (lambda p: np.ones(2), TypeError, "or a list of 2 entries, one container for each"),
    "None": (lambda p: None, TypeError, "or a list of 2 entries.*got None"),
    "too few": (lambda p: [None], ValueError, "must have 2 entries, one container for.*, got 1"),
    "a wrong one": (
        lambda p: [{"a": None, "b": None}, {"c": None}],
        ValueError,
        r"^optimizers\[1\]: the gradients must have the parameters' keys; missing: 'd'",
    ),
    "conversion": (
        lambda p: grads(d=Bad()),
        TypeError,
        r"^optimizers\[1\]: the gradient of 'd' must be",
    ),
}


@pytest.mark.parametrize("case", GRADIENTS)
@pytest.mark.parametrize("call", ["step", "accumulate"])
def test_gradients(case: str, call: str) -> None:
    bad, kind, message = GRADIENTS[case]
    combined, params = made()
    before = everything(combined)
    with pytest.raises(kind, match=message) as caught:
        getattr(combined, call)(bad(params))
    assert "\n" not in str(caught.value)
    assert everything(combined) == before
    assert not combined.accumulated
    combined.step(grads())


def test_a_known_gradient_that_comes_to_share_memory() -> None:
    """On the quick path, too: the layout is known, and the address is another optimizer's."""
    room = np.zeros(12)
    a, b = room[:4], np.zeros(4)
    combined = instep.Combined(instep.SGD([a]), instep.SGD([b]))
    for place in (4, 8, 4):
        combined.step([[np.ones(4)], [room[place : place + 4]]])
    combined.optimizers[1].step([room[4:8]])  # which may know the gap of its own arrays alone
    combined.optimizers[1].step([a])
    for place in (0, 1, 3):
        before = everything(combined)
        with pytest.raises(
            ValueError, match=r"shares memory with parameter '0' of optimizers\[0\]"
        ):
            combined.step([[np.ones(4)], [room[place : place + 4]]])
        assert everything(combined) == before
    woven = np.zeros((4, 2))
    combined = instep.Combined(instep.SGD([woven[:, 0]]), instep.SGD([b]))
    for _ in range(3):
        combined.step([None, [woven[:, 1]]])  # between the elements, none in common
    with pytest.raises(ValueError, match="shares memory"):
        combined.step([None, [woven[:, 0]]])


CHANGES: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {
    "read-only": (
        lambda c, p: p["d"].setflags(write=False),
        ValueError,
        r"^optimizers\[1\]: parameter 'd' must stay writeable",
    ),
    "schedule of a rate": (
        lambda c, p: setattr(c.optimizers[1], "lr", lambda step: -1.0),
        ValueError,
        r"^optimizers\[1\]: the schedule of lr at step 1 must be .*, got -1\.0",
    ),
    "schedule that raises": (
        lambda c, p: setattr(c.optimizers[1], "lr", lambda step: 1 / 0),
        ZeroDivisionError,
        "division by zero",
    ),
    "schedule of the limit": (
        lambda c, p: setattr(c, "clip_norm", lambda step: 0.0),
        ValueError,
        r"^the schedule of clip_norm at step 1 must be .*, got 0\.0",
    ),
    "limit of one": (
        lambda c, p: setattr(c.optimizers[0], "clip_norm", 2.0),
        ValueError,
        r"^clip_norm of optimizers\[0\] must be None in a Combined, got 2\.0; give clip_norm to the",
    ),
    "guard of one": (
        lambda c, p: setattr(c.optimizers[1], "nonfinite", "skip"),
        ValueError,
        r"^nonfinite of optimizers\[1\] must be 'propagate' in a Combined, got 'skip'",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changes_of_one_of_them(case: str) -> None:
    change, kind, message = CHANGES[case]
    combined, params = made(nonfinite="skip")
    change(combined, params)
    before = everything(combined)
    with pytest.raises(kind, match=message) as caught:
        combined.step(grads())
    assert everything(combined) == before
    assert combined.step_count == 1
    if case == "schedule that raises":
        notes = caught.value.__notes__  # type: ignore[attr-defined]
        assert notes == ["raised by the schedule of lr at step 1", "in optimizers[1]"]


def test_a_moved_array() -> None:
    combined, params = made()
    if hasattr(params["c"], "data"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy
            params["c"].shape = (2, 1)
    before = everything(combined)
    with pytest.raises(ValueError, match=r"^optimizers\[1\]: parameter 'c' must keep its shape"):
        combined.step(grads())
    with pytest.raises(ValueError, match=r"^optimizers\[1\]: parameter 'c' must keep its shape"):
        combined.refresh_copies()
    assert everything(combined) == before


def test_inside_averages_of_one_of_them() -> None:
    combined, _ = made()
    with combined.optimizers[0].averaged():
        before = everything(combined)
        for call in (lambda: combined.step(grads()), lambda: combined.load_state_dict({})):
            with pytest.raises((RuntimeError, ValueError)):
                call()
        with pytest.raises(RuntimeError, match=r"step must come after the block of averaged\(\)"):
            combined.step(grads())
        assert everything(combined) == before
    combined.step(grads())


def test_a_step_without_gradients() -> None:
    combined, _ = made()
    with pytest.raises(ValueError, match=r"step\(\) must have gradients, given or accumulated"):
        combined.step()
    combined.optimizers[1].accumulate({"c": np.ones(2), "d": None})
    combined.step()  # those of one are enough
    assert combined.step_count == 2
    for wrong in (0.0, -1.0, np.inf, "1"):
        with pytest.raises((TypeError, ValueError), match="grad_scale must be"):
            combined.step(grads(), grad_scale=wrong)


def test_what_it_is_made_of() -> None:
    w = np.ones(3)
    one = instep.SGD({"w": w})
    for wrong, kind, message in (
        ((), TypeError, "at least one optimizer, got none"),
        ((w,), TypeError, r"optimizers\[0\] must be an Optimizer of instep, got an ndarray$"),
        (([one],), TypeError, "got a list; pass each optimizer as an argument of its own"),
        ((instep.Combined(one),), TypeError, "got a Combined; pass each optimizer as an argument"),
        ((one, one), ValueError, r"optimizers\[1\] must be another.*that is optimizers\[0\]"),
        (
            (one, instep.SGD([np.ones(1)], clip_norm=1.0)),
            ValueError,
            r"clip_norm of optimizers\[1\] must be None in a Combined, got 1\.0; give clip_norm",
        ),
        (
            (instep.SGD([np.ones(1)], nonfinite="raise"),),
            ValueError,
            r"nonfinite of optimizers\[0\] must be 'propagate' in a Combined, got 'raise'",
        ),
        (
            (one, instep.SGD({"v": w})),
            ValueError,
            r"optimizers\[0\]: parameter 'w' must have memory of its own, got an array that shares "
            r"memory with parameter 'v' of optimizers\[1\]; for tied weights",
        ),
        (
            (one, instep.SGD({"v": np.ones(3)}, copy_to={"v": w.view("f4")[:3]})),
            ValueError,
            r"memory with the copy of 'v' of optimizers\[1\]$",
        ),
        ((one, instep.Adam({"v": one.params["w"][1:]})), ValueError, "shares memory"),
    ):
        with pytest.raises(kind, match=message):
            instep.Combined(*wrong)  # type: ignore[arg-type]
    for limits in ({"clip_norm": 0.0}, {"clip_norm": "1"}, {"nonfinite": "ignore"}):
        with pytest.raises((TypeError, ValueError), match="must be"):
            instep.Combined(one, **limits)  # type: ignore[arg-type]
    combined = instep.Combined(one)
    for name, value in (("clip_norm", -1.0), ("nonfinite", "no"), ("lr", 0.1), ("optimizers", ())):
        with pytest.raises((AttributeError, ValueError)):
            setattr(combined, name, value)
    combined.step({"w": np.ones(3)})


def test_groups_that_were_added_are_compared_too() -> None:
    a, b = np.ones(4), np.ones(4)
    first, second = instep.SGD({"a": a}), instep.SGD({"b": b})
    combined = instep.Combined(first, second)
    first.add_param_group({"params": {"c": b[:2]}})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"'c' .* shares memory with parameter 'b' of optim"):
            combined.step([[{"a": np.ones(4)}, {"c": None}], {"b": np.ones(4)}])
    assert combined.step_count == first.step_count == second.step_count == 0
    assert a[0] == b[0] == 1.0


def test_names_that_two_of_them_have() -> None:
    a, b = np.ones(2), np.ones(3)
    combined = instep.Combined(instep.SGD([a], lr=0.5), instep.SGD([b], lr=0.5))
    with pytest.raises(
        ValueError,
        match="must be a list with one container for each optimizer, as several have a parameter with "
        "the name '0', got a dict",
    ):
        combined.step({"0": np.ones(2)})
    combined.step([[np.ones(2)], [np.ones(3)]])
    assert list(combined.params) == list(combined.state) == ["0.0", "1.0"]
    assert combined.params["1.0"] is b
    unique = instep.Combined(instep.SGD([a], lr=0.5), instep.SGD({"b": b}, lr=0.5))
    assert list(unique.params) == ["0", "b"]
    unique.optimizers[1].add_param_group({"params": {"0": np.ones(1)}})
    assert list(unique.params) == ["0.0", "1.b", "1.0"]


class Own(ValueError):
    """An error of a caller's schedule, say, which may take other arguments than a text."""


def test_errors_name_the_optimizer_if_they_are_plain() -> None:
    with pytest.raises(ValueError, match=r"^optimizers\[1\]: a text$") as caught, about(1):
        raise ValueError("a text") from KeyError("a cause")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(Own, match=r"^as it is$"), about(1):
        raise Own("as it is")


@pytest.mark.parametrize("name", ["lr", "betas", "param_groups", "current", "learning_rate"])
def test_what_each_optimizer_has_alone(name: str) -> None:
    combined: Any = instep.Combined(instep.Adam(np.ones(2)))
    meant = "lr" if name == "learning_rate" else name
    text = rf"Combined has no attribute '{name}'; each optimizer has its own, as in .optimizers\[0\].{meant}$"
    with pytest.raises(AttributeError, match=text):
        getattr(combined, name)
    with pytest.raises(AttributeError, match=text):
        setattr(combined, name, 0.1)
    assert name not in dir(combined)
    assert not hasattr(combined, name)


def test_functions_for_one_optimizer() -> None:
    combined: Any = instep.Combined(instep.Adam(np.ones(2)))
    with pytest.raises(TypeError, match=r"got a Combined; call .* for each of its optimizers$"):
        instep.interop.to_torch_state_dict(combined)
    with pytest.raises(TypeError, match=r"as in \*combined.optimizers$"):
        instep.Combined(combined)
