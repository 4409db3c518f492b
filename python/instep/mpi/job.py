"""The step that several ranks take together: checked by all, then moved, summed, taken and moved back."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, NoReturn

import numpy as np

from instep import _core
from instep.mpi import leaving, status
from instep.mpi.agreement import Ready, agree
from instep.mpi.moving import all_at_once, gather, to_owners
from instep.mpi.numbers import Settled, StepNumbers
from instep.mpi.protocol import CommunicationError, Communicator
from instep.mpi.ranked import RankedCombined, RankedPlan, Shown
from instep.mpi.routes import Routes, code_of
from instep.mpi.status import Kind, digest
from instep.optimizers import combined_state
from instep.optimizers.containers import GRADIENTS
from instep.optimizers.current import Current
from instep.optimizers.hyperparameters import as_float
from instep.optimizers.settings import GRAD_SCALE, NONFINITE
from instep.optimizers.state_storage import StateFolder

__all__ = ["Job"]

_RAISE = NONFINITE.index("raise")
_ANSWERS = 0.05  # seconds that others have to hear that this rank gives up

Array = np.ndarray[Any, Any]


class Job:
    """The optimizers of a Distributed, as one rank has them."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self.plans: list[RankedPlan] = []
        self.combined: RankedCombined | None = None
        self.members: Sequence[Any] = ()
        self.seat = leaving.Seat(comm)
        self.number = 0  # the same on all ranks, of several jobs with one communicator
        self.any_gradient = False  # on any rank, in the last step
        self._fault = ""
        self._holder: int | None = None  # the thread whose call it is
        self._lock = threading.Lock()
        self._settled = Settled()
        self._norm: float | None = None
        self.shown: Shown  # set with the job

    # ---- making --------------------------------------------------------------------------------

    def make_plan(
        self, averaged: bool, current: Current, storage: StateFolder | None, **formats: Any
    ) -> RankedPlan:
        """Make what an optimizer has in place of the core's plan."""
        return RankedPlan(self, averaged, current, storage, formats)

    def folder(self, path: Any) -> Any:
        """Return this rank's own folder in one that all ranks have."""
        if not isinstance(path, (str, os.PathLike)):
            return path  # which is refused
        return os.path.join(os.fsdecode(path), f"rank-{self.comm.rank}")

    def make_combined(
        self, optimizers: Sequence[Any], plans: Sequence[Any], current: Current
    ) -> RankedCombined:
        """Make what a Combined has in place of the core's."""
        return RankedCombined(self, optimizers, plans, current)

    def adopt(
        self, members: Sequence[Any], plans: list[RankedPlan], combined: RankedCombined | None
    ) -> None:
        """Take over the optimizers that were made."""
        self.members, self.plans, self.combined = members, plans, combined
        self.front = self.plans[0].front if combined is None else combined.front
        self.arrays = [array for plan in self.plans for array in plan.arrays]
        self.flats = [array.reshape(-1) for array in self.arrays]
        self._places = [(k, i) for k, plan in enumerate(self.plans) for i in range(len(plan.names))]

    def bind(self, routes: Routes, shared: bool) -> None:
        """Make the states of this rank's stretches."""
        self.routes, self.shared = routes, shared
        for plan, own in zip(self.plans, self._by_plan(routes.own), strict=True):
            plan.bind(own)
        self.ranks = _core.make_ranks([plan.inner for plan in self.plans])

    def _by_plan(self, of_parameters: Any) -> list[Any]:
        """Cut a sequence with an entry for each parameter into one for each optimizer."""
        ends = itertools.accumulate(len(plan.names) for plan in self.plans)
        return [
            of_parameters[end - len(plan.names) : end]
            for plan, end in zip(self.plans, ends, strict=True)
        ]

    # ---- calls ---------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed steps."""
        if self.combined is not None:
            return self.combined.step_count
        return self.plans[0].step_count if self.plans else 0

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Let one thread at a time make a call; raise RuntimeError inside another call of the same thread."""
        if self._holder == threading.get_ident():
            raise RuntimeError(
                f"{what} must come after the call that is under way, got a call inside it"
            )
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None

    def require_usable(self) -> None:
        """Raise CommunicationError after a fault in the middle of a step, or after close()."""
        if self._fault:
            raise CommunicationError(self._fault)

    @contextmanager
    def moving(self, what: str) -> Iterator[None]:
        """Mark the job as broken if an error comes while ranks move data; tell the other ranks."""
        try:
            yield
        except BaseException as error:
            if status.is_agreed(error):
                if status.tells_of_leaving(error):
                    self._fault = self._fault or str(error)
                    self.seat.is_deserted = True
                raise
            if self.seat.broken:  # which an inner block has found
                raise
            self._fault = (
                f"rank {self.comm.rank} can't go on after an error in {what}: parameters and states may "
                "have changed on some ranks only; make a new Distributed, and load the last checkpoint"
            )
            self.seat.broken = f"{type(error).__name__} in {what}: {error}"
            if not isinstance(error, CommunicationError):
                self._give_up()
            raise

    def meet(
        self,
        kind: Kind,
        error: BaseException | None = None,
        digests: tuple[bytes, bytes, bytes] = status.NO_DIGESTS,
    ) -> status.Round:
        """Make the round with which a call begins; see `status.meet`."""
        with self.moving(kind.name.lower()):
            return status.meet(self.comm, kind, self.step_count, error, digests, self.number)

    def _give_up(self) -> None:
        with suppress(CommunicationError):  # they have heard it, or are gone
            self.comm.here(_ANSWERS)

    def step(self, owner: Any, grads: Any, grad_scale: Any) -> None:
        """Take one step, or raise on all ranks."""
        with self.turn("step"), ExitStack() as held:
            self.require_usable()
            ready, error = None, None
            try:
                for plan in self.plans:
                    held.enter_context(plan.inner)
                ready = self._ready(owner, grads, grad_scale)
                digests = (digest(ready.settings), digest(ready.prepared), digest(ready.codes))
            except BaseException as caught:
                error, digests = caught, status.NO_DIGESTS
            state = self.meet(Kind.STEP, error, digests)
            assert ready is not None
            with self.moving("step"):
                codes = (ready.codes,) * self.comm.size
                if not all(state):
                    ready, codes = agree(self, ready, state)
                bad = self._take(ready, codes)
                refused = bad is not None and ready.numbers.limits[2] == _RAISE
                if not refused:
                    self._count(bad is None, ready)
            if bad is not None and refused:
                self.ranks.refuse_not_finite(*bad)

    def _ready(self, owner: Any, grads: Any, grad_scale: Any) -> Ready:
        """Check everything that this rank can check, and prepare the step."""
        scale = 1.0 if grad_scale is None else as_float(grad_scale, GRAD_SCALE, "grad_scale")
        for plan in self.plans:
            plan.refuse_averages("step")
            plan.require_whole()
        numbers_now = self._numbers(owner, scale)
        gradients = self._gradients(grads)
        codes = bytes(map(code_of, gradients))
        return self.prepared(numbers_now, gradients, codes, codes)

    def prepared(
        self,
        now: StepNumbers,
        gradients: list[Array | None],
        codes: bytes,
        present: bytes,
    ) -> Ready:
        """Prepare the step for these numbers; `present` are the gradients of all ranks."""
        each = self._by_plan(present)
        prepared = self.ranks.prepare(now.members, now.limits, each, now.scale)
        return Ready(gradients, codes, now, now.encoded(), prepared, any(present))

    def _numbers(self, owner: Any, scale: float) -> StepNumbers:
        members = []
        for k, (member, plan) in enumerate(zip(self.members, self.plans, strict=True)):
            with nullcontext() if self.combined is None else combined_state.about(k):
                members.append(self._settled.of(k, member, plan.current, plan.step_count))
        if self.combined is None:
            return StepNumbers(members, members[0][1], scale)
        _, limits = self._settled.of(-1, owner, self.combined.current, self.combined.step_count)
        owner._require_no_limits()
        return StepNumbers(members, limits, scale)

    def _gradients(self, grads: Any) -> list[Array | None]:
        """Return what this rank adds to the step, by parameter, in logical order without gaps."""
        sums = self._pending()
        if grads is GRADIENTS:
            if not sums:
                raise ValueError(
                    "step() must have gradients, given or accumulated, got none; pass them, or call "
                    "accumulate first (step(None) if this rank has no batch)"
                )
            grads = None
        given = self.front.checked(grads)
        found = [None if g is None else np.ascontiguousarray(g).reshape(-1) for g in given]
        for k, pending in sums.items():
            own, total = found[k], pending.reshape(-1)
            if own is not None:
                total = _core.in_default_environment(_added, total, own)
            found[k] = total
        return found

    def _pending(self) -> dict[int, Array]:
        found, first = {}, 0
        for plan in self.plans:
            accumulated = plan.accumulated
            if accumulated:
                for k, name in enumerate(plan.names, start=first):
                    if name in accumulated:
                        found[k] = accumulated[name]
            first += len(plan.names)
        return found

    # ---- the step itself -----------------------------------------------------------------------

    def _take(self, ready: Ready, codes: tuple[bytes, ...]) -> tuple[int, int] | None:
        ways = self.routes.of(codes)
        if self.shared:
            for moved in to_owners(
                self.comm, ways.to_owners, ready.gradients, ways.tables, self.routes.staging
            ):
                self._sum_up(moved)
        else:
            self._sum_up(
                all_at_once(
                    self.comm, ways.all_runs, ready.gradients, ways.tables, self.routes.staging
                )
            )
        bad = self.ranks.take(self._exchange if self.shared else None)
        if bad is None and self.shared:
            gather(self.comm, ways.back, self.flats, self.routes.staging)
        return bad

    def _sum_up(self, moved: Sequence[tuple[Any, Sequence[Array]]]) -> None:
        starts = self.routes.starts
        self.ranks.sum_up(
            [
                (
                    *self._places[run.parameter],
                    run.begin - starts[run.parameter],
                    run.end - run.begin,
                    gradients,
                )
                for run, gradients in moved
            ]
        )

    def _exchange(self, what: str, included: bytes, width: int, values: Array) -> Array:
        """Ask the other ranks for their part of sums."""
        if what == "gather":
            return np.asarray(self.routes.in_order(included, width, values))
        found = [np.frombuffer(each) for each in self.comm.allgather(values.tobytes())]
        if what == "largest":
            return np.array([max(each[0] for each in found)])
        there = [each for each in found if each[1] >= 0]
        return min(there, key=tuple) if there else found[0]

    def _count(self, taken: bool, ready: Ready) -> None:
        self.any_gradient = ready.any_given
        self._norm = self.ranks.grad_norm
        self.front.discard_accumulated()
        if taken:
            if self.combined is not None:
                self.combined.step_count += 1
            self.seat.step = self.step_count
            self.refresh_copies()
        elif self.combined is None:
            self.ranks.count_skipped()
        else:
            self.combined.skipped_steps += 1

    def grad_norm_of(self, plan: object) -> float | None:
        """Return the norm of the last step, or None to one optimizer of several."""
        top = self.combined or self.plans[0]
        return self._norm if plan is top else None

    def refresh_copies(self) -> None:
        """Round the parameters into their copies, if there are any."""
        if any(plan.has_copies for plan in self.plans):
            self.front.refresh_copies()

    def reset_remainders(self, plan: RankedPlan) -> None:
        """Set the remainders of a plan's parameters to zero; all ranks call it."""
        with self.turn("reset_remainders"):
            self.require_usable()
            error = None
            try:
                plan.refuse_averages("reset_remainders")
                plan.require_whole()
            except BaseException as caught:
                error = caught
            self.meet(Kind.RESET_REMAINDERS, error)
            with self.moving("reset_remainders"):
                plan.inner.reset_remainders()

    # ---- the end -------------------------------------------------------------------------------

    def refuse_group(self) -> NoReturn:
        """Raise TypeError: who owns what is decided when all parameters are there."""
        raise TypeError(
            "a Distributed must get all its groups when it is made, got another one; make a new "
            "Distributed, and load a state into it"
        )

    def close(self) -> None:
        """Leave the job together with the other ranks."""
        with self.turn("close"):
            if not self.seat.is_empty:
                self._fault = self._fault or "the Distributed is closed; make a new one"
                self.seat.leave()


@np.errstate(all="ignore")  # as in the core, which has done the same in one process
def _added(total: Array, gradient: Array) -> Array:
    """Return the sum in the type of `total`, to which the gradient is rounded first."""
    found: Array = total + gradient.astype(total.dtype)
    return found
