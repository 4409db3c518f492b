"""What ranks do in tests, over any transport; as a program, one rank that does it over MPI or gloo.

``python -m mpi4py rank_programs.py FOLDER NAME mpi``, or ``python rank_programs.py FOLDER NAME gloo RANK SIZE``: each
rank writes what became of it to a file in the folder.
"""

from __future__ import annotations

import doctest
import importlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep.mpi

TIMEOUT = 1.5  # seconds, of the ranks that fail
GUARD = 7  # bytes on both sides of what is received, which nobody may touch


def piece(source: int, dest: int, length: int) -> np.ndarray:
    return (np.arange(length) * 31 + source * 7 + dest).astype(np.uint8)


def room(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory with guards, and the part between them."""
    memory = np.full(length + 2 * GUARD, 0xAB, np.uint8)
    return memory, memory[GUARD : GUARD + length]


def untouched(memories: list[np.ndarray]) -> bool:
    return all((m[:GUARD] == 0xAB).all() and (m[len(m) - GUARD :] == 0xAB).all() for m in memories)


def exchange(comm: Any, lengths: np.ndarray) -> None:
    """All to all, with a matrix of lengths that all ranks know."""
    send = [piece(comm.rank, k, lengths[comm.rank, k]) for k in range(comm.size)]
    rooms = [room(lengths[k, comm.rank]) for k in range(comm.size)]
    comm.alltoallv(send, [place for _, place in rooms])
    assert untouched([memory for memory, _ in rooms])
    for k, (_, place) in enumerate(rooms):
        assert (place == piece(k, comm.rank, lengths[k, comm.rank])).all()


def pass_round(comm: Any, lengths: np.ndarray, in_place: bool) -> None:
    rooms = [room(length) for length in lengths]
    mine = piece(comm.rank, 0, lengths[comm.rank])
    if in_place:
        rooms[comm.rank][1][:] = mine
        mine = rooms[comm.rank][1]
    comm.allgatherv(mine, [place for _, place in rooms])
    assert untouched([memory for memory, _ in rooms])
    for k, (_, place) in enumerate(rooms):
        assert (place == piece(k, 0, lengths[k])).all()


def moves(comm: Any, rounds: int = 10) -> None:
    """Everything arrives where it belongs, whatever its length."""
    n = comm.size
    for length in (0, 1, 64, 120, 121, 5000):
        records = [piece(k, length % 251, length).tobytes() for k in range(n)]
        assert comm.allgather(records[comm.rank]) == records
    rng = np.random.default_rng(n)  # the same on all ranks
    for _ in range(rounds):
        lengths = rng.integers(0, 4000, (n, n)) * rng.integers(0, 2, (n, n))
        exchange(comm, lengths)
        pass_round(comm, lengths[0], in_place=bool(rng.integers(2)))
    exchange(comm, np.zeros((n, n), int))
    pass_round(comm, np.zeros(n, int), in_place=False)
    exchange(comm, np.full((n, n), 300_000))
    assert comm.split_by_host() == (comm.rank, n)


def kinds_of_buffers(comm: Any) -> None:
    """Bytes, views and arrays of any dtype and shape are memory."""
    n = comm.size
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    for mine in (wide, wide.tobytes(), bytearray(wide.tobytes()), memoryview(wide)):
        into: list[Any] = [np.zeros((3, 2), np.float32) for _ in range(n)]
        into[0] = bytearray(24)
        into[-1] = memoryview(bytearray(24))
        comm.allgatherv(mine, into)
        assert all(bytes(place) == wide.tobytes() for place in into)
    scalar = np.array(2.5)
    comm.alltoallv([scalar] * n, into := [np.zeros(()) for _ in range(n)])
    assert all(place == 2.5 for place in into)
    empty = [np.empty((3, 0)), b"", memoryview(b"")]
    comm.alltoallv([empty[k % 3] for k in range(n)], [bytearray() for k in range(n)])


def refusals(comm: Any) -> None:
    """What a rank alone can see is refused before anything is sent, and the next call is as any other."""
    n, fine = comm.size, [bytearray(4) for _ in range(comm.size)]
    bad = [
        (ValueError, f"send must be a list of {n} buffers", fine[1:], fine),
        (ValueError, f"receive must be a list of {n} buffers", fine, [*fine, fine[0]]),
        (ValueError, "send must be a list", b"x" * n, fine),
        (ValueError, r"receive\[0\] must be writable", fine, [b"1234", *fine[1:]]),
        (TypeError, r"send\[0\] must have contiguous memory", ["text", *fine[1:]], fine),
        (TypeError, r"send\[0\] .* an ndarray", [np.zeros((2, 4, 2))[:, ::2], *fine[1:]], fine),
        (TypeError, r"send\[0\] must", [memoryview(b"12345678")[::2], *fine[1:]], fine),
        (TypeError, r"send\[0\] must", [np.array([None]), *fine[1:]], fine),
        (ValueError, "the same length, got 4 and 5", fine, [bytearray(5) for _ in range(n)]),
    ]
    for kind, message, send, receive in bad:
        with pytest.raises(kind, match=message):
            comm.alltoallv(send, receive)
    with pytest.raises(ValueError, match="4 bytes of mine, got 3"):
        comm.allgatherv(b"1234", [bytearray(3) for _ in range(n)])
    with pytest.raises(TypeError, match="record must be bytes, got a str"):
        comm.allgather("text")
    with pytest.raises(ValueError, match="seconds must be a finite number greater than 0"):
        comm.here(0)
    assert comm.allgather(b"") == [b""] * n


def disagreements(comm: Any) -> None:
    """Ranks with other lengths find out together, with the same words; the next call is as any other."""
    if comm.size == 1:
        return
    n, odd = comm.size, comm.rank == comm.size - 1
    for length in (3, 500):
        text = f"got allgather of 7 bytes on rank 0, allgather of {length} bytes on rank {n - 1}"
        with pytest.raises(instep.mpi.CommunicationError, match=text):
            comm.allgather(b"x" * (length if odd else 7))
    text = f"on rank {n - 1} must have the 9 bytes that rank 0 sends, got 5"
    places = [np.zeros(5 if odd and k == 0 else 9, np.uint8) for k in range(n)]
    with pytest.raises(instep.mpi.CommunicationError, match=text):
        comm.alltoallv([b"x" * 9] * n, places)
    assert not any(place.any() for k, place in enumerate(places) if k != comm.rank)
    places = [np.zeros(5 if odd and k == 0 else 9, np.uint8) for k in range(n)]
    with pytest.raises(instep.mpi.CommunicationError, match=f"of rank {n - 1} are not those"):
        comm.allgatherv(b"x" * 9, places)
    assert not any(place.any() for place in places)
    calls = {
        "allgather of 0 bytes": lambda: comm.allgather(b""),
        "alltoallv": lambda: comm.alltoallv([b""] * n, [b""] * n),
        "allgatherv": lambda: comm.allgatherv(b"", [b""] * n),
    }
    for one, other in itertools.permutations(calls, 2):
        text = f"got {one} on rank 0, {other} on rank {n - 1}"
        with pytest.raises(instep.mpi.CommunicationError, match=text):
            calls[other if odd else one]()
    moves(comm, rounds=1)


def battery(comm: Any) -> None:
    """All of these, and nothing after `close`."""
    assert isinstance(comm, instep.mpi.Communicator)
    assert instep.mpi.communicator(comm) is comm
    for part in (moves, kinds_of_buffers, refusals, disagreements):
        part(comm)
    comm.close()
    comm.close()
    with pytest.raises(instep.mpi.CommunicationError, match="since it is closed"):
        comm.allgather(b"")


def as_found(work: Callable[[], object]) -> str:
    """What a call raises: its class, the ranks that are missing, its message."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__} {list(getattr(error, 'ranks', []))} {error}"
    return "nothing"


def _seen(folder: Path, rank: int, seconds: float = 20) -> None:
    """Wait until a rank has written."""
    end = time.monotonic() + seconds
    while not (folder / str(rank)).exists() and time.monotonic() < end:
        time.sleep(0.05)


def one_raises(comm: Any, folder: Path) -> str:
    if comm.rank == 1:
        raise ZeroDivisionError("on rank 1")
    return as_found(lambda: comm.allgather(b""))


def one_is_killed(comm: Any, folder: Path) -> str:
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return as_found(lambda: comm.allgather(b""))


def one_exits(comm: Any, folder: Path) -> str:
    if comm.rank == 1:
        sys.exit(0)
    found = as_found(lambda: comm.allgather(b""))
    end_together(comm, folder, found, [k for k in range(comm.size) if k != 1])
    return found


def one_is_late(comm: Any, folder: Path) -> str:
    """Another comes within the timeout of the rest, but its own is over only when these have named who is missing."""
    comm.allgather(b"")
    if comm.rank == 1:
        _seen(folder, 0)
    if comm.rank == 2:
        time.sleep(TIMEOUT - 0.2)
    found = as_found(lambda: comm.alltoallv([b"12"] * comm.size, [bytearray(2)] * comm.size))
    assert "since alltoallv ended with a MissingRanksError" in as_found(lambda: comm.allgather(b""))
    end_together(comm, folder, found, range(comm.size))
    return found


def one_is_interrupted(comm: Any, folder: Path) -> str:
    if comm.rank == 1:
        _seen(folder, 0)
        os._exit(1)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(KeyboardInterrupt):
        comm.allgather(b"")
    found = as_found(lambda: comm.allgather(b""))
    end_together(comm, folder, found, [0])
    return found


def end_together(comm: Any, folder: Path, found: str, ranks: Iterable[int]) -> None:
    """Abort once all of these ranks have written what they found."""
    (folder / str(comm.rank)).write_text(found, "utf-8")
    for rank in ranks:
        _seen(folder, rank)
    time.sleep(0.2)  # a file is there before its text is
    comm.abort("it is over")


def all_is_well(comm: Any, folder: Path) -> str:
    battery(comm)
    return "done"


def _two_at_once(make: Callable[[], Any]) -> None:
    """Communicators of the same ranks don't hear each other."""
    both = [make(), make()]
    for k in range(4):
        assert both[k % 2].allgather(b"%d" % k) == [b"%d" % k] * both[0].size
    for one in both:
        moves(one, rounds=2)
        one.close()


def _over_mpi(name: str) -> tuple[int, Callable[[], Any]]:
    """This rank's number, and what makes its communicator."""
    over_mpi: Any = importlib.import_module("instep.mpi.over_mpi")
    MPI = over_mpi.MPI

    class BeforeMPI4(MPI.Intracomm):
        def Alltoall_init(self, *_: Any) -> None:
            raise NotImplementedError

    for wrong in (MPI.COMM_NULL, MPI.BYTE):
        with pytest.raises(TypeError, match="intracommunicator of mpi4py, got a"):
            instep.mpi.communicator(wrong)
    if name == "all_is_well":
        assert doctest.testmod(over_mpi).failed == 0
        _two_at_once(lambda: instep.mpi.communicator(MPI.COMM_WORLD))
        over_mpi._LONGEST = 1000  # pieces in many messages, the last one shorter
        _two_at_once(lambda: instep.mpi.communicator(BeforeMPI4(MPI.COMM_WORLD), timeout=None))
    world = MPI.COMM_WORLD
    return world.rank, lambda: instep.mpi.communicator(world, timeout=TIMEOUT)


def _over_gloo(name: str, folder: Path, *numbers: str) -> tuple[int, Callable[[], Any]]:
    rank, size = map(int, numbers)
    dist: Any = importlib.import_module("torch.distributed")
    with pytest.raises(ValueError, match="there is no default process group"):
        importlib.import_module("instep.mpi.over_torch").TorchRanks()
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    if name == "all_is_well":
        _two_at_once(lambda: instep.mpi.communicator(dist.group.WORLD))
        half = dist.new_group(list(range(size // 2 + 1)), backend="gloo")
        if rank <= size // 2:
            moves(instep.mpi.communicator(half), rounds=2)
    return rank, lambda: instep.mpi.communicator(dist.group.WORLD, timeout=TIMEOUT)


def one_never_begins(make: Callable[[], Any], rank: int, folder: Path) -> None:
    if rank == 0:
        (folder / "0").write_text(as_found(make), "utf-8")
    _seen(folder, 0)
    time.sleep(0.2)
    os._exit(1)


def main(folder: Path, name: str, transport: str, *numbers: str) -> None:
    rank, make = _over_mpi(name) if transport == "mpi" else _over_gloo(name, folder, *numbers)
    if name == "one_never_begins":
        one_never_begins(make, rank, folder)
    comm = make()
    found = globals()[name](comm, folder)
    (folder / str(comm.rank)).write_text(found, "utf-8")
    if transport == "gloo":
        importlib.import_module("torch.distributed").destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
