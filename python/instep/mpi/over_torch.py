"""Ranks of ``torch.distributed`` over gloo, as torchrun and Ray Train set them up."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np

from instep._support.hosts import host
from instep._support.wording import kind
from instep.mpi.backend import Backend, Bytes
from instep.mpi.protocol import CommunicationError, MissingRanksError

__all__ = ["TorchRanks"]

torch: Any = host("instep.mpi", "torch", "PyTorch", "torch")
dist: Any = host("instep.mpi", "torch.distributed", "PyTorch", "torch")

_TAG = 0x1E57E9  # of messages from rank to rank, which a program may send, too
# A wait in one piece couldn't be interrupted, nor hear that others give up.
_PIECE = 0.25
_FOREVER = timedelta(days=365)

# Gloo ends the process with SIGABRT, now and then, if a process group is there until the interpreter ends. So errors,
# whose frames refer to communicators, must not keep them.
atexit.register(gc.collect)


class TorchRanks(Backend):
    """The ranks of a process group of ``torch.distributed`` with the backend gloo.

    All ranks must make it together. Its calls are the group's: the ranks must make the group's other
    calls in the same order among them. Pieces go straight from and to the caller's memory.

    Parameters
    ----------
    group
        The process group; None: the default group.
    timeout
        Seconds that a call waits for the other ranks; None: as long as the group's own timeout.

    Raises
    ------
    TypeError
        If `group` is not a process group.
    ValueError
        If there is no default group, this process is not of the group, the group moves tensors of the CPU
        by another backend than gloo, or `timeout` is not above 0.
    MissingRanksError
        If not all ranks make it.

    Examples
    --------
    >>> import torch.distributed
    >>> from instep.mpi.over_torch import TorchRanks
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> ranks = TorchRanks()
    >>> ranks.allgather(b"status")
    [b'status']
    >>> ranks.close()
    >>> torch.distributed.destroy_process_group()
    """

    _errors = (RuntimeError,)  # gloo's and c10d's, and those of the store

    def __init__(self, group: Any = None, *, timeout: float | None = 600.0) -> None:
        if group is None:
            if not dist.is_initialized():
                raise ValueError(
                    "there is no default process group; call torch.distributed.init_process_group"
                )
            group = dist.group.WORLD
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(f"group must be a process group, got {kind(group)}")
        backends = dict(entry.split(":") for entry in dist.get_backend_config(group).split(","))
        if backends.get("cpu") != "gloo":
            raise ValueError(
                f"group must have the backend gloo for the CPU, got {dist.get_backend_config(group)!r}; "
                "torch.distributed.new_group(backend='gloo') makes another group of the same ranks"
            )
        super().__init__(group.rank(), group.size(), timeout)
        self._group = group
        self._can_ask = False
        name = self.allgather(secrets.token_bytes(8))[0].hex()
        self._store: Any = dist.PrefixStore(f"instep/{name}", group.get_group_store())
        self._can_ask = True

    @property
    def is_over(self) -> bool:
        """Whether the process groups have ended, so that no rank can be told anything."""
        return not dist.is_initialized()

    def abort(self, reason: str) -> NoReturn:
        """End this process, without any cleaning up; whatever started it ends the others then."""
        print(f"instep.mpi: rank {self.rank} ends the job: {reason}", file=sys.stderr, flush=True)
        os._exit(1)

    def close(self) -> None:
        """Let go of the process group; a second call does nothing."""
        super().close()
        self._group = self._store = None

    def _swap(self, frames: bytes) -> bytes:
        receive = np.empty(len(frames), np.uint8)
        both = _tensor(receive), _tensor(np.frombuffer(frames, np.uint8))
        work = dist.all_to_all_single(*both, group=self._group, async_op=True)
        self._pending += frames, receive, work
        while not work.is_completed():
            left = self._left()
            with contextlib.suppress(RuntimeError):  # it has timed out, or failed and says so below
                work.wait(timedelta(seconds=min(_PIECE, left)))
            if not work.is_completed() and (left <= _PIECE or self._asked()):
                raise self._gave_up()
        work.wait()
        return receive.tobytes()

    def _move(self, send: Sequence[Bytes], receive: Sequence[Bytes]) -> None:
        for step in range(1, self.size):
            source, dest = (self.rank - step) % self.size, (self.rank + step) % self.size
            for begin, piece, end in (
                (dist.irecv, receive[source], {"group_src": source}),
                (dist.isend, send[dest], {"group_dst": dest}),
            ):
                if piece.size:
                    work = begin(_tensor(piece), group=self._group, tag=_TAG, **end)
                    self._pending += piece, work
        for work in self._pending[1::2]:
            left = self._left()
            work.wait(_FOREVER if left == float("inf") else timedelta(seconds=max(left, 1e-3)))

    def _failure(self, error: Exception) -> CommunicationError:
        """Say who has gone; gloo says only that a connection was closed, or that a wait was too long."""
        if not self._can_ask:
            return super()._failure(error)
        found = self._gave_up()
        return found if found.ranks else super()._failure(error)

    def _gave_up(self) -> MissingRanksError:
        try:
            return super()._gave_up()
        except self._errors:
            return MissingRanksError(
                f"rank {self.rank} of {self.size} waited in vain in {self._call}, and can't ask for whom: "
                "the group's store is gone, perhaps with the rank that had it"
            )

    def _asked(self) -> bool:
        """Whether another rank has given up."""
        return bool(self._can_ask and self._store.check(["gave up"]))

    def _answers(self, seconds: float) -> set[int]:
        end, answered = time.monotonic() + seconds, {self.rank}
        self._store.set(f"{self.rank}", "here")
        self._store.set("gave up", "")
        while len(answered) < self.size and time.monotonic() < end:
            time.sleep(0.01)
            answered |= {k for k in range(self.size) if self._store.check([f"{k}"])}
        return answered


def _tensor(piece: Bytes) -> Any:
    """Return a tensor over an array's memory, read-only or not: gloo only reads what it sends."""
    memory = (ctypes.c_uint8 * piece.size).from_address(piece.ctypes.data)
    return torch.frombuffer(memory, dtype=torch.uint8)
