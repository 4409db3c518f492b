"""Loads a state into an optimizer: by names where there are names, and with the dtypes that the states have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from instep._support.wording import difference, kind
from instep.optimizers.stored_formats import checked_seed
from instep.torch.tensors import torch

__all__ = ["SEED", "load"]

#: Beside torch's two keys of a state dict, which are all that torch reads.
SEED = "seed"


def load(optimizer: Any, torchs: Callable[[dict[str, Any]], None], state_dict: Any) -> int | None:
    """Call torch's method for the groups, and load the states; return the seed of the dict, if it has one.

    torch casts every state but "step" to the dtype of its parameter, takes a time that grows with the
    square of the number of parameters, and keeps the other tensors of the dict, which the next step
    would then change.
    """
    before = optimizer.state, optimizer.param_groups
    given: list[dict[str, Any]] = []
    seeds: list[int] = []

    def last(_: Any, incoming: dict[str, Any]) -> dict[str, Any]:
        incoming = {**incoming, "param_groups": _by_name(optimizer, incoming["param_groups"])}
        given.append(incoming)
        if SEED in incoming:
            seeds.append(checked_seed(incoming[SEED]))
        # What belongs to no parameter stays with torch.
        mine = {number for group in incoming["param_groups"] for number in group["params"]}
        others = {key: value for key, value in incoming["state"].items() if key not in mine}
        return {**incoming, "state": others}

    def first(_: Any) -> None:
        state = optimizer.state
        for parameter, states in _states(optimizer, given[-1]):
            state[parameter] = states
        # torch's classes take states of older versions there.
        optimizer.__setstate__({"state": state, "param_groups": optimizer.param_groups})

    handles = [
        optimizer.register_load_state_dict_pre_hook(last),
        optimizer.register_load_state_dict_post_hook(first, prepend=True),
    ]
    try:
        torchs(state_dict)
    except BaseException:
        optimizer.state, optimizer.param_groups = before
        raise
    finally:
        for handle in handles:
            handle.remove()
    return seeds[-1] if seeds else None


def _by_name(optimizer: Any, groups: Any) -> list[Any]:
    """Return the groups with their parameters in the optimizer's order, if both have names."""
    ordered = []
    for k, group in enumerate(groups):
        mine = (
            optimizer.param_groups[k].get("param_names")
            if k < len(optimizer.param_groups)
            else None
        )
        theirs = group.get("param_names")
        if mine is None or theirs is None or list(mine) == list(theirs):
            ordered.append(group)
            continue
        if set(mine) != set(theirs) or len(mine) != len(theirs):
            raise ValueError(
                f"'param_names' of group {k} must be the names of the optimizer's parameters; "
                f"{difference(theirs, mine)} (without 'param_names' they go by their order)"
            )
        numbers = dict(zip(theirs, group["params"], strict=True))
        ordered.append(
            {**group, "params": [numbers[name] for name in mine], "param_names": list(mine)}
        )
    return ordered


def _states(optimizer: Any, given: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Go through the parameters that have states in the dict, with copies of the states."""
    copies: dict[int, Any] = {}
    with torch.no_grad():
        for mine, theirs in zip(optimizer.param_groups, given["param_groups"], strict=True):
            for parameter, number in zip(mine["params"], theirs["params"], strict=True):
                if number in given["state"]:
                    states = given["state"][number]
                    if not isinstance(states, dict):
                        raise TypeError(
                            f"the state of parameter {number} must be a dict, got {kind(states)}"
                        )
                    yield parameter, _copied(states, parameter, copies)


# Not inside `_states`: a function that calls itself would keep the tensors until a garbage collection.
def _copied(value: Any, parameter: Any, copies: dict[int, Any]) -> Any:
    """Return a copy of a parameter's state; a tensor that is in `copies`, as parameters may share it, from there."""
    if isinstance(value, dict):
        return {key: _copied(one, parameter, copies) for key, one in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if id(value) not in copies:
        is_too_wide = (
            value.dtype == torch.float64
            and parameter.dtype != torch.float64
            and value.dim() > 0
            and value.shape == parameter.shape
        )
        if is_too_wide or not value.is_cpu:
            dtype = torch.float32 if is_too_wide else value.dtype
            copies[id(value)] = value.to(device="cpu", dtype=dtype, copy=True)
        else:
            copies[id(value)] = value.clone()
    return copies[id(value)]
