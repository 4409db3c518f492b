"""Communicators over MPI and over gloo: what arrives, and what becomes of the other ranks if one fails."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rank_launchers import Ended, over_gloo, over_mpi

import instep.mpi

Launch = Callable[[str, int, Path], Ended]
BOTH = pytest.mark.parametrize("launch", [over_mpi, over_gloo], ids=["mpi", "gloo"])


@pytest.mark.parametrize(
    ("launch", "size"),
    [(over_mpi, 1), (over_mpi, 2), (over_mpi, 3), (over_mpi, 4), (over_gloo, 1), (over_gloo, 3)],
)
def test_bytes_arrive_where_they_belong(launch: Launch, size: int, tmp_path: Path) -> None:
    ended = launch("all_is_well", size, tmp_path)
    assert ended.status == 0, ended.output
    assert ended.found == dict.fromkeys(range(size), "done"), ended.output


@pytest.mark.parametrize("name", ["one_raises", "one_is_killed"])
def test_a_rank_that_fails_ends_the_job(name: str, tmp_path: Path) -> None:
    """By mpi4py and mpiexec, long before the timeout of a program is over."""
    ended = over_mpi(name, 3, tmp_path)
    assert ended.status != 0
    assert not ended.found, ended.output


@pytest.mark.parametrize("name", ["one_raises", "one_is_killed"])
def test_over_gloo_the_others_hear_of_a_rank_that_fails(name: str, tmp_path: Path) -> None:
    ended = over_gloo(name, 3, tmp_path)
    assert ended.status != 0
    assert set(ended.found) == {0, 2}, ended.output
    for text in ended.found.values():
        assert text.startswith("MissingRanksError [1] "), ended.output


@BOTH
def test_a_rank_that_exits_is_missed_by_name(launch: Launch, tmp_path: Path) -> None:
    ended = launch("one_exits", 3, tmp_path)
    assert ended.status != 0, ended.output
    assert set(ended.found) == {0, 2}, ended.output
    for rank, text in ended.found.items():
        assert text.startswith(f"MissingRanksError [1] rank {rank} of 3 waited "), ended.output
        assert "s in allgather: no answer from rank 1, ended, stuck or still computing" in text
    assert "ends the job: it is over" in ended.output


@BOTH
def test_a_rank_that_never_makes_its_communicator(launch: Launch, tmp_path: Path) -> None:
    ended = launch("one_never_begins", 2, tmp_path)
    text = "MissingRanksError [] not all ranks have come within the timeout of "
    assert list(ended.found) == [0], ended.output
    assert ended.found[0].startswith(text), ended.output


@BOTH
def test_a_late_rank_is_missed_and_told_so(launch: Launch, tmp_path: Path) -> None:
    ended = launch("one_is_late", 3, tmp_path)
    assert ended.status != 0, ended.output
    for rank in (0, 2):
        assert ended.found[rank].startswith("MissingRanksError [1] "), ended.output
    assert "MissingRanksError [] rank 1 of 3 waited" in ended.found[1]
    assert "all ranks answered, so one of them came later than the timeout" in ended.found[1]


@BOTH
def test_after_an_interrupt_no_call_follows(launch: Launch, tmp_path: Path) -> None:
    ended = launch("one_is_interrupted", 2, tmp_path)
    assert "since allgather ended with a KeyboardInterrupt" in ended.found[0], ended.output


def test_other_things_are_no_communicators() -> None:
    for thing in (None, 3, "world", object()):
        with pytest.raises(
            TypeError, match="comm must be an intracommunicator of mpi4py, a process"
        ):
            instep.mpi.communicator(thing)


def test_a_tensor_is_no_process_group() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(TypeError, match="group must be a process group, got a Tensor"):
        instep.mpi.communicator(torch.zeros(2))


def test_a_backend_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, library in (("over_mpi", "mpi4py.MPI"), ("over_torch", "torch")):
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.delitem(sys.modules, f"instep.mpi.{module}", raising=False)
        with pytest.raises(ImportError, match=r"instep.mpi needs .*; pip install 'instep\["):
            importlib.import_module(f"instep.mpi.{module}")
