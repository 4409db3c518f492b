"""What ranks may differ in at a step: the last digits of its numbers, and which gradients they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from instep.mpi import numbers, status
from instep.mpi.numbers import StepNumbers
from instep.mpi.protocol import Communicator
from instep.mpi.ranked import RankedPlan

__all__ = ["Ready", "agree"]

# How far a scalar may be off that another C library has computed, by the arithmetic's type.
_TOLERANCES = ((np.float64, 1e-12), (np.float32, 1e-6))

Array = np.ndarray[Any, Any]


class Ready(NamedTuple):
    """A step that a rank could take."""

    gradients: list[Array | None]  # by parameter
    codes: bytes  # their dtypes
    numbers: StepNumbers
    settings: bytes
    prepared: bytes
    any_given: bool


class StepOfRanks(Protocol):
    """What is asked of a job."""

    comm: Communicator
    plans: list[RankedPlan]
    members: Sequence[Any]
    ranks: Any

    def prepared(
        self, now: StepNumbers, gradients: list[Array | None], codes: bytes, present: bytes
    ) -> Ready:
        """Prepare the step for these numbers; `present` are the gradients of all ranks."""


def agree(job: StepOfRanks, ready: Ready, state: status.Round) -> tuple[Ready, tuple[bytes, ...]]:
    """Use rank 0's numbers where they are nearly the same, and the gradients of all ranks.

    Raises ValueError on all ranks if they have other numbers.
    """
    now, codes = ready.numbers, (ready.codes,) * job.comm.size
    if not state.settings:
        encoded = status.gather_any(job.comm, ready.settings)
        told = numbers.difference(encoded, numbers.names_of(job.plans, job.members))
        if told is not None:
            text = f"all ranks must have the same numbers, got others: {told}; set them on all"
            raise status.agreed(ValueError(text))
        now = now.replaced(encoded[0])
    if not state.presence:
        codes = tuple(status.gather_any(job.comm, ready.codes))
    present = bytes(map(max, *codes)) if len(codes) > 1 else codes[0]
    ready = job.prepared(now, ready.gradients, ready.codes, present)
    _agree_on_prepared(job, ready)
    return ready, codes


def _agree_on_prepared(job: StepOfRanks, ready: Ready) -> None:
    digests = job.comm.allgather(status.digest(ready.prepared))
    if len(set(digests)) == 1:
        return
    prepared = status.gather_any(job.comm, ready.prepared)
    if not all(_nearly(each, prepared[0]) for each in prepared):
        text = (
            "all ranks must compute the same scalars of the step, got others; load the same "
            "checkpoint on all"
        )
        raise status.agreed(ValueError(text))
    job.ranks.set_prepared(prepared[0])


def _nearly(a: bytes, b: bytes) -> bool:
    """Tell whether two ranks have computed nearly the same scalars, in either arithmetic."""
    if len(a) != len(b):
        return False
    # Which words are one number and which are two is the rule's business.
    near = [
        numbers.alike(np.frombuffer(a, kind), np.frombuffer(b, kind), tolerance)
        for kind, tolerance in _TOLERANCES
    ]
    return bool(np.all(near[0] | near[1].reshape(-1, 2).all(axis=1)))
