"""Hyperparameters bound to arrays: the part of an optimizer that doesn't step, from which its state is read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instep import _core
from instep._support import documentation
from instep.optimizers.containers import (
    Array,
    Copies,
    NamedParameters,
    match_copies,
    name_group,
    replaced,
)
from instep.optimizers.groups import ParamGroup, check_alike, group_values, taken
from instep.optimizers.hyperparameters import of_all_groups
from instep.optimizers.plans import make_plan
from instep.optimizers.settings import CLIP_NORM, EMA_DECAY, Held, Settings, number_at
from instep.optimizers.state_storage import StateFolder
from instep.optimizers.stored_formats import StoredFormats, checked_groups
from instep.optimizers.tree import encoded
from instep.optimizers.views import View

__all__ = ["Bound"]


class Views(NamedTuple):
    """An optimizer's arrays, by name, for the groups in `held`."""

    held: Held
    params: View[Array]
    states: View[View[Array]]
    averages: View[Array]


@documentation.without_quotes
class Bound(Settings):
    """Settings of groups, and the core's plan with their parameters and states."""

    __slots__ = (
        "_accumulated",
        "_formats",
        "_look_at",
        "_plan",
        "_state_storage",
        "_views",
        "_warned",
    )

    def _bind(
        self,
        groups: Sequence[NamedParameters],
        copies: Sequence[tuple[Array | None, ...]],
        formats: StoredFormats,
        storage: StateFolder | None = None,
        *,
        grouped: bool,
        take_read_only: bool = False,
    ) -> None:
        """Let the core check the arrays and make the states; the settings must be there already."""
        self._formats = formats
        self._state_storage = None if storage is None else storage.path
        formats.require_for(groups)
        self._plan = make_plan(self.ema_decay is not None, self._current, storage, formats)
        if storage is not None:
            storage.plan = self._plan
        self._views: Views | None = None
        self._accumulated = -1, View[Array]()  # as of that many changes
        self._warned = False
        self._look_at = 0  # completed steps
        while not self._added(
            self._held, groups, copies, grouped=grouped, take_read_only=take_read_only
        ):
            pass  # code of a subclass has set a hyperparameter meanwhile

    def _added(
        self,
        held: Held,
        groups: Sequence[NamedParameters],
        copies: Sequence[tuple[Array | None, ...]],
        *,
        grouped: bool,
        take_read_only: bool = False,
    ) -> bool:
        """Add groups after the held groups: all of them, or none if one is refused.

        Return False, and add nothing, if other groups are held by now, or if a hyperparameter has
        been set meanwhile.
        """
        rule, before = type(self), self._current.now
        if self._held is not held:
            return False
        values = [group_values(rule, {**before.defaults, **named.settings}) for named in groups]
        check_alike(rule, [own.settings for own in (*before.groups, *values)])
        new = [
            ParamGroup(rule, named, self._current, len(held.groups) + k, own.settings)
            for k, (named, own) in enumerate(zip(groups, values, strict=True))
        ]
        formats = self._formats.of_groups(
            [(self._rule, group._options, group._parameters.formats) for group in new],
            first=not held.groups,
        )
        return self._plan.add(
            [
                (
                    self._rule,
                    group._options,
                    encoded(named.tree),
                    named.names,
                    named.arrays,
                    copied,
                    stored,
                )
                for group, named, copied, stored in zip(new, groups, copies, formats, strict=True)
            ],
            grouped,
            take_read_only,
            before,
            before._replace(groups=(*before.groups, *values)),
            self,
            Held((*held.groups, *new), (*held.copies, *copies), grouped),
        )

    def add_param_group(
        self, param_group: Mapping[str, Any], *, copy_to: Copies | None = None
    ) -> None:
        """Add a group of parameters, such as layers that are trained from now on.

        The states of the new parameters are zero, their averages are the parameters themselves, and
        their own step counts begin at 0; `step_count` goes on. So the group is stepped as if it had
        been there from the beginning, with None for all its gradients until now. From now on,
        gradients come in a list with an entry for each group, also if the optimizer was made
        without groups. To load a state that has the group, add the group first.

        Parameters
        ----------
        param_group : dict
            A group as for the optimizer itself: arrays under "params", and any of the groups'
            hyperparameters and a ``state_dtype``. The other hyperparameters have the values with
            which the optimizer was made, or that were set for all groups since, as by
            ``optimizer.lr = 0.1``.
        copy_to : container like the group's params, or None
            As for the optimizer.

        Raises
        ------
        TypeError, ValueError
            As for the optimizer; nothing has changed then.
        RuntimeError
            Inside ``averaged()``.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w, b = np.ones(2), np.ones(1)
        >>> optimizer = instep.SGD({"w": w}, lr=0.5)
        >>> optimizer.step({"w": np.ones(2)})
        >>> optimizer.add_param_group({"params": {"b": b}, "lr": 0.25})
        >>> optimizer.step([{"w": None}, {"b": np.ones(1)}])
        >>> w, b
        (array([0.5, 0.5]), array([0.75]))
        """
        held = self._held
        named = name_group(param_group, held.named)
        copies = match_copies(copy_to, [named], grouped=False)
        own = taken(type(self), named.settings)  # once, however often another thread comes between
        (checked,) = checked_groups([named], len(held.groups))
        own_parts: dict[str, Any] = {"settings": own, "formats": checked.formats}
        while not self._added(held, [named._replace(**own_parts)], copies, grouped=True):
            held = self._held
            named = name_group(param_group, held.named)

    @property
    def _arrays(self) -> Views:
        """The arrays in use, by name; new views after groups have been added."""
        held, views = self._held, self._views
        if views is None or views.held is not held:
            # The names of `held` are in the core already. There may be others, half bound by an
            # add_param_group that this very call interrupts.
            names = [name for named in held.named for name in named.names]
            states, averages = self._plan.states, self._plan.averages
            views = Views(
                held,
                View(
                    p for named in held.named for p in zip(named.names, named.arrays, strict=True)
                ),
                View({name: View(states[name]) for name in names}),
                View({name: averages[name] for name in names if name in averages}),
            )
            self._views = views
        return views

    def _hyperparameters_at(
        self, step: int
    ) -> tuple[list[list[float]], tuple[float, float, int], int]:
        if step >= self._look_at:
            self._look_at = 2 * step + 1
            self._warn_of_replaced(stacklevel=4)
        groups, extras, ask_from = super()._hyperparameters_at(step)
        return groups, extras, min(ask_from, self._look_at)

    def _warn_of_replaced(self, stacklevel: int = 3) -> None:
        """Warn, once, if the caller's container has other arrays than the optimizer steps.

        Called wherever all arrays are read or written, and by steps 0, 1, 3, 7, 15 and so on: in
        every step it would slow down steps over many small arrays.
        """
        if self._warned:
            return
        for group in self._held.named:
            if (name := replaced(group)) is None:
                continue
            self._warned = True
            warnings.warn(
                f"{name!r} in the container of the parameters must be the array that the optimizer "
                "steps, got another array, which was put there later or made anew when model and "
                "optimizer were stored (joblib); write into the array, as in [...] = values, or "
                "use the arrays of optimizer.params",
                RuntimeWarning,
                stacklevel=stacklevel,
            )
            return

    @property
    def step_count(self) -> int:
        """Completed steps; schedules are called with this number."""
        return self._plan.step_count

    def current(self, name: str) -> Any:
        """Return a hyperparameter as the next step uses it; for a schedule, its number.

        Parameters
        ----------
        name : str
            Such as "lr": one of the groups' hyperparameters, ``clip_norm`` or ``ema_decay``.

        Raises
        ------
        ValueError
            If the groups differ; call ``param_groups[k].at(step_count)`` for each group.
        TypeError
            If there is no such hyperparameter. An error of a schedule is raised unchanged.

        Examples
        --------
        >>> import numpy as np, instep
        >>> optimizer = instep.SGD(np.ones(2), lr=instep.schedules.Linear(1.0, 0.0, steps=4))
        >>> optimizer.step(np.ones(2))
        >>> f"{optimizer.current('lr'):.3f}"
        '0.750'
        """
        step = self.step_count
        if name in ("clip_norm", "ema_decay"):
            interval = CLIP_NORM if name == "clip_norm" else EMA_DECAY
            value = getattr(self, name)
            if value is None:
                return None
            return _core.in_default_environment(number_at, name, value, interval, step)
        # Not strict: another thread may add groups meanwhile.
        pairs = zip(self.param_groups, self._of_groups(), strict=False)
        values = [group._at(settings, step, name) for group, settings in pairs]
        return of_all_groups(name, values, f"param_groups[k].at(step)[{name!r}]")

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters by name: the caller's arrays, not copies, in a read-only dict."""
        return self._arrays.params

    @property
    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """The states, by parameter's name and state's name: the arrays in use, not copies.

        The states have PyTorch's names, such as ``exp_avg``. To change a state, write into its
        array: ``optimizer.state["w"]["exp_avg"][...] = 0``; the dicts are read-only.
        """
        return self._arrays.states

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of all gradients of the last step, before clipping; None if there is none.

        The norm is of the gradients as they were given, times ``grad_scale``, in float64. It is
        computed if ``clip_norm`` is set, or if ``nonfinite`` is "skip" or "raise".
        ``clip_norm=math.inf`` computes the norm and clips nothing.
        """
        return self._plan.grad_norm

    @property
    def skipped_steps(self) -> int:
        """Steps that changed nothing, because a gradient was not finite under ``nonfinite="skip"``."""
        return self._plan.skipped_steps

    @property
    def averages(self) -> Mapping[str, Array]:
        """The moving averages by parameter's name: the arrays in use, empty without ``ema_decay``."""
        return self._arrays.averages

    @property
    def accumulated(self) -> Mapping[str, Array]:
        """The sums of `accumulate` so far, by parameter's name: the arrays in use."""
        changes = self._plan.pending_changes
        as_of, view = self._accumulated
        if as_of != changes:
            view = View(self._plan.accumulated)
            self._accumulated = changes, view
        return view

    def _counts(self) -> dict[str, int]:
        sizes = (np.asarray(array).size for array in self.params.values())
        return {**super()._counts(), "elements": sum(sizes), "step_count": self.step_count}

    def _extras_in_use(self) -> dict[str, Any]:
        own = [named.formats for named in self._held.named]
        used = self._formats.in_use(self._plan.seed, own)
        if self._state_storage is not None:
            used["state_storage"] = self._state_storage
        return super()._extras_in_use() | used
