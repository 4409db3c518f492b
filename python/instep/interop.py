"""State of optimizers in the form of other libraries.

>>> import numpy as np, instep
>>> optimizer = instep.Adam({"w": np.ones(2)}, lr=0.1)
>>> optimizer.step({"w": np.ones(2)})
>>> state = instep.interop.to_torch_state_dict(optimizer)
>>> state["param_groups"][0]["lr"], state["state"][0]["step"]
(0.1, 1.0)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from instep.optimizers import Optimizer
from instep.optimizers.arguments import require_optimizer
from instep.optimizers.state import take_over
from instep.wording import kind, listed

__all__ = ["from_torch_state_dict", "to_torch_state_dict"]

# For each rule, hyperparameters that both sides have by the same name.
_SHARED = {
    "SGD": ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize"),
    "RMSprop": ("lr", "alpha", "eps", "centered", "momentum", "weight_decay", "maximize"),
    "Adam": ("lr", "betas", "eps", "amsgrad", "weight_decay", "maximize"),
}
_SHARED["Momentum"] = _SHARED["SGD"]
_SHARED["AdamW"] = _SHARED["Adam"]

# What torch's groups say besides, at their defaults; torch takes missing ones from the optimizer it loads into.
_TORCHS_OWN: dict[str, dict[str, Any]] = {
    "SGD": {"foreach": None, "differentiable": False, "fused": None},
    "RMSprop": {"foreach": None, "differentiable": False, "capturable": False},
    "Adam": {"foreach": None, "differentiable": False, "capturable": False, "fused": None},
}
_TORCHS_OWN["Momentum"] = _TORCHS_OWN["SGD"]
_TORCHS_OWN["AdamW"] = _TORCHS_OWN["Adam"]

# What torch's rules don't have: settings here that must be at these values.
_ABSENT: dict[str, Any] = {
    "lr_in_velocity": False,
    "eps_inside_sqrt": False,
    "l1": 0.0,
    "clip_value": None,
}


def to_torch_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimizer's state as ``torch.optim``'s ``load_state_dict`` takes it.

    Arrays are NumPy's, copies; torch is not imported. For torch they become tensors with
    ``torch.utils._pytree.tree_map(lambda x: torch.from_numpy(x) if hasattr(x, "shape") else x, d)``
    or a loop over ``d["state"]``. Schedules are given at their present value: torch keeps its own.

    Parameters
    ----------
    optimizer : Optimizer
        Of any rule; `Momentum` is torch's SGD.

    Returns
    -------
    dict
        ``state`` (number of the parameter -> its states and step) and ``param_groups``, as torch
        has them.

    Raises
    ------
    TypeError
        If the argument is no optimizer.
    ValueError
        If the optimizer does what torch's rule can't: ``l1``, ``clip_value``, ``lr_in_velocity``,
        ``eps_inside_sqrt``, gradients still accumulated.

    Examples
    --------
    >>> import numpy as np, instep
    >>> optimizer = instep.Momentum(np.ones(2), lr=0.5)
    >>> optimizer.step(np.ones(2))
    >>> instep.interop.to_torch_state_dict(optimizer)["state"]
    {0: {'momentum_buffer': array([1., 1.])}}
    """
    require_optimizer(optimizer, "to_torch_state_dict(optimizer)")
    rule = type(optimizer).__name__
    shared = _shared_names(rule)
    with optimizer._plan:  # no step on another thread meanwhile
        if optimizer.accumulated:
            raise ValueError("gradients have been accumulated and not been used; step first")
        steps, states = optimizer._plan.steps, optimizer.state
        groups: list[dict[str, Any]] = []
        state: dict[int, dict[str, Any]] = {}
        index = 0
        for group in optimizer.param_groups:
            _require_torchs(rule, group)
            numbers = range(index, index + len(group.names))
            values = {name: _now(group[name], optimizer.step_count) for name in shared}
            decoupled = {"decoupled_weight_decay": rule == "AdamW"} if "betas" in values else {}
            groups.append({**values, **_TORCHS_OWN[rule], **decoupled, "params": list(numbers)})
            for number, name in zip(numbers, group.names, strict=True):
                if not steps[number]:
                    continue  # torch has no state of a parameter before its first step
                state[number] = {key: array.copy() for key, array in states[name].items()}
                if "betas" in values or "alpha" in values:
                    state[number]["step"] = float(steps[number])
                elif not states[name]:
                    state[number]["momentum_buffer"] = None
            index += len(numbers)
        return {"state": state, "param_groups": groups}


def from_torch_state_dict(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Go on in the optimizer from what ``torch.optim``'s ``state_dict()`` returned.

    The optimizer must have been made of the rule of the same name for as many parameters of the
    same shapes, in the same order and groups. Tensors are read through NumPy, on the CPU; torch is
    not imported. Hyperparameters are taken over but for those that are schedules here. The step
    count becomes the largest among the parameters (SGD in torch counts none: it stays).

    Parameters
    ----------
    optimizer : Optimizer
        Of any rule; `Momentum` is torch's SGD. Its parameters are left alone: copy the weights too.
    state_dict : dict
        With ``state`` and ``param_groups``; tensors or arrays in it.

    Raises
    ------
    TypeError, ValueError
        If anything doesn't fit; nothing has changed then.
    RuntimeError
        Inside ``averaged()``.

    Examples
    --------
    >>> import numpy as np, instep
    >>> state = {"momentum_buffer": np.array([1.0, 2.0])}
    >>> group = {"lr": 0.5, "momentum": 0.75, "params": [0]}
    >>> optimizer = instep.Momentum(np.ones(2))
    >>> instep.interop.from_torch_state_dict(
    ...     optimizer, {"state": {0: state}, "param_groups": [group]}
    ... )
    >>> optimizer.lr, optimizer.momentum, optimizer.state["0"]["momentum_buffer"]
    (0.5, 0.75, array([1., 2.]))
    """
    require_optimizer(optimizer, "from_torch_state_dict(optimizer, state_dict)")
    shared = _shared_names(type(optimizer).__name__)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"torch's state is {kind(state_dict)}; a dict is wanted")
    if not {"param_groups", "state"} <= set(state_dict):
        raise ValueError(
            f"torch's state has the keys {listed(state_dict)}; 'state' and 'param_groups' are wanted"
        )
    with optimizer._plan:  # no step on another thread meanwhile
        if optimizer.accumulated:
            raise ValueError("gradients have been accumulated and not been used; step first")
        for group in optimizer.param_groups:
            _require_torchs(type(optimizer).__name__, group)
        groups, state = state_dict["param_groups"], state_dict["state"]
        if len(groups) != len(optimizer.param_groups):
            raise ValueError(
                f"torch's state has {len(groups)} parameter groups; {len(optimizer.param_groups)} are wanted"
            )
        settings = []
        numbers: dict[str, Any] = {}
        for k, (mine, theirs) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
            if len(theirs["params"]) != len(mine.names):
                raise ValueError(
                    f"group {k} of torch's state has {len(theirs['params'])} parameters; "
                    f"{len(mine.names)} are wanted"
                )
            numbers.update(zip(mine.names, theirs["params"], strict=True))
            taken = {
                n: _number(theirs[n]) for n in shared if n in theirs and not _scheduled(mine[n])
            }
            settings.append(mine._checked_settings({**mine._settings, **taken}))
        arrays, steps = {}, {}
        for name, states in optimizer.state.items():
            theirs = state.get(numbers[name], {})
            arrays[name] = {
                key: _matching(f"torch's {key} of '{name}'", theirs.get(key), array)
                for key, array in states.items()
            }
            steps[name] = _step_of(name, theirs)

        whole = {"steps": steps, "state": arrays, "averages": optimizer.averages, "accumulated": {}}
        counts_steps = "betas" in shared or "alpha" in shared
        count = max(steps.values()) if counts_steps else optimizer.step_count
        hyperparameters = (optimizer.clip_norm, optimizer.ema_decay, settings)
        take_over(optimizer, hyperparameters, (count, optimizer.skipped_steps), whole)


def _shared_names(rule: str) -> tuple[str, ...]:
    if rule not in _SHARED:
        raise ValueError(f"there is no rule {rule!r} in torch; one of {sorted(_SHARED)} is wanted")
    return _SHARED[rule]


def _require_torchs(rule: str, group: Mapping[str, Any]) -> None:
    for name, value in _ABSENT.items():
        if name in group and group[name] != value:
            raise ValueError(
                f"{name} is {group[name]!r}; torch's {rule} has none, {value!r} is wanted"
            )


def _now(value: Any, step: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_now(part, step) for part in value)
    return value(step) if callable(value) else value


def _scheduled(value: Any) -> bool:
    return any(map(callable, value)) if isinstance(value, tuple) else callable(value)


def _number(value: Any) -> Any:
    """A hyperparameter, which torch may keep as a tensor."""
    if isinstance(value, (tuple, list)):
        return tuple(_number(part) for part in value)
    return value if isinstance(value, bool) else float(value)


def _step_of(name: str, state: Mapping[str, Any]) -> int:
    if "step" in state:
        step = float(state["step"])
        if not (0 <= step <= 2**53 and step.is_integer()):
            raise ValueError(f"torch's step of '{name}' is {step}; a count of steps is wanted")
        return int(step)
    return int(state.get("momentum_buffer") is not None)  # SGD counts no steps but for the first


def _matching(who: str, found: Any, wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if found is None:
        return np.zeros_like(wanted)
    array = np.asarray(found)
    if array.shape != wanted.shape:
        raise ValueError(f"{who} has shape {array.shape}; {wanted.shape} is wanted")
    return array.astype(wanted.dtype)
