"""An error on one rank is an error on all of them, before anything has changed; the next step is as any other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adam_on_ranks import ODD, SHAPES, SIZE, expected, gradients, made
from cases import CHUNK
from one_process import assert_alike, everything, together

import instep
from instep.mpi import Distributed


def refuse(
    call: Callable[[Any, int], object],
    error: type[BaseException],
    own: str,
    others: str | None = None,
    other_error: type[BaseException] | None = None,
    **more: Any,
) -> None:
    """Let all ranks make a call that is wrong on one of them, between two good steps.

    `own` is said on that rank, and `others`, if it isn't the same with the rank's number, elsewhere.
    """

    def each(comm: Any) -> tuple[str, dict[str, Any]]:
        optimizer = made(comm, **more)
        optimizer.step(gradients(0, comm.rank))
        before = everything(optimizer)
        wanted = error if comm.rank == ODD or other_error is None else other_error
        with pytest.raises(wanted) as caught:
            call(optimizer, comm.rank)
        assert caught.type is wanted
        assert_alike(everything(optimizer), before)
        optimizer.step(gradients(1, comm.rank))
        return str(caught.value), optimizer.params

    wanted = expected()
    for rank, (text, params) in enumerate(together(SIZE, each)):
        assert "\n" not in text
        if rank == ODD:
            assert own in text
        elif others is None:
            assert text.startswith(f"rank {ODD}: ")
            assert own in text
        else:
            assert others in text
        assert_alike(params, wanted)


def with_grads(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any, int], object]:
    """A step whose gradients are changed on one rank."""

    def call(optimizer: Any, rank: int) -> None:
        grads = gradients(1, rank)
        optimizer.step(change(grads) if rank == ODD else grads)

    return call


def of_w(value: Any) -> Callable[[Any, int], object]:
    return with_grads(lambda grads: {**grads, "w": value})


@pytest.mark.parametrize(
    ("call", "error", "own"),
    [
        (of_w(np.zeros(5)), ValueError, "the gradient of 'w' must have shape (49157,), got (5,)"),
        (of_w(np.zeros(SHAPES["w"], np.int64)), TypeError, "the gradient of 'w' must"),
        (of_w([1.0] * SHAPES["w"][0]), TypeError, "the gradient of 'w' must"),
        (with_grads(lambda grads: [1, 2]), TypeError, "the gradients must be a dict"),
        (with_grads(lambda grads: {"w": None}), ValueError, "'b'"),
    ],
    ids=["shape", "dtype", "list", "container", "keys"],
)
def test_a_gradient_that_cant_be_used(call: Any, error: type[Exception], own: str) -> None:
    refuse(call, error, own)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, "1"])
def test_a_scale_that_cant_be_used(scale: Any) -> None:
    error = TypeError if scale == "1" else ValueError

    def call(optimizer: Any, rank: int) -> None:
        optimizer.step(gradients(1, rank), grad_scale=scale if rank == ODD else None)

    refuse(call, error, "grad_scale must be a finite number greater than 0")


def test_a_step_without_gradients() -> None:
    def call(optimizer: Any, rank: int) -> None:
        optimizer.step(*[] if rank == ODD else [gradients(1, rank)])

    refuse(call, ValueError, "step() must have gradients, given or accumulated, got none")


def test_a_gradient_in_the_parameters_memory() -> None:
    def call(optimizer: Any, rank: int) -> None:
        grads = gradients(1, rank)
        optimizer.step({**grads, "w": optimizer.params["w"]} if rank == ODD else grads)

    refuse(call, ValueError, "'w'")


@pytest.mark.parametrize("given", ["gradients", "none", "accumulated"])
@pytest.mark.parametrize("what", ["read-only", "reshaped"])
def test_a_parameter_that_was_changed(what: str, given: str) -> None:
    def call(optimizer: Any, rank: int) -> None:
        w = optimizer.params["w"]
        if given == "accumulated":
            optimizer.accumulate(gradients(1, rank))
        if rank == ODD:
            if what == "read-only":
                w.flags.writeable = False
            else:
                w.shape = (1, *w.shape)
        try:
            grads = {"gradients": [gradients(1, rank)], "none": [None], "accumulated": []}[given]
            optimizer.step(*grads)
        finally:
            optimizer.discard_accumulated()
            if what == "read-only":
                w.flags.writeable = True
            else:
                w.shape = SHAPES["w"]

    refuse(call, ValueError, "'w'")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("lr", 0.2, "rank 1: lr is 0.2, on the others 0.1"),
        ("betas", (0.9, 0.5), "is 0.5, on the others 0.999"),
        ("clip_norm", 3.0, "rank 1: clip_norm is 3.0, on the others 1.0"),
        ("clip_norm", None, "rank 1: clip_norm is None, on the others 1.0"),
        ("nonfinite", "skip", "rank 1: nonfinite is 'skip', on the others 'propagate'"),
        ("maximize", True, "rank 1: maximize is "),
        ("weight_decay", 1e-300, "rank 1: weight_decay is 1e-300, on the others 0.0"),
    ],
)
def test_another_number_on_one_rank(name: str, value: Any, told: str) -> None:
    def call(optimizer: Any, rank: int) -> None:
        before = getattr(optimizer, name)
        if rank == ODD:
            setattr(optimizer, name, value)
        try:
            optimizer.step(gradients(1, rank))
        finally:
            setattr(optimizer, name, before)

    refuse(call, ValueError, told, told)


def test_another_scale_on_one_rank() -> None:
    def call(optimizer: Any, rank: int) -> None:
        optimizer.step(gradients(1, rank), grad_scale=0.5 if rank == ODD else 0.25)

    told = (
        "all ranks must have the same numbers, got others: rank 1: grad_scale is 0.5, on the others 0.25; "
        "set them on all"
    )
    refuse(call, ValueError, told, told)


@pytest.mark.parametrize("name", ["lr", "clip_norm", "scale"])
def test_numbers_that_are_nearly_the_same_are_those_of_rank_0(name: str) -> None:
    """As those of another C library."""
    near = 1 + 5e-13
    size = 3

    def each(comm: Any) -> Any:
        factor = near if comm.rank else 1.0
        own = {"lr": 0.1, "clip_norm": 1.0, "scale": 0.3}
        own[name] *= factor
        scale = own.pop("scale")
        optimizer = made(comm, **own)
        for step in range(2):
            optimizer.step(gradients(step, comm.rank), grad_scale=scale)
        return optimizer.params, optimizer.grad_norm

    params = {n: np.ones(shape, np.float32) for n, shape in SHAPES.items()}
    optimizer = instep.Adam(params, lr=0.1, clip_norm=1.0)
    for step in range(2):
        for rank in range(size):
            optimizer.accumulate(gradients(step, rank))
        optimizer.step(grad_scale=0.3)
    for found in together(size, each):
        assert_alike(found, (params, optimizer.grad_norm))


def test_scalars_that_are_nearly_the_same_are_those_of_rank_0() -> None:
    """As another C library computes them from the same numbers."""

    def each(comm: Any) -> Any:
        optimizer = made(comm)
        job = optimizer._job
        prepare = job.prepared

        def nearly(*arguments: Any) -> Any:
            ready = prepare(*arguments)
            scalars = np.frombuffer(ready.prepared, np.float32)
            other = scalars * np.float32(1 + 8e-7)
            assert np.any(other != scalars)
            job.ranks.set_prepared(other.tobytes())
            return ready._replace(prepared=other.tobytes())

        if comm.rank == ODD:
            job.prepared = nearly
        for step in range(2):
            optimizer.step(gradients(step, comm.rank))
        return optimizer.params

    for params in together(SIZE, each):
        assert_alike(params, expected())


# ---- errors of a schedule ------------------------------------------------------------------------


class Own(ValueError):
    """An error of the user's."""


class Wide(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


def raising(error: Any) -> Callable[[Any, int], object]:
    def call(optimizer: Any, rank: int) -> None:
        if rank == ODD:

            def once() -> None:
                raise error

            optimizer.lr.once = once
        optimizer.step(gradients(1, rank))

    return call


@pytest.mark.parametrize(
    ("error", "elsewhere", "told"),
    [
        (ZeroDivisionError("division by zero"), ZeroDivisionError, "division by zero"),
        (Own("of mine"), ValueError, "Own: of mine"),
        (Wide(1, 2), Exception, "Wide: (1, 2)"),
        (KeyError("k"), KeyError, "'k'"),
        (StopIteration(), StopIteration, "StopIteration"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), UnicodeError, "UnicodeDecodeError: "),
        (MemoryError(), MemoryError, "MemoryError"),
        (KeyboardInterrupt(), KeyboardInterrupt, "KeyboardInterrupt"),
        (SystemExit(0), RuntimeError, "SystemExit: 0"),
        (SystemExit(), RuntimeError, "SystemExit"),
        (GeneratorExit(), RuntimeError, "GeneratorExit"),
        (ValueError("two\nlines"), ValueError, "two"),
        (OSError(2, "no such file"), FileNotFoundError, "no such file"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_in_a_schedule(
    error: BaseException, elsewhere: type[BaseException], told: str
) -> None:
    def each(comm: Any) -> tuple[BaseException, dict[str, Any]]:
        optimizer = made(comm)
        optimizer.step(gradients(0, comm.rank))
        before = everything(optimizer)
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            raising(error)(optimizer, comm.rank)
        assert_alike(everything(optimizer), before)
        optimizer.step(gradients(1, comm.rank))
        return caught.value, optimizer.params

    wanted = expected()
    for rank, (found, params) in enumerate(together(SIZE, each)):
        if rank == ODD:
            assert found is error
        else:
            assert type(found) is elsewhere
            assert f"rank {ODD}: " in str(found)
            assert told in str(found)
            if isinstance(error, Exception):
                assert "raised by the schedule of lr at step 1" in str(found)
            assert "\n" not in str(found)
        assert_alike(params, wanted)


def said(work: Callable[[], object]) -> Any:
    with pytest.raises((ValueError, TypeError, ArithmeticError)) as caught:
        work()
    return caught.type, str(caught.value), getattr(caught.value, "__notes__", None)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "lr", [lambda step: -1.0, lambda step: "x", lambda step: 1 / 0, lambda step: float("x")]
)
def test_the_words_of_one_process(lr: Any, several: bool) -> None:
    def make(params: Any) -> Any:
        first = instep.SGD([params[0]], lr=lr)
        return instep.Combined(first, instep.SGD([params[1]])) if several else first

    def params() -> Any:
        return [np.ones(3), np.ones(2)]

    wanted = said(lambda: make(params()).step([None, None] if several else [None]))
    for comm_says in together(
        1, lambda comm: said(lambda: Distributed(make, params(), comm=comm).step(None))
    ):
        assert comm_says == wanted


def test_errors_on_several_ranks() -> None:
    """Each has its own; the others hear of the first."""

    def each(comm: Any) -> str:
        optimizer = made(comm)
        errors = {1: ValueError("one"), 2: KeyError("two")}
        if comm.rank in errors:

            def once() -> None:
                raise errors[comm.rank]

            optimizer.lr.once = once
        with pytest.raises((ValueError, KeyError)) as caught:
            optimizer.step(gradients(0, comm.rank))
        return f"{caught.type.__name__} {caught.value}"

    first, second, third = together(3, each)
    assert first.startswith("ValueError rank 1: one")
    assert (second, third) == ("ValueError one", "KeyError 'two'")


@pytest.mark.parametrize(
    "place", ["lr of group 1 of optimizers[0]", "eps of optimizers[1]", "clip_norm"]
)
def test_whose_number_it_is(place: str) -> None:
    """One of several groups of several optimizers, or of all of them."""

    def each(comm: Any) -> None:
        def make(params: Any) -> Any:
            groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.2}]
            return instep.Combined(instep.SGD(groups), instep.Adam([params[2]]), clip_norm=1.0)

        both = Distributed(make, [np.ones(3), np.ones(2), np.ones(4)], comm=comm)
        if comm.rank == ODD:
            if place.startswith("lr"):
                both.optimizers[0].param_groups[1]["lr"] = 0.5
            elif place.startswith("eps"):
                both.optimizers[1].eps = 0.5
            else:
                both.clip_norm = 0.5
        with pytest.raises(ValueError, match=re.escape(f"rank 1: {place} is 0.5, on the others ")):
            both.step(None)

    together(SIZE, each)


def test_the_last_norm_after_a_refusal() -> None:
    def each(comm: Any) -> list[float | None]:
        optimizer = made(comm, nonfinite="raise")
        found = [optimizer.grad_norm]
        optimizer.step(gradients(0, comm.rank))
        found.append(optimizer.grad_norm)
        bad = gradients(1, comm.rank)
        if comm.rank == ODD:
            bad["w"][CHUNK] = np.nan
        optimizer.accumulate(bad)
        text = "the gradient of 'w' must be finite"
        with pytest.raises(FloatingPointError, match=text):
            optimizer.step()
        assert set(optimizer.accumulated) == set(SHAPES), "nothing has changed"
        optimizer.discard_accumulated()
        found.append(optimizer.grad_norm)
        return found

    for none, norm, after in together(3, each):
        assert none is None
        assert norm == after != 0
