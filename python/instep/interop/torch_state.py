"""Reads the result of ``state_dict()`` of ``torch.optim``, with care: every error names the place.

torch is not imported: tensors are read through NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from instep._support.checks import mapping
from instep._support.wording import difference, kind, listed, shown
from instep.optimizers.hyperparameters import Number
from instep.optimizers.stored_arrays import require_unmasked

__all__ = ["Entry", "flag", "number", "params_by_name", "parts"]

_MOMENTUM = "momentum_buffer"


def parts(state_dict: Any) -> tuple[Sequence[Mapping[str, Any]], Mapping[Any, Any]]:
    """Return the groups and the states by parameter, or raise TypeError or ValueError."""
    mapping("torch's state", state_dict)
    if "schema" in state_dict:
        raise ValueError(
            "torch's state must have no key 'schema', got a state of instep's own; pass it to "
            "load_state_dict"
        )
    if not {"param_groups", "state"} <= set(state_dict):
        has = f"the keys {listed(state_dict)}" if state_dict else "no keys"
        raise ValueError(f"torch's state must have the keys 'state' and 'param_groups', got {has}")
    groups, state = state_dict["param_groups"], state_dict["state"]
    mapping("'state' of torch's state", state)
    if not isinstance(groups, (list, tuple)):
        raise TypeError(f"'param_groups' of torch's state must be a list, got {kind(groups)}")
    for k, group in enumerate(groups):
        mapping(f"group {k} of torch's state", group)
    for param in state:
        _require_number_of_param("a key of 'state' of torch's state", param)
    return groups, state


def params_by_name(
    who: str, group: Mapping[str, Any], names: Sequence[str], *, named: bool
) -> dict[str, Any]:
    """Return torch's numbers of a group's parameters, by the parameters' names in instep.

    They are matched by ``param_names`` if the parameters are `named` in instep, too; otherwise by
    their order. torch has ``param_names`` from 2.6 on, if the optimizer was made with names.
    """
    params = _params_of(who, group, len(names))
    theirs = group.get("param_names")
    if theirs is None:
        return dict(zip(names, params, strict=True))
    if not isinstance(theirs, (list, tuple)) or not all(isinstance(name, str) for name in theirs):
        raise TypeError(f"'param_names' of {who} must be a list of str, got {kind(theirs)}")
    if len(theirs) != len(params) or len(set(theirs)) < len(theirs):
        raise ValueError(
            f"'param_names' of {who} must have a name for each of {len(params)} parameters, got "
            f"{len(set(theirs))} names"
        )
    if not named:
        return dict(zip(names, params, strict=True))
    if set(theirs) != set(names):
        raise ValueError(
            f"'param_names' of {who} must be the names of the optimizer's parameters; "
            f"{difference(theirs, names)} (without 'param_names' they go by their order)"
        )
    numbers = dict(zip(theirs, params, strict=True))
    return {name: numbers[name] for name in names}


def _params_of(who: str, group: Mapping[str, Any], count: int) -> Sequence[Any]:
    """Return the numbers of a group's parameters; raise ValueError unless there are `count`."""
    params = group.get("params")
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"'params' of {who} must be a list, got {kind(params)}")
    if len(params) != count:
        raise ValueError(f"{who} must have {count} parameters, got {len(params)}")
    for param in params:
        _require_number_of_param(f"a parameter of {who}", param)
    return params


def _require_number_of_param(who: str, param: object) -> None:
    """Raise TypeError for any key that torch doesn't write, also for True and 1.0, which equal 1."""
    if isinstance(param, bool) or not isinstance(param, (int, str)):
        raise TypeError(f"{who} must be its number, got {kind(param)}")


def number(who: str, value: Any) -> Any:
    """Return a hyperparameter as a number or a tuple of numbers; torch may keep it as a tensor."""
    if isinstance(value, (tuple, list)):
        return tuple(_scalar(who, part) for part in value)
    return _scalar(who, value)


def flag(who: str, value: Any) -> bool:
    """Return an option as a bool; torch takes 0 and 1, too."""
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise TypeError(f"{who} must be True or False, got {shown(value)}")
    return bool(value)


def _scalar(who: str, value: Any) -> float:
    try:
        if isinstance(value, (list, tuple)):
            raise TypeError
        found = np.asarray(_detached(value))
        if found.dtype.kind not in "fiu" or found.size != 1:  # not a text, nor True or False
            raise TypeError
        return float(found.item())
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{who} must be a number, got {shown(value)}") from None


def _detached(value: Any) -> Any:
    """Return a tensor that NumPy can read: outside of autograd, and not of bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach()
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value


class Entry:
    """The stored state of one parameter; torch has no state for a parameter before its first step.

    Parameters
    ----------
    name : str
        The parameter's name, for errors.
    found : mapping or None
        States by name and, but for SGD, ``step``.
    states : collection of str
        The names of the states that the rule has.
    counts_steps : bool
        Whether torch's rule counts a parameter's steps.
    """

    def __init__(
        self, name: str, found: Any, states: Collection[str], *, counts_steps: bool
    ) -> None:
        self._name = name
        self._found = {} if found is None else mapping(f"torch's state of '{name}'", found)
        self._states = set(states)
        self._counts_steps = counts_steps

    def require_whole(self) -> None:
        """Raise ValueError unless exactly the states of the rule are there.

        The momentum of SGD begins with a parameter's first step: until then it is None, or missing.
        """
        if not self._found:
            return
        there = {key for key, value in self._found.items() if value is not None}
        expected = self._states | ({"step"} if self._counts_steps else set())
        optional = set() if self._counts_steps else {_MOMENTUM}
        if there - expected or expected - there - optional:
            raise ValueError(
                f"torch's state of '{self._name}' must have the states of the rule and its options; "
                f"{difference(sorted(there, key=str), sorted(expected))}"
            )

    def steps(self) -> int:
        """Return how often the parameter has been stepped."""
        if not self._counts_steps:
            return int(self._found.get(_MOMENTUM) is not None)  # SGD counts only the first
        step = _scalar(f"torch's step of '{self._name}'", self._found.get("step", 0.0))
        if not (0 <= step <= 2**53 and step.is_integer()):
            raise ValueError(f"torch's step of '{self._name}' must be a count of steps, got {step}")
        return int(step)

    def values(self, key: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
        """Return a state's numbers as torch has them; None if it has no such state."""
        found = self._found.get(key)
        if found is None:
            return None
        who = f"torch's {key} of '{self._name}'"
        require_unmasked(who, found)
        try:
            array = np.asarray(_detached(found))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{who} must be readable as a NumPy array, got {kind(found)}: {error}"
            ) from None
        if array.shape != shape:
            raise ValueError(f"{who} must have shape {shape}, got {array.shape}")
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise TypeError(f"{who} must have a dtype of real numbers, got {array.dtype}")
        return array

    def require_start(
        self, key: str, values: np.ndarray[Any, Any] | None, name: str, value: Number
    ) -> None:
        """Raise ValueError if a state before the first step isn't full of the hyperparameter of this name."""
        if values is None or callable(value):
            return
        # torch may have rounded it, to bfloat16 at worst.
        if not np.isclose(values.astype(np.float64), value, rtol=2.0**-8, atol=0.0).all():
            raise ValueError(
                f"torch's {key} of '{self._name}' must be {name}, {value}, before the first step, got "
                "other numbers"
            )
