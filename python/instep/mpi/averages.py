"""The averages of all ranks in the place of the parameters."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from instep.mpi.moving import gather
from instep.mpi.status import Kind

__all__ = ["ShownAverages"]


class ShownAverages:
    """What a rank has while its parameters hold averages: the weights, to be put back."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._blocks: list[Any] = []  # of the stretches
        self._weights: list[np.ndarray[Any, Any]] = []

    def show(self, optimizer: Any) -> None:
        """Put the averages in the place of the parameters, on all ranks."""
        job, error = self._job, None
        weights: list[np.ndarray[Any, Any]] = []
        with job.turn("averaged"):
            job.require_usable()
            try:
                for plan in job.plans:
                    plan.refuse_averages("averaged")
                optimizer._require_averages()
                weights = [flat.copy() for flat in job.flats]
            except BaseException as caught:
                error = caught
            job.meet(Kind.AVERAGED, error)
            with job.moving("averaged"), ExitStack() as undone:
                self._weights = weights
                undone.callback(self.hide)
                for plan in job.plans:
                    block = plan.inner.averaged()
                    block.__enter__()
                    self._blocks.append(block)
                if job.shared:
                    gather(job.comm, job.routes.everything(), job.flats, job.routes.staging)
                job.refresh_copies()
                undone.pop_all()

    def hide(self) -> None:
        """Put the weights back, on this rank."""
        if not self._blocks:
            return
        for block in self._blocks:
            block.__exit__(None, None, None)
        self._blocks.clear()
        for flat, before in zip(self._job.flats, self._weights, strict=True):
            np.copyto(flat, before)
        self._weights = []
        self._job.refresh_copies()
