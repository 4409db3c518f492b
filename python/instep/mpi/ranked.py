"""What an optimizer has in place of the core's plan while its step is taken by several ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

import numpy as np

from instep import _core
from instep._support.wording import kind
from instep.mpi.shards import Parameter, Stretch
from instep.mpi.weighing import weighed
from instep.optimizers.current import Current, Values
from instep.optimizers.state_storage import StateFolder
from instep.optimizers.stored_formats import text_of_formats

__all__ = ["RankedCombined", "RankedPlan", "Shown", "described"]

Array = np.ndarray[Any, Any]

#: The rule of a front: it has no states.
_FRONT_RULE = "sgd"
_NO_VALUES = Values((), None, None, "propagate", {})


class Shown(Protocol):
    """Averages in the place of the parameters."""

    def show(self, optimizer: Any) -> None:
        """Put them there, on all ranks."""

    def hide(self) -> None:
        """Put the weights back."""


class Together(Protocol):
    """What the parts of a job ask of it."""

    plans: list[RankedPlan]
    any_gradient: bool
    shown: Shown

    def grad_norm_of(self, plan: object) -> float | None:
        """Return the norm of the last step, or None to one optimizer of several."""

    def turn(self, what: str) -> AbstractContextManager[None]:
        """Let one thread at a time make a call."""

    def reset_remainders(self, plan: RankedPlan) -> None:
        """Set the remainders of a plan's parameters to zero, on all ranks."""

    def refuse_group(self) -> NoReturn:
        """Raise TypeError: who owns what is decided when all parameters are there."""


class _Holder:
    """Takes what the core would give to an optimizer."""

    __slots__ = ("_held",)


class _Ranked:
    """What one optimizer and several as one have in common."""

    job: Together
    front: Any

    @property
    def grad_norm(self) -> float | None:
        """Norm in the last step."""
        return self.job.grad_norm_of(self)

    @property
    def any_gradient(self) -> bool:
        """Whether any rank had a gradient in the last step."""
        return self.job.any_gradient

    def accumulate(self, gradients: Any) -> None:
        """Add gradients of a micro-batch to the sums of this rank."""
        with self.job.turn("accumulate"):  # a step would drop what comes in its middle
            self.front.accumulate(gradients)

    def discard_accumulated(self) -> None:
        """Drop the sums of this rank."""
        with self.job.turn("discard_accumulated"):
            self.front.discard_accumulated()

    def refresh_copies(self) -> None:
        """Round the parameters into their copies."""
        self.front.refresh_copies()

    def end_averaged(self) -> None:
        """Put the weights back."""
        self.job.shown.hide()

    def reading(self) -> NoReturn:
        """Refuse to give a part of the states as if it were all."""
        _refuse_as_plain()

    def __enter__(self) -> NoReturn:
        _refuse_as_plain()

    def __exit__(self, *exception: object) -> None:
        pass


class RankedPlan(_Ranked):
    """One optimizer's parameters: all of them in front, and this rank's stretches of them, with states.

    The front checks parameters and gradients as any optimizer does, adds up this rank's
    micro-batches, and keeps the copies. The stretches, and so the states, are made when all
    parameters of the job are known.
    """

    def __init__(
        self,
        job: Together,
        averaged: bool,
        current: Current,
        storage: StateFolder | None,
        formats: Mapping[str, Any],
    ) -> None:
        self.job = job
        self.formats, self.averaged_by_decay, self.current = formats, averaged, current
        self.front = _core.make_plan(False, Current(_NO_VALUES))
        self.inner = _core.make_plan(averaged, current, storage, **formats)
        self.groups: list[tuple[Any, ...]] = []  # as the core takes them
        self.arrays: list[Array] = []
        self.names: list[str] = []
        self.scalar_states: set[str] = set()  # those that are one number, on all ranks
        self.has_copies = False
        self.is_bound = False

    def add(
        self,
        groups: list[tuple[Any, ...]],
        grouped: bool,
        take_read_only: bool,
        before: Values,
        now: Values,
        optimizer: Any,
        held: Any,
    ) -> bool:
        """Let the front take the parameters; the stretches are made later. Arguments as for the core."""
        if self.is_bound or take_read_only:
            self.job.refuse_group()
        if self.current.now is not before:
            return False
        for _, _, _, names, arrays, *_ in groups:
            for name, array in zip(names, arrays, strict=True):
                _require_in_order(name, array)
        front = [
            (_FRONT_RULE, (), tree, names, arrays, copies, None)
            for _, _, tree, names, arrays, copies, _ in groups
        ]
        holder = _Holder()
        self.front.add(front, grouped, False, _NO_VALUES, _NO_VALUES, holder, None)
        self.groups += groups
        for rule, *_ in groups:
            self.scalar_states |= set(_core.rules()[rule]["scalar_states"])
        self.grouped = grouped
        for _, _, _, names, arrays, copies, _ in groups:
            self.names += names
            self.arrays += [np.asarray(array) for array in arrays]
            self.has_copies = self.has_copies or any(copy is not None for copy in copies)
        optimizer._held = held
        self.current.now = now
        return True

    def parameters(self) -> list[Parameter]:
        """Return what decides who owns what."""
        averaged, formats = self.averaged_by_decay, self.formats
        return [
            weighed(rule, options, np.asarray(array), state_dtypes, formats, averaged=averaged)
            for rule, options, _, _, arrays, _, state_dtypes in self.groups
            for array in arrays
        ]

    def bind(self, stretches: Sequence[Stretch | None]) -> None:
        """Make the states of this rank's stretches, one for each parameter; None for an empty one."""
        own = iter(zip(self.arrays, stretches, strict=True))
        groups: list[Any] = []
        for rule, options, tree, names, arrays, _, state_dtypes in self.groups:
            whole = _core.needs_whole(rule, options)
            pairs = [next(own) for _ in arrays]
            views = tuple(_view(array, stretch, whole) for array, stretch in pairs)
            parts = [(a.shape, 0 if s is None else s.begin) for a, s in pairs]
            none = (None,) * len(views)
            groups.append((rule, options, tree, names, views, none, state_dtypes, parts))
        now = self.current.now
        holder = _Holder()
        self.inner.add(groups, self.grouped, False, now, now, holder, None)
        self.is_bound = True

    def restore(
        self,
        step_count: int,
        skipped_steps: int,
        parameters: Sequence[tuple[int, Any, Any, Any, Any]],
        now: Values | None = None,
        is_new: bool = False,
        seed: int | None = None,
    ) -> None:
        """Take over counts and states; arguments as for the core, but weights and sums are whole."""
        own = [(steps, states, average, None, None) for steps, states, average, _, _ in parameters]
        with self.inner:
            self.inner.restore(step_count, skipped_steps, own, now, seed=seed)
        for array, (_, _, _, _, weights) in zip(self.arrays, parameters, strict=True):
            if weights is not None:
                np.copyto(array, weights)
        sums: list[Any] = [
            (0, {}, None, accumulated, None) for _, _, _, accumulated, _ in parameters
        ]
        with self.front:
            self.front.restore(0, 0, sums)
        self.front.refresh_copies()

    def require_whole(self) -> None:
        """Raise RuntimeError if the states lie in files that have half a step."""
        self.inner.require_whole()

    def remove_files(self) -> None:
        """Remove the files of the states, if the optimizer could not be made."""
        self.inner.remove_files()

    def reset_remainders(self) -> None:
        """Set the remainders of all parameters to zero, on all ranks."""
        self.job.reset_remainders(self)

    # ---- what optimizers ask of a plan ---------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed steps."""
        return self.inner.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps that changed nothing."""
        return self.inner.skipped_steps

    @property
    def seed(self) -> int:
        """The seed of the random numbers."""
        return self.inner.seed

    @property
    def steps(self) -> list[int]:
        """Completed steps of each parameter."""
        return self.inner.steps

    @property
    def states(self) -> dict[str, dict[str, Array]]:
        """The states of this rank's stretches."""
        return self.inner.states

    @property
    def averages(self) -> dict[str, Array]:
        """The averages of this rank's stretches."""
        return self.inner.averages

    @property
    def accumulated(self) -> dict[str, Array]:
        """The sums of micro-batches on this rank, of whole parameters."""
        found: dict[str, Array] = self.front.accumulated
        return found

    @property
    def pending_changes(self) -> int:
        """Another number whenever accumulated may have other names."""
        return int(self.front.pending_changes)

    @property
    def shows_averages(self) -> bool:
        """Whether the parameters hold averages."""
        return self.inner.shows_averages

    def refuse_averages(self, what: str) -> None:
        """Raise RuntimeError where the averages are shown."""
        self.inner.refuse_averages(what)

    def step(self, gradients: Any, optimizer: Any, grad_scale: float = 1.0) -> NoReturn:
        """Refuse a step of one optimizer of several."""
        _refuse_alone("step")

    def step_accumulated(self, optimizer: Any, grad_scale: float = 1.0) -> NoReturn:
        """Refuse a step of one optimizer of several."""
        _refuse_alone("step")

    def averaged(self) -> NoReturn:
        """Refuse to show the averages of one optimizer of several."""
        _refuse_alone("averaged")


class RankedCombined(_Ranked):
    """The same for several optimizers as one."""

    def __init__(
        self, job: Together, optimizers: Sequence[Any], plans: Sequence[Any], current: Current
    ) -> None:
        for k, plan in enumerate(plans):
            if not isinstance(plan, RankedPlan) or plan.job is not job:
                raise ValueError(
                    f"optimizers[{k}] must be made by the function that Distributed calls, got one "
                    "that was there before"
                )
        self.job, self.current = job, current
        self.front = _core.make_combined(
            tuple(optimizers), [plan.front for plan in plans], Current(_NO_VALUES)
        )
        self.step_count = self.skipped_steps = 0

    def restore(
        self, step_count: int, skipped_steps: int, members: Sequence[Any], now: Values
    ) -> None:
        """Take over the counts and states of all optimizers."""
        for plan, (count, skipped, parameters, values, seed) in zip(
            self.job.plans, members, strict=True
        ):
            plan.restore(count, skipped, parameters, values, seed=seed)
        self.step_count, self.skipped_steps = step_count, skipped_steps
        self.current.now = now

    def check_memory(self) -> None:
        """Raise where two optimizers' arrays share memory."""
        self.front.check_memory()

    def refuse_averages(self, what: str) -> None:
        """Raise RuntimeError where the averages are shown."""
        for plan in self.job.plans:
            plan.refuse_averages(what)


def described(plans: Sequence[RankedPlan], rules: Sequence[str]) -> list[Any]:
    """Return what must be the same on all ranks, without the elements of the parameters."""
    return [
        {
            "rule": name,
            "formats": _as_arguments(plan.formats),
            "averages": plan.averaged_by_decay,
            "groups": [
                {
                    "rule": rule,
                    "options": list(options),
                    "state_dtype": text_of_formats(state_dtype),
                    "names": list(names),
                    "parameters": {
                        own: f"{np.asarray(array).dtype.name} {np.shape(array)}"
                        for own, array in zip(names, arrays, strict=True)
                    },
                }
                for rule, options, _, names, arrays, _, state_dtype in plan.groups
            ],
        }
        for plan, name in zip(plans, rules, strict=True)
    ]


def _as_arguments(formats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the core's formats as a program says them."""
    told = {**formats, "master_bits": formats["master_bits"] or None}
    for name, at_random in zip(("rounding", "param_rounding"), formats["rounding"], strict=True):
        told[name] = "stochastic" if at_random else "nearest"
    return told


def _refuse_as_plain() -> NoReturn:
    """Raise TypeError where an optimizer's arrays are expected to be whole."""
    raise TypeError(
        "an optimizer in one process was expected, got a Distributed, of whose states each rank has "
        "a part; call its save(path) and load(path), or state_dict() and load_state_dict(), on all ranks"
    )


def _refuse_alone(what: str) -> NoReturn:
    raise TypeError(
        f"{what} must be called of the Distributed, got a call of one of its optimizers alone"
    )


def _require_in_order(name: str, array: Any) -> None:
    if isinstance(array, np.ndarray) and not np.asarray(array).flags.c_contiguous:
        raise ValueError(
            f"parameter {name!r} must be C-contiguous to be shared out among ranks, got "
            f"{kind(array)} with the strides {np.asarray(array).strides}; pass "
            "np.ascontiguousarray(array), and use this copy in the model, too"
        )


def _view(array: Array, stretch: Stretch | None, whole: bool) -> Array:
    if whole:  # of a rule for matrices
        return array if stretch is not None else array[:0]
    flat = array.reshape(-1)
    return flat[:0] if stretch is None else flat[stretch.begin : stretch.end]
