"""Ranks that are threads: the same properties, and faults on purpose."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import rank_programs

from instep.mpi import CommunicationError, MissingRanksError
from instep.mpi.over_threads import Call, ThreadRanks, run


def errors(ranks: list[Future[Any]]) -> list[str]:
    return [type(rank.exception()).__name__ for rank in ranks]


def missing(ranks: list[Future[Any]]) -> list[Any]:
    return [getattr(rank.exception(), "ranks", None) for rank in ranks]


def gather(comm: ThreadRanks) -> list[bytes]:
    return comm.allgather(bytes([comm.rank]))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("timeout", [20.0, None])
def test_bytes_arrive_where_they_belong(size: int, timeout: float | None) -> None:
    for rank in run(size, rank_programs.battery, timeout=timeout):
        rank.result()


def test_a_rank_that_raises_or_leaves_is_missed_at_once() -> None:
    def each(comm: ThreadRanks) -> Any:
        if comm.rank == 1:
            return "gone"
        if comm.rank == 3:
            raise ZeroDivisionError
        time.sleep(0.1)
        return gather(comm)

    begun = time.monotonic()
    ranks = run(4, each, timeout=30)
    assert time.monotonic() - begun < 10
    assert ranks[1].result() == "gone"
    assert missing(ranks) == [(1, 3), None, (1, 3), None]
    assert "no answer from ranks 1, 3" in str(ranks[0].exception())


def test_a_rank_may_go_once_the_others_need_it_no_more() -> None:
    ranks = run(5, gather)
    assert all(rank.result() == [b"\0", b"\1", b"\2", b"\3", b"\4"] for rank in ranks)


def test_late_ranks_are_missed_and_told_so() -> None:
    def each(comm: ThreadRanks) -> Any:
        gather(comm)
        if comm.rank in (0, 2):
            time.sleep(1.0)
        return gather(comm)

    ranks = run(4, each, timeout=0.2)
    assert missing(ranks)[1] == missing(ranks)[3] == (0, 2)
    assert missing(ranks)[0] in ((), (2,))
    assert missing(ranks)[2] in ((), (0,))
    # Rank 3 may have given up a little earlier, and told rank 1 so.
    assert re.search(r"waited 0\.[12]\d* s", str(ranks[1].exception()))


def test_a_lie_is_found_out_by_all() -> None:
    def lie(call: Call) -> None:
        if (call.rank, call.number) == (1, 2):
            call.send[0] = b"four"

    def each(comm: ThreadRanks) -> Any:
        gather(comm)
        gather(comm)
        with pytest.raises(
            CommunicationError, match=r"receive\[1\] on rank 0 must have the 4 bytes"
        ):
            comm.alltoallv([b"five!"] * comm.size, [bytearray(5)] * comm.size)
        return gather(comm)

    for rank in run(3, each, before=lie):
        assert rank.result() == [b"\0", b"\1", b"\2"]


def test_calls_are_shown_before_they_are_made() -> None:
    seen: list[tuple[Any, ...]] = []

    def each(comm: ThreadRanks) -> None:
        comm.allgather(b"a")
        comm.alltoallv([b"b", b"c"], [bytearray(1), bytearray(1)])
        comm.allgatherv(b"", [b"", b""])
        comm.split_by_host()

    def note(call: Call) -> None:
        if call.rank == 0:
            seen.append((call.number, call.name, list(call.send)))

    for rank in run(2, each, before=note):
        rank.result()
    assert seen[:3] == [
        (0, "allgather", [b"a"]),
        (1, "alltoallv", [b"b", b"c"]),
        (2, "allgatherv", [b""]),
    ]


def test_one_fault_in_a_call_ends_that_rank_alone() -> None:
    def fail(call: Call) -> None:
        if (call.rank, call.name) == (2, "allgatherv"):
            raise OSError("no route")

    ranks = run(3, rank_programs.moves, before=fail, timeout=5)
    assert errors(ranks) == ["MissingRanksError", "MissingRanksError", "OSError"]
    assert missing(ranks)[:2] == [(2,), (2,)]


def test_after_an_error_every_call_is_refused() -> None:
    def each(comm: ThreadRanks) -> None:
        if comm.rank == 1:
            return
        with pytest.raises(MissingRanksError):
            gather(comm)
        text = (
            "rank 0 can't call alltoallv any more, since allgather ended with a MissingRanksError"
        )
        with pytest.raises(CommunicationError, match=text):
            comm.alltoallv([b"", b""], [b"", b""])
        assert comm.here(0.05) == [0]
        comm.close()

    for rank in run(2, each):
        rank.result()


def test_whoever_gives_up_takes_the_waiting_along() -> None:
    def each(comm: ThreadRanks) -> Any:
        if comm.rank == 0:
            time.sleep(0.2)
            return comm.here(1.0)
        if comm.rank == 1:
            time.sleep(3.0)
            return None
        return gather(comm)

    ranks = run(4, each, timeout=30)
    assert ranks[0].result() == [0, 2, 3]
    assert missing(ranks)[2:] == [(1,), (1,)]


def test_abort_ends_all() -> None:
    def each(comm: ThreadRanks) -> Any:
        if comm.rank == 1:
            comm.abort("enough")
        return gather(comm)

    ranks = run(3, each, timeout=30)
    assert {str(rank.exception()) for rank in ranks} == {"rank 1 ended the job: enough"}
    assert errors(ranks) == ["CommunicationError"] * 3


def test_what_was_sent_may_change_after_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    copy_at_once = np.copyto

    def copyto(*both: Any) -> None:
        time.sleep(0.1 * (threading.current_thread().name == "rank 1"))
        copy_at_once(*both)

    def each(comm: ThreadRanks) -> bytes:
        send, into = [bytearray(b"new") for _ in range(3)], [bytearray(3) for _ in range(3)]
        comm.alltoallv(send, into)
        for piece in send:
            piece[:] = b"old"
        return b"".join(into)

    monkeypatch.setattr(np, "copyto", copyto)
    assert [rank.result() for rank in run(3, each)] == [b"new" * 3] * 3


def test_hosts_have_their_ranks() -> None:
    ranks = run(5, lambda comm: comm.split_by_host(), hosts=["a", "b", "a", "a", "b"])
    assert [rank.result() for rank in ranks] == [(0, 3), (0, 2), (1, 3), (2, 3), (1, 2)]


def test_a_rank_that_never_ends_is_given_up() -> None:
    def each(comm: ThreadRanks) -> Any:
        if comm.rank == 1:
            time.sleep(5)
        return comm.rank

    ranks = run(2, each, limit=0.3)
    assert ranks[0].result() == 0
    with pytest.raises(TimeoutError, match=r"rank 1 goes on after 0\.3 s"):
        ranks[1].result()


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "soon"])
def test_a_timeout_is_a_time(timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="timeout must be a finite number greater"):
        run(2, gather, timeout=timeout)


def test_errors_are_what_callers_catch() -> None:
    error = MissingRanksError("text", {2, 1})
    assert isinstance(error, (TimeoutError, ConnectionError, OSError))
    assert isinstance(error, TimeoutError)
    assert str(error) == "text"
    assert error.ranks == (1, 2)
    assert copy.copy(error).ranks == pickle.loads(pickle.dumps(error)).ranks == (1, 2)
