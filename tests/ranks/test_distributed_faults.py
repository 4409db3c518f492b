"""Faults while ranks move data: no rank waits for ever, all raise, and the object says that it is broken."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CHUNK
from one_process import assert_alike, together

import instep
from instep.mpi import CommunicationError, Distributed, MissingRanksError
from instep.mpi.over_threads import Call, run

SIZE, ODD = 3, 1  # ranks, and the one with the fault
TIMEOUT = 0.4


class Fault(Exception):
    """What is wrong with a wire."""


def grads(rank: int, several: bool = True) -> dict[str, Any]:
    absent = several and rank == 2  # so that the ranks compare what they have, too
    return {"w": np.full(3 * CHUNK + 1, rank + 0.5), "b": None if absent else np.ones(2)}


def made(comm: Any) -> Any:
    params = {"w": np.zeros(3 * CHUNK + 1), "b": np.zeros(2)}
    return Distributed(
        instep.LAMB, params, comm=comm, lr=0.1, clip_norm=1.0, ema_decay=0.5, shard=True
    )


CALLS: dict[str, Callable[[Any, Any, Path], object]] = {
    "step": lambda optimizer, state, path: optimizer.step(grads(optimizer.comm.rank)),
    "state_dict": lambda optimizer, state, path: optimizer.state_dict(),
    "load_state_dict": lambda optimizer, state, path: optimizer.load_state_dict(state),
    "averaged": lambda optimizer, state, path: optimizer.averaged().__enter__(),
    "save": lambda optimizer, state, path: optimizer.save(path),
    "load from a file": lambda optimizer, state, path: optimizer.load(path),
    "load from a file by rank 0": lambda optimizer, state, path: optimizer.load(path, via="root"),
    "close": lambda optimizer, state, path: optimizer.close(),
}


def program(name: str, begun: list[int], path: Path) -> Callable[[Any], str]:
    """Make the optimizer, take a step, and make the call with the fault; then say what later calls raise."""

    def each(comm: Any) -> str:
        optimizer = made(comm)
        step, call = CALLS["step"], CALLS[name]
        step(optimizer, None, path)
        state = optimizer.state_dict()
        if name.startswith("load from a file"):
            optimizer.save(path)
        comm.allgather(b"")  # all have come so far
        if comm.rank == ODD:
            begun.append(comm._made)
        weights = copy.deepcopy(optimizer.params)
        try:
            call(optimizer, state, path)
        except BaseException as error:
            if name == "averaged":
                assert_alike(optimizer.params, weights, "not the averages")
            for another in (step, CALLS["state_dict"]):
                with pytest.raises(CommunicationError) as later:
                    another(optimizer, state, path)
            optimizer.close()
            raise error.with_traceback(None) from later.value
        return "fine"

    return each


def moves_in(name: str, path: Path) -> range:
    """The numbers of the messages that the odd rank sends in a call."""
    begun: list[int] = []
    sent: list[int] = []

    def count(call: Call) -> None:
        if call.rank == ODD:
            sent.append(call.number)

    assert all(
        rank.result() == "fine" for rank in run(SIZE, program(name, begun, path), before=count)
    )
    return range(begun[0], sent[-1] + 1)


def fail(how: str) -> Callable[[Call], None]:
    def change(call: Call) -> None:
        if how == "raises":
            raise Fault
        if how == "is interrupted":
            raise KeyboardInterrupt
        if how == "is late":
            time.sleep(2 * TIMEOUT)
        if how == "sends another length":
            call.send[-1] = bytes(memoryview(call.send[-1]).cast("B")) + b"12345678"
        if how == "is killed":
            raise SystemExit

    return change


def at(number: int, action: Callable[[Call], None]) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if call.rank == ODD and call.number == number:
            action(call)

    return before


def assert_all_broken(ranks: list[Future[Any]], what: str) -> None:
    for k, rank in enumerate(ranks):
        error = rank.exception()
        assert error is not None, f"{what}: rank {k} went on"
        later = error.__cause__
        assert isinstance(later, CommunicationError), f"{what}: {error!r}"


FAULTS = ("raises", "is interrupted", "is killed", "sends another length")
#: A late rank takes the time of the timeout, so not in every call.
LATE = [(name, "is late") for name in ("step", "load_state_dict")]


@pytest.mark.parametrize(("name", "how"), [*itertools.product(CALLS, FAULTS), *LATE])
def test_a_fault_in_any_message(name: str, how: str, tmp_path: Path) -> None:
    """Of a rank that raises there, comes too late, or sends something else."""
    path = tmp_path / "run.safetensors"
    found = moves_in(name, path)
    assert len(found) >= {"step": 7, "close": 1}.get(name, 2), "the call has these messages"
    late = how == "is late"
    for number in found if not late else [found[0], found[-1]]:
        begun = time.monotonic()
        ranks = run(
            SIZE,
            program(name, [], path),
            timeout=TIMEOUT if late else 20.0,
            before=at(number, fail(how)),
        )
        what = f"message {number - found[0]} of {name}"
        assert time.monotonic() - begun < 8, f"{what}: waited"
        assert_all_broken(ranks, what)
        assert all(file == path for file in tmp_path.iterdir()), f"{what}: left a file behind"
        own, other = ranks[ODD].exception(), ranks[0].exception()
        if how in ("raises", "is interrupted", "is killed"):
            assert type(own).__name__ in ("Fault", "KeyboardInterrupt", "SystemExit")
            assert isinstance(other, MissingRanksError), what
        if late:
            assert isinstance(other, MissingRanksError)
            assert other.ranks == (ODD,)


@pytest.mark.parametrize("message", [0, -2])
def test_what_is_said_afterwards(message: int, tmp_path: Path) -> None:
    number = moves_in("step", tmp_path)[message]
    ranks = run(
        SIZE, program("step", [], tmp_path), timeout=20.0, before=at(number, fail("raises"))
    )
    for k, rank in enumerate(ranks):
        error = rank.exception()
        assert error is not None
        assert str(error.__cause__) == (
            f"rank {k} can't go on after an error in step: parameters and states may have changed on "
            "some ranks only; make a new Distributed, and load the last checkpoint"
        )


@pytest.mark.parametrize("message", [0, 1, -1])
def test_a_rank_that_goes_on_after_its_error(message: int, tmp_path: Path) -> None:
    """Tells the others at once, though it doesn't end."""
    number = moves_in("step", tmp_path)[message]
    ended = threading.Semaphore(0)

    def each(comm: Any) -> None:
        try:
            optimizer = made(comm)
            CALLS["step"](optimizer, None, tmp_path)
            optimizer.state_dict()
            comm.allgather(b"")
            CALLS["step"](optimizer, None, tmp_path)
        finally:
            if comm.rank == ODD:
                assert all(ended.acquire(timeout=10) for _ in range(SIZE - 1))
            else:
                ended.release()

    errors = [
        rank.exception() for rank in run(SIZE, each, before=at(number, fail("raises")), timeout=30)
    ]
    assert isinstance(errors[ODD], Fault)
    assert all(isinstance(errors[k], MissingRanksError) for k in range(SIZE) if k != ODD)


@pytest.mark.parametrize("byte", [0, 4, 8, 20, 40, 60])
def test_a_rank_that_lies_in_the_round(byte: int, tmp_path: Path) -> None:
    """Whatever a record says, all ranks raise the same."""

    def lie(call: Call) -> None:
        record = bytearray(call.send[0])
        record[byte] ^= 0x55
        call.send[0] = bytes(record)

    found = moves_in("step", tmp_path)

    def each(comm: Any) -> str:
        optimizer = made(comm)
        CALLS["step"](optimizer, None, tmp_path)
        optimizer.state_dict()
        comm.allgather(b"")
        CALLS["step"](optimizer, None, tmp_path)
        return "fine"

    ranks = run(SIZE, each, timeout=TIMEOUT, before=at(found[0], lie))
    errors = {type(rank.exception()) for rank in ranks}
    # A digest alone that isn't true: the ranks look at the numbers themselves, which are.
    assert errors == {type(None)} if byte >= 16 else len(errors) == 1 and type(None) not in errors


def test_faults_while_it_is_made() -> None:
    numbers: list[int] = []
    together(SIZE, made, before=lambda call: numbers.append(call.number))
    for how in ("raises", "sends another length"):
        for number in range(max(numbers) + 1):
            begun = time.monotonic()
            ranks = run(SIZE, made, timeout=20.0, before=at(number, fail(how)))
            assert time.monotonic() - begun < 8
            assert all(rank.exception() is not None for rank in ranks), (how, number)


def test_a_late_rank_within_the_timeout(tmp_path: Path) -> None:
    found = moves_in("step", tmp_path)
    for number in (found[0], found[-1]):
        wait = at(number, lambda call: time.sleep(0.3))
        ranks = run(SIZE, program("step", [], tmp_path), before=wait)
        assert [rank.result() for rank in ranks] == ["fine"] * SIZE
