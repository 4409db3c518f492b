"""Calls in other orders, of several threads, after the end; what a rank hears of the others."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adam_on_ranks import ODD, SHAPES, SIZE, gradients, made
from cases import CHUNK
from one_process import assert_alike, together

import instep
from instep import schedules
from instep.mpi import CommunicationError, Distributed, over_threads


@pytest.mark.parametrize("ranks", [(0, 1, 2), (1,)])
def test_a_step_inside_a_step(ranks: tuple[int, ...]) -> None:
    def each(comm: Any) -> None:
        optimizer = made(comm)
        for call in (
            lambda: optimizer.step(None),
            optimizer.state_dict,
            lambda: optimizer.load_state_dict(None),
            lambda: optimizer.averaged().__enter__(),
            optimizer.close,
        ):
            if comm.rank in ranks:
                optimizer.lr.once = call
            with pytest.raises(RuntimeError, match="must come after the call that is under way"):
                optimizer.step(gradients(0, comm.rank))
        optimizer.step(gradients(0, comm.rank))
        assert optimizer.step_count == 1

    together(3, each)


def test_other_calls_on_one_rank() -> None:
    """All find out, and can go on together."""

    def each(comm: Any) -> None:
        optimizer = made(comm, ema_decay=0.5)
        calls: list[Callable[[], object]] = [
            lambda: optimizer.step(gradients(0, comm.rank)),
            optimizer.state_dict,
            lambda: optimizer.load_state_dict(None),
            lambda: optimizer.averaged().__enter__(),
        ]
        for k, one in enumerate(calls):
            for other in calls[:k]:
                with pytest.raises(CommunicationError, match="must make the same call, got "):
                    (other if comm.rank == ODD else one)()
        optimizer.step(gradients(0, comm.rank))
        assert optimizer.step_count == 1

    together(SIZE, each)


def test_two_of_one_communicator_in_another_order() -> None:
    """The gradients of one would go into the other; all find out, and can go on together."""

    def each(comm: Any) -> None:
        pair = [made(comm), made(comm)]
        for optimizer in pair[::-1] if comm.rank == ODD else pair:
            with pytest.raises(
                CommunicationError, match="same Distributed, got another one on rank 1"
            ):
                optimizer.step(gradients(0, comm.rank))
        for optimizer in pair:
            optimizer.step(gradients(0, comm.rank))
            assert optimizer.step_count == 1

    together(SIZE, each)


def test_an_error_and_another_call() -> None:
    """All hear of the call, and the error isn't lost."""

    def each(comm: Any) -> BaseException | None:
        optimizer = made(comm)
        with pytest.raises(CommunicationError, match="must make the same call") as caught:
            optimizer.step(3) if comm.rank == ODD else optimizer.state_dict()
        return caught.value.__cause__

    causes = together(SIZE, each)
    assert [type(cause) for cause in causes] == [type(None), TypeError, type(None)]


def test_one_leaves() -> None:
    """The others hear of it, now and later, and can't wait for it."""

    def each(comm: Any) -> list[str]:
        optimizer = made(comm)
        optimizer.step(gradients(0, comm.rank))
        said = []
        leave = [optimizer.close] if comm.rank == ODD else []
        for call in (*leave, *[lambda: optimizer.step(gradients(1, comm.rank))] * 2):
            with pytest.raises(CommunicationError) as caught:
                call()
            said.append(str(caught.value))
        optimizer.close()
        return said

    text = "rank 1 has left after step 1, and the others go on; end the loop at the same step on all ranks"
    for rank, said in enumerate(together(SIZE, each, timeout=5)):
        assert said[0] == text
        assert said[1] == ("the Distributed is closed; make a new one" if rank == ODD else text)
        assert said[1] == said[-1]


def test_one_leaves_before_another_calls_save(tmp_path: Path) -> None:
    """As after ``if comm.rank == 0: optimizer.save(...)`` at the end: what is told is the call, not the loop."""

    def each(comm: Any) -> str:
        optimizer = made(comm)
        optimizer.step(gradients(0, comm.rank))
        with pytest.raises(CommunicationError) as caught:
            optimizer.save(tmp_path / "run") if comm.rank == 0 else optimizer.close()
        return str(caught.value)

    text = (
        "ranks 1, 2 have left after step 1, and rank 0 is to call save; make each call on all ranks"
    )
    assert together(SIZE, each, timeout=5) == [text] * SIZE


def test_an_error_in_a_with_block() -> None:
    """Stays what it was, and the others hear that the rank has left."""

    def each(comm: Any) -> None:
        with made(comm) as optimizer:
            optimizer.step(gradients(0, comm.rank))
            if comm.rank == ODD:
                raise ZeroDivisionError
            optimizer.step(gradients(1, comm.rank))

    errors = [rank.exception() for rank in over_threads.run(SIZE, each)]
    assert [type(error).__name__ for error in errors] == [
        "CommunicationError",
        "ZeroDivisionError",
        "CommunicationError",
    ]
    assert "rank 1 has left after step 1" in str(errors[0])


def test_an_interrupt_when_the_step_is_taken() -> None:
    """Before the sums are dropped and the copies are written: the object can't go on."""

    def each(comm: Any) -> None:
        copies = {"w": np.zeros(SHAPES["w"], np.float16), "b": None}
        optimizer = made(comm, copy_to=copies)

        def interrupted() -> None:
            raise KeyboardInterrupt

        if comm.rank == ODD:
            optimizer._job.refresh_copies = interrupted
        optimizer.step(gradients(0, comm.rank))
        optimizer.step(gradients(1, comm.rank))

    begun = time.monotonic()
    errors = [rank.exception() for rank in over_threads.run(SIZE, each, timeout=20)]
    assert time.monotonic() - begun < 10
    assert isinstance(errors[ODD], KeyboardInterrupt)
    assert isinstance(errors[0], CommunicationError)


def test_closing_together() -> None:
    def each(comm: Any) -> None:
        with made(comm) as optimizer:
            optimizer.step(None)
        optimizer.close()
        for call in (lambda: optimizer.step(None), optimizer.state_dict):
            with pytest.raises(CommunicationError, match="the Distributed is closed"):
                call()
        assert optimizer.step_count == 1
        assert "step_count=1" in repr(optimizer)

    together(SIZE, each)


def test_averages_inside_averages() -> None:
    def each(comm: Any) -> None:
        optimizer = made(comm, ema_decay=0.5)
        with optimizer.averaged():
            for call in (lambda: optimizer.averaged().__enter__(), lambda: optimizer.step(None)):
                with pytest.raises(RuntimeError, match="averaged"):
                    call()
        optimizer.step(None)
        with pytest.raises(ZeroDivisionError), optimizer.averaged():
            raise ZeroDivisionError
        optimizer.step(None)
        block = optimizer.averaged()
        block.__enter__()
        optimizer.end_averaged()
        optimizer.step(None)
        block.__exit__(None, None, None)
        assert optimizer.step_count == 3
        with pytest.raises(ValueError, match="ema_decay must be"), made(comm).averaged():
            pass

    together(2, each)


def test_two_threads_take_turns() -> None:
    """With the same gradients, so that it doesn't matter which is first."""
    started = threading.Barrier(2)

    def each(comm: Any) -> Any:
        optimizer = made(comm, lr=schedules.InverseSqrtDecay(0.1, 2))
        errors: list[BaseException] = []

        def steps() -> None:
            try:
                for _ in range(20):
                    optimizer.step(gradients(0, comm.rank))
            except BaseException as error:
                errors.append(error)

        started.wait(10)
        threads = [threading.Thread(target=steps) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not errors
        return optimizer.params, optimizer.step_count

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        found = together(2, each)
    finally:
        sys.setswitchinterval(switch)
    params = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    optimizer = instep.Adam(params, lr=schedules.InverseSqrtDecay(0.1, 2), clip_norm=1.0)
    for _ in range(40):
        for rank in range(2):
            optimizer.accumulate(gradients(0, rank))
        optimizer.step()
    for one in found:
        assert_alike(one, (params, 40))


@pytest.mark.parametrize("several", [False, True])
def test_another_thread_accumulates_in_the_middle_of_a_step(several: bool) -> None:
    """It waits for the step, which would drop what comes too late."""
    middle: list[Callable[[], object]] = []

    def before(call: over_threads.Call) -> None:
        if call.rank == ODD and call.name == "alltoallv" and middle:
            middle.pop()()

    def make(params: Any) -> Any:
        one = instep.SGD(params, lr=1.0)
        return instep.Combined(one) if several else one

    def each(comm: Any) -> list[Any]:
        optimizer = Distributed(make, [w := np.zeros(CHUNK)], comm=comm, shard=True)
        grads = [[np.ones(CHUNK)]] if several else [np.ones(CHUNK)]
        late = threading.Thread(target=optimizer.accumulate, args=(grads,))
        if comm.rank == ODD:
            middle.append(lambda: (late.start(), late.join(0.2)))
        optimizer.step(grads)
        found = [w[0]]
        if comm.rank == ODD:
            late.join(10)
        optimizer.step() if comm.rank == ODD else optimizer.step(None)
        return [*found, w[0]]

    assert together(2, each, before=before) == [[-2.0, -3.0]] * 2


def test_a_scaler_and_ranks_without_a_batch() -> None:
    """A rank without a batch counts as the others do."""

    def batches(rank: int, step: int) -> Any:
        if rank == step % 3 or step == 4:
            return None
        grads = gradients(step, rank)
        if (rank, step) == (2, 3):
            grads["w"][-1] = np.inf
        return grads

    def each(comm: Any) -> Any:
        optimizer, scaler = made(comm, nonfinite="skip"), instep.LossScaler(4.0, growth_interval=2)
        found = []
        for step in range(6):
            found.append((scaler.step(optimizer, batches(comm.rank, step)), scaler.state_dict()))
        return found, optimizer.params, optimizer.skipped_steps

    params = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    optimizer = instep.Adam(params, lr=0.1, clip_norm=1.0, nonfinite="skip")
    scaler = instep.LossScaler(4.0, growth_interval=2)
    wanted = []
    for step in range(6):
        for rank in range(3):
            if (grads := batches(rank, step)) is not None:
                optimizer.accumulate(grads)
        given = [] if optimizer.accumulated else [dict.fromkeys(SHAPES)]
        wanted.append((scaler.step(optimizer, *given), scaler.state_dict()))
    for found in together(3, each):
        assert_alike(found, (wanted, params, 1))


def test_a_rank_without_a_thread_is_missed() -> None:
    """Whoever returns without closing is missed by name, and not for ever."""

    def each(comm: Any) -> None:
        optimizer = made(comm)
        if comm.rank != ODD:
            optimizer.step(None)

    begun = time.monotonic()
    ranks = over_threads.run(3, each, timeout=20)
    assert time.monotonic() - begun < 10
    assert [getattr(rank.exception(), "ranks", None) for rank in ranks] == [(1,), None, (1,)]
