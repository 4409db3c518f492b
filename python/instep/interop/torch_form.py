"""The state of an optimizer in the form of ``torch.optim``, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instep import _core, rules
from instep._support.checks import word
from instep._support.wording import listed, shown
from instep.interop.torch_state import Entry, flag, number, params_by_name, parts
from instep.optimizers import Optimizer
from instep.optimizers.current import GroupValues
from instep.optimizers.hyperparameters import Count, Flag, OneOf
from instep.optimizers.require import require_optimizer
from instep.optimizers.rule import DECOUPLED_WEIGHT_DECAY, InTorch
from instep.optimizers.stored_arrays import is_wide
from instep.optimizers.stored_formats import UNIT, kinds_of, state_names
from instep.optimizers.stored_state import SCHEMA, take_over
from instep.storage.conversion import stored_as, values_of

__all__ = ["from_torch_state_dict", "to_torch_state_dict"]

# Absent in torch for every rule; the rule's own `InTorch` adds more.
_ABSENT: dict[str, Any] = {"l1": 0.0, "clip_value": None, "decoupled_l1": False}


def to_torch_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimizer's state in the form that ``load_state_dict`` of ``torch.optim`` takes.

    The arrays are NumPy arrays and copies; bfloat16, codes of 8 bits and square roots (second
    moments in float16) become float32. Remainders are left out. torch is not imported. To load
    the state into torch, turn the arrays into tensors, with
    ``torch.utils._pytree.tree_map(lambda x: torch.from_numpy(x) if hasattr(x, "shape") else x, d)``
    or a loop over ``d["state"]``. A schedule becomes its present value, since torch keeps its own
    schedules.

    Parameters
    ----------
    optimizer : Optimizer
        Of any rule; `Momentum` is torch's SGD.

    Returns
    -------
    dict
        ``state`` (number of the parameter -> its states and step) and ``param_groups``, as in
        torch; with ``param_names`` if all parameters came in dicts. (torch keeps these names, but
        loads by the order of the parameters.)

    Raises
    ------
    TypeError
        If the argument is no optimizer.
    ValueError
        If torch has no such rule, or the optimizer uses something that torch's optimizer lacks:
        ``l1``, ``clip_value``, ``lr_in_velocity``, ``eps_inside_sqrt``, ``eps_hat`` and others, or
        accumulated gradients that no step has used.

    Examples
    --------
    >>> import numpy as np, instep
    >>> optimizer = instep.Momentum(np.ones(2), lr=0.5)
    >>> optimizer.step(np.ones(2))
    >>> instep.interop.to_torch_state_dict(optimizer)["state"]
    {0: {'momentum_buffer': array([1., 1.])}}
    """
    require_optimizer(optimizer, "to_torch_state_dict(optimizer)")
    rule = type(optimizer)
    with optimizer._plan.reading():  # no step on another thread meanwhile
        torchs = _in_torch(rule)
        if optimizer._state_storage is not None:
            optimizer._plan.require_whole()
        _require_none_accumulated(optimizer)
        steps, states, params = optimizer._plan.steps, optimizer.state, optimizer.params
        named = all(_is_named(group) for group in optimizer.param_groups)  # torch: all or none
        groups: list[dict[str, Any]] = []
        state: dict[int, dict[str, Any]] = {}
        index = 0
        for group, settings in zip(optimizer.param_groups, optimizer._of_groups(), strict=True):
            _require_torchs(rule, group)
            numbers = range(index, index + len(group.names))
            now = {n: _now(settings[n], optimizer.step_count) for n in torchs.hyperparameters}
            names = {"param_names": list(group.names)} if named else {}
            own = {torchs.name_of(n): value for n, value in now.items()}
            groups.append({**own, **torchs.own, "params": list(numbers), **names})
            for param, name in zip(numbers, group.names, strict=True):
                if steps[param]:
                    state[param] = {
                        key: _torchs(values_of(states[name], key, root=_is_root(rule, key)))
                        for key in state_names(states[name])
                    }
                elif torchs.starts:
                    p = params[name]
                    state[param] = {
                        key: _torchs(np.full(p.shape, now[n], p.dtype))
                        for key, n in torchs.starts.items()
                    }
                else:
                    continue  # torch has no state of a parameter before its first step
                if torchs.counts_steps:
                    state[param]["step"] = float(steps[param])
                elif not states[name]:
                    state[param]["momentum_buffer"] = None
            index += len(numbers)
        return {"state": state, "param_groups": groups}


def from_torch_state_dict(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Load a state that ``state_dict()`` of ``torch.optim`` returned, and continue from it.

    The optimizer must have the rule of the same name, the same number of parameters with the same
    shapes in the same groups, and options (such as ``amsgrad``) with the same states. The
    parameters of a group are matched by name, in any order, if both sides have names: here they
    came in a dict, and torch's group has ``param_names``. Otherwise they are matched by their
    order.

    Tensors are read through NumPy, on the CPU; torch is not imported. Hyperparameters are loaded,
    except where the optimizer has a schedule. The step count becomes the largest step count of the
    parameters (torch's SGD and Muon count no steps: there the step count stays as it is, and so a
    schedule begins anew; `instep.schedules.Shifted` moves it). If a state is
    narrower here, torch's numbers are rounded to nearest, also to codes of 8 bits. Remainders
    (``master_bits``) become 0.

    Parameters
    ----------
    optimizer : Optimizer
        Of any rule; `Momentum` is torch's SGD. Its parameters stay as they are: copy the weights
        yourself.
    state_dict : dict
        With ``state`` and ``param_groups``; it may hold tensors or arrays.

    Raises
    ------
    TypeError, ValueError
        If anything doesn't fit, such as names, or numbers beyond the range of a narrower state;
        nothing has changed then.
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
    groups, state = parts(state_dict)
    with optimizer._plan:  # no step on another thread meanwhile
        torchs = _in_torch(type(optimizer))
        counts_steps = torchs.counts_steps
        _require_none_accumulated(optimizer)
        by_group, numbers = _read_groups(optimizer, groups)
        known = set(numbers.values())
        if len(known) < len(numbers):
            raise ValueError(
                "each parameter in the groups of torch's state must be there once, got one twice"
            )
        if unknown := [param for param in state if param not in known]:
            raise ValueError(
                f"a key of 'state' of torch's state must be one of the groups' parameters "
                f"{listed(known)}, got {listed(unknown)}"
            )
        arrays, steps, all_states = {}, {}, optimizer.state
        for group, its_values in zip(optimizer.param_groups, by_group, strict=True):
            for name in group.names:
                states = all_states[name]
                keys = state_names(states)
                entry = Entry(name, state.get(numbers[name]), keys, counts_steps=counts_steps)
                entry.require_whole()
                values = {key: entry.values(key, np.shape(states[key])) for key in keys}
                steps[name] = entry.steps()
                if not steps[name]:  # here the states start at zero, and the rule knows the rest
                    for key, start in torchs.starts.items():
                        entry.require_start(key, values[key], start, its_values.settings[start])
                        values[key] = None
                arrays[name] = _stored(optimizer, name, values)

        whole = {
            "schema": SCHEMA,
            "steps": steps,
            "state": arrays,
            "averages": optimizer.averages,
            "accumulated": {},
        }
        count = max(steps.values()) if counts_steps else optimizer.step_count
        new = optimizer._checked_values(by_group, optimizer.clip_norm, optimizer.ema_decay)
        take_over(optimizer, new, (count, optimizer.skipped_steps), whole)


def _stored(
    optimizer: Optimizer, name: str, values: Mapping[str, np.ndarray[Any, Any] | None]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return torch's numbers of a parameter as the optimizer stores them; None stands for zeros."""
    mine, kinds = optimizer.state[name], kinds_of(optimizer._rule)
    found: dict[str, np.ndarray[Any, Any]] = {}
    wide = is_wide(optimizer.params[name])
    for key, numbers in values.items():
        who = f"torch's {key} of '{name}'"
        if numbers is not None:
            found |= stored_as(who, numbers, mine, key, kinds.get(key), wide=wide)
            continue
        for own in (key, key + UNIT):
            if own in mine:
                found[own] = np.zeros(mine[own].shape, mine[own].dtype)
    return found


def _require_none_accumulated(optimizer: Optimizer) -> None:
    if optimizer.accumulated:
        raise ValueError(
            f"the accumulated gradients must be none, got {listed(optimizer.accumulated)}; step first"
        )


def _read_groups(
    optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]
) -> tuple[list[GroupValues], dict[str, Any]]:
    """Return hyperparameters by group, and torch's numbers of the parameters by name."""
    rule = type(optimizer)
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(
            f"torch's state must have {len(optimizer.param_groups)} parameter groups, got {len(groups)}"
        )
    by_group: list[GroupValues] = []
    numbers: dict[str, Any] = {}
    for k, (mine, theirs) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        who = f"group {k} of torch's state"
        _require_torchs(rule, mine)
        _require_rule(rule, who, theirs)
        numbers.update(params_by_name(who, theirs, mine.names, named=_is_named(mine)))
        torchs = _in_torch(rule)
        names = {name: torchs.name_of(name) for name in torchs.hyperparameters}
        taken = {
            name: _taken(rule, name, f"{known} of {who}", theirs[known])
            for name, known in names.items()
            if known in theirs and not _scheduled(mine[name])
        }
        by_group.append(mine._checked_values({**mine._settings, **taken}))
    return by_group, numbers


def _taken(rule: type[Optimizer], name: str, who: str, value: Any) -> Any:
    """Return a hyperparameter of torch's as the optimizer takes it."""
    known = rule._hyperparameters[name]
    if isinstance(known, OneOf):
        return _in_torch(rule).none_is[name] if value is None else word(who, value, known.words)
    if isinstance(known, Flag):
        return flag(who, value)
    found = number(who, value)
    return int(found) if isinstance(known, Count) and found.is_integer() else found


def _in_torch(rule: type[Optimizer]) -> InTorch:
    """Return the `InTorch` of the class that names the rule; a base class may have another rule."""
    said: Mapping[str, Any] = next(
        (vars(cls) for cls in rule.__mro__ if cls.__name__ == rule._rule_name), {}
    )
    found = said.get("_torch")
    if isinstance(found, InTorch):
        return found
    why = "" if "_torch" in said else f"; describe torch's form in {rule.__name__}._torch"
    raise ValueError(
        f"the rule must be one that torch has, {', '.join(sorted(_rules_of_torch()))}, got "
        f"{rule.__name__!r}{why}"
    )


def _rules_of_torch() -> dict[str, InTorch]:
    found = {name: vars(getattr(rules, name)).get("_torch") for name in rules.__all__}
    return {name: torchs for name, torchs in found.items() if isinstance(torchs, InTorch)}


def _require_rule(rule: type[Optimizer], who: str, group: Mapping[str, Any]) -> None:
    """Raise ValueError if a group of torch's says that it is of another rule."""
    mine, all_of_them = _in_torch(rule), _rules_of_torch()
    others = {name for torchs in all_of_them.values() for name in torchs.hyperparameters}
    others -= {*mine.hyperparameters, DECOUPLED_WEIGHT_DECAY}
    strange = sorted(others & set(group))
    if strange and not set(mine.known_by) & set(group):
        raise ValueError(
            f"the hyperparameters of {who} must be those of torch's {rule.__name__}, got {listed(strange)}"
        )
    name = DECOUPLED_WEIGHT_DECAY  # newer torch says so of every rule like Adam
    if name in mine.hyperparameters or group.get(name) is None:
        return
    decoupled = flag(f"{name} of {who}", group[name])
    if decoupled != mine.own.get(name, False):
        other = "AdamW" if decoupled else "Adam"
        raise ValueError(f"{who} must be of torch's {rule.__name__}, got {other}'s by {name}")


def _require_torchs(rule: type[Optimizer], group: Mapping[str, Any]) -> None:
    for name in _in_torch(rule).hyperparameters:
        if group[name] is None:
            raise ValueError(f"{name} must be a number, as in torch's {rule.__name__}, got None")
    for name, value in {**_ABSENT, **_in_torch(rule).absent}.items():
        if group[name] != value:
            raise ValueError(
                f"{name} must be {value!r}, as torch's {rule.__name__} has none, got {shown(group[name])}"
            )


def _is_root(rule: type[Optimizer], key: str) -> bool:
    return bool(kinds_of(rule._rule).get(key, {}).get("root"))


def _torchs(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy; bfloat16, which torch.from_numpy refuses, becomes float32, which holds it exactly."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array.copy()


def _now(value: Any, step: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_now(part, step) for part in value)
    return _core.in_default_environment(value, step) if callable(value) else value


def _is_named(group: Mapping[str, Any]) -> bool:
    """Tell whether a group's parameters have names of the caller; in a sequence, a name is only the place."""
    return isinstance(group["params"], Mapping)


def _scheduled(value: Any) -> bool:
    return any(map(callable, value)) if isinstance(value, tuple) else callable(value)
