"""What all optimizers of instep.torch have: the step, the states' files, and instep's own keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instep import _core
from instep._support import documentation
from instep._support.hosts import host, part
from instep.optimizers.hyperparameters import Nonfinite, as_float
from instep.optimizers.settings import CLIP_NORM, checked_nonfinite
from instep.optimizers.stored_formats import REMAINDER, StoredFormats
from instep.torch import formats
from instep.torch.entry import Made, forget
from instep.torch.group_numbers import Kind
from instep.torch.loading import SEED, load
from instep.torch.memory import LOOKS, memory
from instep.torch.places import Places, limit
from instep.torch.tensors import FACE, TESTED, check, is_usual, torch
from instep.torch.threads import settle

__all__ = ["OWN", "Stepping"]

#: instep's own keywords of every class: attributes of an optimizer, not entries of its groups.
OWN: dict[str, Any] = {
    "clip_norm": None,
    "nonfinite": "propagate",
    **StoredFormats._field_defaults,
}

Optimizer: Any = torch.optim.Optimizer
_base = host(FACE, "torch.optim.optimizer", "PyTorch", "torch")
_pre_hooks = part(FACE, _base, "_global_optimizer_pre_hooks", TESTED)
_post_hooks = part(FACE, _base, "_global_optimizer_post_hooks", TESTED)
_is_profiled = part(FACE, torch, "_C._autograd._profiler_enabled", TESTED)
# torch.compile of a loop leaves out `step` itself, by its mark below, but would compile each function that it calls.
_set_compiler = part(FACE, torch, "_C._dynamo.eval_frame.set_eval_frame", TESTED)
# torch.autograd.graph.increment_version takes a list, too, after it has asked whether it is a tensor.
_count_change = getattr(torch._C, "_increment_version", torch.autograd.graph.increment_version)
# How _core.read_all reads gradients: of which class they are, and of which it is asked whether they need more.
_GRADIENTS = torch.Tensor.grad, torch.Tensor, torch.Tensor.is_neg


class _Stored:
    """One of the options that say how states and parameters are stored; it may be set at any time."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, optimizer: Any, owner: type[Any] | None = None) -> Any:
        return self if optimizer is None else getattr(optimizer._formats, self._name)

    def __set__(self, optimizer: Any, value: Any) -> None:
        optimizer._set_formats({**optimizer._formats._asdict(), self._name: value})


@documentation.without_quotes
class Stepping(Optimizer):  # type: ignore[misc]  # PyTorch is not there for every type checker
    """An optimizer of PyTorch's whose steps are instep's; `state` and `param_groups` are the truth at every step."""

    _kind: Kind
    _places: Places | None = None
    _skipped = 0  # steps, before the present places
    _norm: float | None = None  # of the last step before the present places
    _stepping: list[None] | None = None  # of the step under way
    _is_averaged = False  # the parameters hold averages

    _formats = StoredFormats()

    def _begin(self, clip_norm: float | None, nonfinite: Nonfinite, **stored: Any) -> None:
        """Take instep's own arguments: before anything else is made."""
        self.clip_norm = clip_norm
        self.nonfinite = nonfinite
        self._set_formats(stored)

    def _set_formats(self, given: dict[str, Any]) -> None:
        self._formats = formats.checked(self._kind.rule._rule, given)
        self._leave_places()

    # ---- instep's own --------------------------------------------------------------------------

    @property
    def clip_norm(self) -> float | None:
        """The limit of the norm of all gradients together; None for no limit."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        self._clip_norm = None if value is None else as_float(value, CLIP_NORM, "clip_norm")
        self._leave_places()

    @property
    def nonfinite(self) -> Nonfinite:
        """What happens if a gradient is infinite or NaN: "propagate", "skip" or "raise"."""
        return self._nonfinite

    @nonfinite.setter
    def nonfinite(self, value: Nonfinite) -> None:
        self._nonfinite = checked_nonfinite(value)
        self._leave_places()

    state_dtype = _Stored(
        "The format of states that are made from now on, or formats by name; None for the parameter's dtype."
    )
    rounding = _Stored('How states of 8 and 16 bits are rounded: "stochastic" or "nearest".')
    seed = _Stored("The seed of the random numbers that round; `load_state_dict` sets it.")
    param_rounding = _Stored('How parameters of 16 bits are rounded: "stochastic" or "nearest".')
    master_bits = _Stored("The bits of bfloat16 parameters with new remainders: 24, 32 or None.")
    min_8bit_size = _Stored("The number of elements from which new states are in 8 bits.")

    def reset_remainders(self) -> None:
        """Set the remainders of ``master_bits`` to zero.

        Call it after you have changed bfloat16 parameters by hand. A remainder that is left is off
        by half a last place of the new number at most; beside an infinity it makes NaN.
        """
        for states in self.state.values():
            rest = states.get(REMAINDER) if isinstance(states, dict) else None
            if isinstance(rest, torch.Tensor):
                rest.zero_()

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of the last step's gradients, before clipping; None if none was computed."""
        return self._norm if self._places is None else self._places.steps.grad_norm

    @property
    def skipped_steps(self) -> int:
        """Number of steps that changed nothing, under ``nonfinite="skip"``."""
        now = 0 if self._places is None else self._places.steps.skipped_steps
        return self._skipped + now

    # ---- the step ------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, and return the loss of the closure, if there is one.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients and returns the loss. It is called once, with gradients enabled.

        Raises
        ------
        TypeError, ValueError
            If a parameter, a gradient, a state or a number can't be used: no parameter and no state
            has changed then.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN.
        RuntimeError
            If another step of this optimizer is under way, or in a block of ``averaged()``.
        """
        compiler = _set_compiler(None)
        try:
            if (
                self._optimizer_step_pre_hooks
                or self._optimizer_step_post_hooks
                or _pre_hooks
                or _post_hooks
                or _is_profiled()
            ):
                return _hooked_step(self) if closure is None else _hooked_step(self, closure)
            loss = self._take(closure)
            self._optimizer_step_code()
            return loss
        finally:
            _set_compiler(compiler)

    def _take(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # No lock: a KeyboardInterrupt after the call that takes or releases it would leave it taken. Between
        # the lines here Python neither raises one nor lets another thread run, as none is a call.
        mine = [None]
        try:
            if self._stepping is not None:
                raise RuntimeError("a step of this optimizer must end before the next begins")
            self._stepping = mine
            if not self._step_as_before():
                self._step_anew()
        finally:
            if self._stepping is mine:
                self._stepping = None
        return loss

    def _step_as_before(self) -> bool:
        """Step if everything is as the step before left it but for gradients and numbers; tell whether it was."""
        places = self._places
        if not LOOKS or places is None or not (places.match(self) or places.renumber(self)):
            return False
        gradient, kind, is_negated = _GRADIENTS
        read = _core.read_all(gradient, places.params, kind, is_negated)
        if read is None:  # a gradient needs more than a look by the core
            return False
        gradients, stepped = read
        if places.empty and any(gradients[i] is not None for i in places.empty):
            return False
        if not (places.is_settled or places.renumber(self)):
            return False
        settle()
        skipped = places.steps.skipped_steps if places.may_skip else 0
        try:
            places.steps.step(gradients, places.numbers, places.extras, 1.0)
        except (TypeError, ValueError, RuntimeError):  # to be found again, and named
            return False
        if not places.may_skip or places.steps.skipped_steps == skipped:
            _count_change(stepped)
        return True

    def _step_anew(self) -> None:
        """Step after something has changed: bind first what is not bound to the present objects."""
        if self._is_averaged:
            raise RuntimeError("step must come after the block of averaged() has ended")
        places = self._fitting_places()
        gradients = [_taken(places.name(self, i), p) for i, p in enumerate(places.params)]
        made: Made = []
        skipped = places.steps.skipped_steps
        try:
            places.refresh(self, gradients, made)
            settle()
            gradients = places.without_dry(gradients)
            arrays = [None if g is None else memory(g) for g in gradients]
            places.steps.step(arrays, places.numbers, places.extras, 1.0)
        except BaseException:
            self._forget(made)
            raise
        if places.steps.skipped_steps != skipped:
            if made:
                self._forget(made)
            return
        _count_change([p for p, g in zip(places.params, gradients, strict=True) if g is not None])

    def _show(self) -> None:
        """Put the rules' averages in the parameters."""
        places = self._fitting_places()
        places.refresh(self, [None] * len(places.params), [])
        places.steps.show(places.numbers, places.extras)
        _count_change(places.params)
        self._leave_places()  # so that a step looks whether this block has ended
        self._is_averaged = True

    def _fitting_places(self) -> Places:
        """Return the places, which are made anew if the optimizer has other parameters or groups."""
        if self._places is None or not self._places.fit(self):
            self._leave_places()
            limits = limit(self._clip_norm), self._nonfinite
            self._places = Places(self._kind, self, limits, self._formats)
        return self._places

    def _leave_places(self) -> None:
        """Give up the places, but not what their steps have counted."""
        self._skipped, self._norm, self._places = self.skipped_steps, self.grad_norm, None

    def _forget(self, made: Made) -> None:
        """Take back the states that a step made which then changed nothing."""
        self._leave_places()
        forget(self.state, made)

    def add_param_group(self, param_group: Any) -> None:
        """Add parameters, with numbers of their own, as in torch.

        Raises
        ------
        TypeError
            If the group has one of instep's own keywords, which hold for all groups together.
        """
        for name in OWN:
            if isinstance(param_group, dict) and name in param_group:
                raise TypeError(
                    f"a parameter group must not have {name!r}; give {name} to the optimizer, for all "
                    "groups together"
                )
        super().add_param_group(param_group)

    # ---- files and copies ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state in torch's form, and beside its two parts the ``seed``, which torch passes over.

        States that torch would read wrongly have names that torch doesn't know; `decoded` turns them
        into torch's.
        """

        def with_seed(_: Any, found: dict[str, Any]) -> None:
            found[SEED] = self.seed

        handle = self.register_state_dict_post_hook(with_seed, prepend=True)
        try:
            found: dict[str, Any] = super().state_dict()
            return found
        finally:
            handle.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of `state_dict` or of ``torch.optim``, with the states' own formats, and as copies.

        Parameters of a group are matched by ``param_names`` if both sides have them, and by their
        order otherwise. A seed in the dict becomes the optimizer's.

        Raises
        ------
        ValueError, KeyError
            If the groups, the parameters' number or names don't fit; nothing has changed then.
        """
        seed = load(self, super().load_state_dict, state_dict)
        if seed is not None:
            self._formats = self._formats._replace(seed=seed)
        self._leave_places()

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in OWN}
        return {**super().__getstate__(), **own, "skipped_steps": self.skipped_steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        skipped = state.pop("skipped_steps", None)
        own = {name: state.pop(name, getattr(self, name, OWN[name])) for name in OWN}
        super().__setstate__(state)
        self._begin(**own)
        if skipped is not None:
            self._skipped = skipped


_hooked_step = Optimizer.profile_hook_step(Stepping._take)
Stepping.step.hooked = True  # type: ignore[attr-defined]  # torch's own wrapper costs microseconds a step
Stepping.step._torchdynamo_disable = True  # type: ignore[attr-defined]
Stepping.state_dict._torchdynamo_disable = True  # type: ignore[attr-defined]
Stepping.load_state_dict._torchdynamo_disable = True  # type: ignore[attr-defined]


def _taken(name: str, parameter: Any) -> Any:
    """Return a parameter's gradient for a step; TypeError or ValueError says why it can't be used."""
    if not isinstance(parameter, torch.Tensor):
        check(f"parameter '{name}'", parameter)
    gradient = parameter.grad
    if gradient is None:
        return None
    if not is_usual(gradient):
        # Mostly the parameter has the same fault, and is what can be mended.
        check(f"parameter '{name}'", parameter)
        check(f"the gradient of '{name}'", gradient)
    return gradient.resolve_neg() if gradient.is_neg() else gradient
