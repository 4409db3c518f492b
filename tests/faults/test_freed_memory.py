"""Memory that Python frees while the core works: it is kept, or looked at anew: docs/faults.md."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from moves import other_memory
from reference import assert_same_bits

import instep

LONG = 3_000_000  # a step over so many elements releases the GIL


def scribbled(size: int) -> None:
    """Put something else where memory has just been freed."""
    for _ in range(3):
        np.full(size, np.nan, "f4")


def beside_steps(steps: Callable[[], Any], action: Callable[[], Any]) -> list[BaseException]:
    """Do the action on another thread, again and again, while steps run on this one."""
    done, raised = threading.Event(), list[BaseException]()

    def act() -> None:
        while not done.is_set():
            try:
                action()
            except (ValueError, TypeError, AttributeError) as error:
                raised.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        steps()
    finally:
        done.set()
        thread.join()
    return raised


@pytest.mark.parametrize("kind", ["exp_avg", "average", "accumulated"])
def test_an_array_of_the_optimizers_own_is_given_other_memory_under_steps(kind: str) -> None:
    """The steps go on with the memory that they had: it lives as long as the optimizer."""
    start = np.linspace(-1, 1, LONG, dtype="f4")
    w, twin = start.copy(), start.copy()
    options: dict[str, Any] = {"lr": 0.5, "ema_decay": 0.5}
    optimizer, reference = instep.Adam(w, **options), instep.Adam(twin, **options)
    gradient = np.ones(LONG, "f4")
    for one in (optimizer, reference):
        one.accumulate(gradient)
    own = {
        "exp_avg": optimizer.state["0"]["exp_avg"],
        "average": optimizer.averages["0"],
        "accumulated": optimizer.accumulated["0"],
    }[kind]
    base = own.base
    assert not isinstance(base, np.ndarray)

    def steps() -> None:
        for _ in range(3):
            optimizer.step(gradient)

    def move() -> None:
        other_memory(own)
        scribbled(LONG)

    beside_steps(steps, move)
    del base
    optimizer.step(gradient)
    for _ in range(4):
        reference.step(gradient)
    assert_same_bits(w, twin)


@pytest.mark.parametrize("owned", [True, False], ids=["its own memory", "a view"])
@pytest.mark.parametrize("how", ["setstate", "data"])
def test_a_gradient_is_given_other_memory_under_a_step(how: str, owned: bool) -> None:
    """The step under way reads what it was given."""
    w = np.zeros(LONG, "f4")
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(w.copy())
    box: list[Any] = []
    small = np.zeros(1, "f4")

    def move() -> None:
        if box:
            gradient = box.pop()
            if how == "setstate":
                other_memory(gradient)
            else:
                gradient.data = small.data
            del gradient
            scribbled(LONG)

    def steps() -> None:
        for k in range(1, 9):
            whole = np.ones(LONG if owned else LONG + 1, "f4")
            gradient = whole if owned else whole[1:]
            del whole
            before = optimizer.step_count
            box.append(gradient)
            with suppress(ValueError):  # it was moved before the step began
                optimizer.step(gradient)
            assert optimizer.step_count - before in (0, 1), k

    beside_steps(steps, move)
    assert (w == -float(optimizer.step_count - 1)).all()


def test_a_parameter_is_given_other_memory_under_a_step() -> None:
    """The step under way writes what it was given, and the next one is refused by name."""
    for _ in range(6):
        w = np.zeros(LONG, "f4")
        optimizer = instep.Adam(w, lr=1.0)
        optimizer.step(np.ones(LONG, "f4"))
        begun = threading.Event()

        def move(w: Any = w, begun: Any = begun) -> None:
            begun.wait(10)
            other_memory(w)
            scribbled(LONG)

        thread = threading.Thread(target=move)
        thread.start()
        gradient = np.ones(LONG, "f4")
        begun.set()
        try:
            for _ in range(50):
                optimizer.step(gradient)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = ""
        thread.join()
        if not refusal:
            with pytest.raises(
                ValueError, match=r"parameter '0' must .*, got .* has been reshaped or moved"
            ):
                optimizer.step(gradient)
        else:
            assert (
                "parameter '0' must keep its shape and its place in memory, got an array that has been "
                in refusal
            )
        del w, optimizer


class Moving(np.ndarray):
    """As it is asked whether it has a mask, it moves other arrays."""

    act: Callable[[], Any] | None = None

    @property
    def mask(self) -> Any:
        if self.act is not None:
            self.act()
        raise AttributeError


@pytest.mark.parametrize("method", ["setstate", "resize"])
def test_a_state_that_moves_another_while_it_is_loaded(method: str) -> None:
    """What was looked at is looked at again: the load is refused, and nothing has changed."""
    params = {"a": np.zeros(50_000), "b": np.zeros(5)}
    optimizer = instep.Momentum(params)
    optimizer.step({"a": np.ones(50_000), "b": np.ones(5)})
    before = {name: states["momentum_buffer"].copy() for name, states in optimizer.state.items()}
    state = optimizer.state_dict()
    moved = state["state"]["a"]["momentum_buffer"]
    array = state["state"]["b"]["momentum_buffer"].view(Moving)
    turns: list[int] = []

    def act() -> None:
        turns.append(1)
        if len(turns) > 1 or method == "resize":  # not before the core asks
            if method == "setstate":
                other_memory(moved)
            else:
                moved.resize(3, refcheck=False)
            scribbled(100_000)

    array.act = act
    state["state"]["b"]["momentum_buffer"] = array
    with pytest.raises(ValueError, match=r"momentum_buffer' of 'a' must have shape .*, got"):
        optimizer.load_state_dict(state)
    assert turns
    for name, states in optimizer.state.items():
        assert_same_bits(states["momentum_buffer"], before[name])


def test_a_state_of_a_subclass_is_moved_while_it_is_loaded() -> None:
    """What it lies in when all have been asked for is read, and no memory that it has left."""
    params = {"a": np.zeros(50_000), "b": np.zeros(5)}
    optimizer = instep.Momentum(params)
    state = optimizer.state_dict()
    moved = Moving((50_000,), float)
    moved[...] = 5.0
    array = Moving((5,), float)
    array[...] = 1.0
    sixes = np.full(50_000, 6.0)

    def act() -> None:
        moved.__setstate__((1, moved.shape, moved.dtype, False, sixes.tobytes()))
        scribbled(100_000)

    array.act = act
    state["state"]["a"]["momentum_buffer"] = moved
    state["state"]["b"]["momentum_buffer"] = array
    optimizer.load_state_dict(state)
    assert (optimizer.state["a"]["momentum_buffer"] == 6.0).all()


def test_a_dtype_that_moves_an_array_as_it_is_asked_its_name() -> None:
    """It is no number's, so the step is refused; nothing is asked before all is over."""
    moved = np.ones(50_000)

    class Telling(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            other_memory(moved)
            scribbled(100_000)
            return "bfloat16"

    odd = np.zeros(5, np.dtype((Telling("odd", (np.void,), {}), "V2")))
    w = [np.zeros(50_000), np.zeros(5)]
    optimizer = instep.SGD(w, lr=1.0)
    with pytest.raises(TypeError, match=r"gradient of '1' must have dtype .*, got"):
        optimizer.step([moved, odd])
    assert not any(p.any() for p in w)
    assert optimizer.step_count == 0


def test_a_parameter_that_moves_another_as_the_optimizer_is_made() -> None:
    first = np.zeros(50_000)
    second = np.zeros(5).view(Moving)
    second.act = lambda: other_memory(first) if first.size > 1 else None
    optimizer = instep.SGD([first, second], lr=1.0)
    assert optimizer.params["0"].shape == (1,)
    scribbled(100_000)
    optimizer.step([np.ones(1), np.ones(5)])
    assert first.tolist() == [-1.0]
    assert np.asarray(second).tolist() == [-1.0] * 5


def test_a_parameter_that_is_given_other_memory_before_the_first_sum() -> None:
    """The sum is room of its own, for which all arrays are laid out anew: not as they lie by then."""
    w = np.ones(500)
    optimizer = instep.SGD(w, lr=0.5)
    optimizer.step(np.ones(500))
    other_memory(w)
    for call in (optimizer.accumulate, optimizer.step):
        with pytest.raises(
            ValueError, match=r"parameter '0' must .*, got .* has been reshaped or moved"
        ):
            call(np.ones(500))
    assert not w.any()
    assert optimizer.step_count == 1


def test_a_copy_that_is_given_other_memory_while_it_shows_averages() -> None:
    w, half = np.ones(500, "f4"), np.empty(500, "f2")
    optimizer = instep.SGD(w, lr=0.5, ema_decay=0.5, copy_to=half)
    optimizer.step(np.ones(500))

    def move() -> None:
        with optimizer.averaged():
            other_memory(half)

    with pytest.raises(
        ValueError, match=r"the copy of '0' must .*, got .* has been resized or moved"
    ):
        move()
    assert (w == 0.5).all()  # the weights are back
    assert not half.any()


def refuse(optimizer: Any, grads: Any) -> None:
    with pytest.raises((TypeError, ValueError, FloatingPointError, KeyError)):
        optimizer.step(grads)


def no_number(step: int) -> float:
    raise KeyError("no number")


@pytest.mark.parametrize("fault", ["wrong shape", "wrong count", "not finite", "schedule", "none"])
@pytest.mark.parametrize("size", [3, LONG // 2], ids=["short", "long"])
def test_no_call_keeps_a_gradient(fault: str, size: int) -> None:
    """Whether it was taken or refused, wherever: gradients are large, and the program's own."""
    params = [np.zeros(size, "f4"), np.zeros(3, "f4")]
    optimizer = instep.SGD(params, nonfinite="raise")
    grads: list[Any] = [np.ones(size, "f4").view(Moving), np.ones(3, "f4")]
    gone = [weakref.ref(grads[0]), weakref.ref(grads[1])]
    if fault == "wrong shape":
        grads[1] = np.ones(4, "f4")
    elif fault == "wrong count":
        grads.append(grads[0])
    elif fault == "not finite":
        grads[1][0] = np.nan
    elif fault == "schedule":
        optimizer.lr = no_number
    optimizer.step(grads) if fault == "none" else refuse(optimizer, grads)
    owners = grads[0].base
    assert owners.flags.owndata, "given back, once the step was over"
    del owners
    grads.clear()
    assert [ref() for ref in gone] == [None, None]
