"""Ranks that are processes, over MPI and over gloo: the bits of one process, and an end of the job in any case."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import distributed_programs
import pytest
from distributed_programs import MIDDLE, TIMEOUT, in_one_process
from rank_launchers import Ended, over_gloo, over_mpi

PROGRAM = distributed_programs.__file__

Launch = Callable[[str, int, Path], Ended]


def mpi(name: str, size: int, folder: Path) -> Ended:
    return over_mpi(name, size, folder, PROGRAM)


def mpi_without_abort(name: str, size: int, folder: Path) -> Ended:
    """The program is started without ``-m mpi4py``."""
    return over_mpi(name, size, folder, PROGRAM, aborts=False)


def gloo(name: str, size: int, folder: Path) -> Ended:
    return over_gloo(name, size, folder, PROGRAM)


def all_of(*launches: Launch) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("launch", launches, ids=lambda launch: launch.__name__)


@pytest.mark.parametrize(
    ("launch", "name", "size"),
    [
        (mpi_without_abort, "trains_and_finalizes", 2),
        (mpi_without_abort, "trains", 3),
        (mpi, "trains", 4),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_bits_of_one_process(launch: Launch, name: str, size: int, tmp_path: Path) -> None:
    """And the job ends well, though nobody calls close(), whether MPI or the interpreter ends first."""
    ended = launch(name, size, tmp_path)
    assert ended.status == 0, ended.output
    assert set(ended.found) == set(range(size)), ended.output
    assert ended.found[0] == in_one_process(size), ended.output
    assert len({ended.found[rank] for rank in range(1, size)}) == 1, ended.output


@all_of(mpi_without_abort, gloo)
def test_after_an_error_of_one_rank_all_go_on(launch: Launch, tmp_path: Path) -> None:
    """To the bits of one process."""
    ended = launch("trains_after_refusals", 3, tmp_path)
    assert ended.status == 0, ended.output
    for rank, text in ended.found.items():
        shapes, schedule, lr, last = text.splitlines()
        assert shapes.startswith(
            "ValueError all ranks must have the same optimizer (0.groups.0.par"
        )
        assert schedule == (
            "ZeroDivisionError in a schedule"
            if rank == 1
            else f"ZeroDivisionError rank 1: in a schedule; raised by the schedule of lr at step {MIDDLE}"
        )
        assert "got others: rank 1: lr is 0.5, on the others 0.02" in lr
        assert (last == in_one_process(3)) == (rank == 0)
    assert len(ended.found) == 3, ended.output


def test_a_rank_that_is_killed_ends_the_job(tmp_path: Path) -> None:
    ended = mpi_without_abort("one_is_killed", 3, tmp_path)
    assert ended.status != 0
    assert "went on" not in ended.found.values(), ended.output


@all_of(mpi, mpi_without_abort, gloo)
def test_a_rank_that_exits_has_left(launch: Launch, tmp_path: Path) -> None:
    """By sys.exit(0), as if all were well."""
    ended = launch("one_exits", 3, tmp_path)
    assert ended.status != 0, ended.output
    texts = [ended.found[rank] for rank in (0, 2) if rank in ended.found]
    for text in texts:
        assert text.startswith(f"CommunicationError rank 1 has left after step {MIDDLE}, and")
    assert len(texts) == 2 or (texts and launch is mpi), ended.output  # mpi4py may end a rank first


def test_an_error_between_two_steps(tmp_path: Path) -> None:
    """Ends that rank, and the others hear that it has left."""
    ended = mpi_without_abort("one_raises", 3, tmp_path)
    assert ended.status != 0, ended.output
    assert ended.found.pop(1) == "ZeroDivisionError between two steps", ended.output
    assert len(ended.found) == 2, ended.output
    for text in ended.found.values():
        assert text.startswith(f"CommunicationError rank 1 has left after step {MIDDLE}, and")


def test_an_error_in_a_schedule_ends_the_job(tmp_path: Path) -> None:
    ended = mpi("a_schedule_raises", 3, tmp_path)
    assert ended.status != 0, ended.output
    assert ended.found, ended.output
    for text in ended.found.values():
        assert text.startswith("ZeroDivisionError "), ended.output


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's account")
def test_memory_of_a_rank(tmp_path: Path) -> None:
    """Of Adam with P parameters in float32 on N ranks: 8 P + 12 P / N bytes and at most two buckets."""
    size, parameters = 2, sum(math.prod(shape) for shape in distributed_programs.LARGE.values())
    ended = mpi("fills_memory", size, tmp_path)
    assert ended.status == 0, ended.output
    there, owned = 8 * parameters, 12 * parameters / size
    bucket = min(64 << 20, 4 * parameters / size)
    for growth in map(int, ended.found.values()):
        assert there + owned < there + growth < 1.05 * (there + owned + 2 * bucket)


def test_a_late_rank_ends_the_job(tmp_path: Path) -> None:
    """With an error, even if the program goes on and ends: some of the ranks' calls are on their way for ever."""
    begun = time.monotonic()
    ended = mpi_without_abort("one_is_late", 3, tmp_path)
    assert ended.status != 0, ended.output
    assert time.monotonic() - begun < 20 * TIMEOUT
    texts = [ended.found[rank] for rank in (0, 2) if rank in ended.found]
    assert texts, ended.output
    for text in texts:
        assert text.startswith("MissingRanksError rank "), ended.output
        assert "no answer from rank 1" in text, ended.output
