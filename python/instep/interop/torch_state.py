"""What ``torch.optim``'s ``state_dict()`` says, read with care: every error names the place.

torch is not imported: tensors are read through NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from instep._support.wording import difference, kind, listed, shown
from instep.optimizers.state import require_unmasked

__all__ = ["Entry", "flag", "number", "params_of", "parts"]

_MOMENTUM = "momentum_buffer"


def parts(state_dict: Any) -> tuple[Sequence[Mapping[str, Any]], Mapping[Any, Any]]:
    """Return the groups and the states by parameter, or raise TypeError or ValueError."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"torch's state is {kind(state_dict)}; a dict is wanted")
    if "schema" in state_dict:
        raise ValueError(
            "torch's state has the key 'schema': it is instep's own, which load_state_dict takes"
        )
    if not {"param_groups", "state"} <= set(state_dict):
        has = f"the keys {listed(state_dict)}" if state_dict else "no keys"
        raise ValueError(f"torch's state has {has}; 'state' and 'param_groups' are wanted")
    groups, state = state_dict["param_groups"], state_dict["state"]
    if not isinstance(state, Mapping):
        raise TypeError(f"'state' of torch's state is {kind(state)}; a dict is wanted")
    if not isinstance(groups, (list, tuple)):
        raise TypeError(f"'param_groups' of torch's state is {kind(groups)}; a list is wanted")
    for k, group in enumerate(groups):
        if not isinstance(group, Mapping):
            raise TypeError(f"group {k} of torch's state is {kind(group)}; a dict is wanted")
    return groups, state


def params_of(who: str, group: Mapping[str, Any], wanted: int) -> Sequence[Any]:
    """Return the numbers of a group's parameters, so many."""
    params = group.get("params")
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"'params' of {who} is {kind(params)}; a list is wanted")
    if len(params) != wanted:
        raise ValueError(f"{who} has {len(params)} parameters; {wanted} are wanted")
    for param in params:
        if isinstance(param, bool) or not isinstance(param, (int, str)):
            raise TypeError(f"a parameter of {who} is {kind(param)}; its number is wanted")
    return params


def number(who: str, value: Any) -> Any:
    """Return a hyperparameter, which torch may keep as a tensor."""
    if isinstance(value, (tuple, list)):
        return tuple(_scalar(who, part) for part in value)
    return _scalar(who, value)


def flag(who: str, value: Any) -> bool:
    """Return an option, for which torch takes 0 and 1 too."""
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise TypeError(f"{who} is {shown(value)}; True or False is wanted")
    return bool(value)


def _scalar(who: str, value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(_detached(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{who} is {shown(value)}; a number is wanted") from None


def _detached(value: Any) -> Any:
    """A tensor that NumPy can read: none that takes part in autograd, and none of bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach()
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value


class Entry:
    """What is stored of one parameter; torch has nothing of one that no step has moved.

    Parameters
    ----------
    name : str
        The parameter's, for errors.
    found : mapping or None
        States by name and, but for SGD, ``step``.
    states : collection of str
        Which are wanted.
    counts_steps : bool
        Whether torch's rule counts a parameter's steps.
    """

    def __init__(
        self, name: str, found: Any, states: Collection[str], *, counts_steps: bool
    ) -> None:
        self._name = name
        if found is not None and not isinstance(found, Mapping):
            raise TypeError(f"torch's state of '{name}' is {kind(found)}; a dict is wanted")
        self._found: Mapping[str, Any] = found or {}
        self._states = set(states)
        self._counts_steps = counts_steps

    def require_whole(self) -> None:
        """Raise ValueError unless all that is wanted is there, and no more.

        SGD's momentum begins with a parameter's first step: until then it is None, or missing.
        """
        if not self._found:
            return
        there = {key for key, value in self._found.items() if value is not None}
        wanted = self._states | ({"step"} if self._counts_steps else set())
        optional = set() if self._counts_steps else {_MOMENTUM}
        if there - wanted or wanted - there - optional:
            raise ValueError(
                f"torch's state of '{self._name}' doesn't fit the rule and its options; "
                f"{difference(sorted(there, key=str), sorted(wanted))}"
            )

    def steps(self) -> int:
        """Return how often the parameter has been stepped."""
        if not self._counts_steps:
            return int(self._found.get(_MOMENTUM) is not None)  # SGD tells but the first
        step = _scalar(f"torch's step of '{self._name}'", self._found.get("step", 0.0))
        if not (0 <= step <= 2**53 and step.is_integer()):
            raise ValueError(
                f"torch's step of '{self._name}' is {step}; a count of steps is wanted"
            )
        return int(step)

    def array(self, key: str, wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a state as an array like the one that is wanted; zeros where there is none."""
        found = self._found.get(key)
        if found is None:
            return np.zeros_like(wanted)
        who = f"torch's {key} of '{self._name}'"
        require_unmasked(who, found)
        try:
            array = np.asarray(_detached(found))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{who} can't be read as a NumPy array: {error}") from None
        if array.shape != wanted.shape:
            raise ValueError(f"{who} has shape {array.shape}; {wanted.shape} is wanted")
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise TypeError(f"{who} has dtype {array.dtype}; real numbers are wanted")
        return array.astype(wanted.dtype)
