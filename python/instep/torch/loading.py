"""Loads a state into an optimizer: by names where there are names, and with the dtypes that the states have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instep._support.wording import difference
from instep.torch.tensors import torch

__all__ = ["load"]


def load(optimizer: Any, torchs: Callable[[dict[str, Any]], None], state_dict: Any) -> None:
    """Call torch's method, and mend what it does to the states.

    torch casts every state but "step" to the dtype of its parameter, and keeps the other tensors of
    the dict, which the next step would then change.
    """
    given: list[dict[str, Any]] = []

    def last(_: Any, incoming: dict[str, Any]) -> dict[str, Any]:
        incoming = {**incoming, "param_groups": _by_name(optimizer, incoming["param_groups"])}
        given.append(incoming)
        return incoming

    def first(_: Any) -> None:
        _restore(optimizer, given[-1])

    handles = [
        optimizer.register_load_state_dict_pre_hook(last),
        optimizer.register_load_state_dict_post_hook(first, prepend=True),
    ]
    try:
        torchs(state_dict)
    finally:
        for handle in handles:
            handle.remove()


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


def _restore(optimizer: Any, given: dict[str, Any]) -> None:
    """Put copies of the given tensors in place of what torch made of them."""
    copies: dict[int, Any] = {}  # a number that all parameters share stays shared

    def copied(value: Any, parameter: Any) -> Any:
        if id(value) not in copies:
            is_too_wide = (
                value.dtype == torch.float64
                and parameter.dtype != torch.float64
                and value.shape == parameter.shape
                and value.dim() > 0
            )
            dtype = torch.float32 if is_too_wide else value.dtype
            copies[id(value)] = value.detach().to(device="cpu", dtype=dtype, copy=True)
        return copies[id(value)]

    for mine, theirs in zip(optimizer.param_groups, given["param_groups"], strict=True):
        for parameter, number in zip(mine["params"], theirs["params"], strict=True):
            found = given["state"].get(number)
            if not isinstance(found, dict):
                continue
            for key, value in found.items():
                if isinstance(value, torch.Tensor):
                    optimizer.state[parameter][key] = copied(value, parameter)
