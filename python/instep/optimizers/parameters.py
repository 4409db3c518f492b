"""The containers that parameters come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Gradients", "NamedParameters", "Params", "name_parameters"]

Array: TypeAlias = npt.NDArray[Any]
Container: TypeAlias = "Array | Sequence[Array] | Mapping[str, Array]"
#: One array, a list or tuple of arrays, a dict name -> array, or a list of group dicts.
Params: TypeAlias = "Container | Sequence[Mapping[str, Any]]"
#: The same container with gradients; None for one leaves its parameter alone.
Gradients: TypeAlias = (
    "Array | float | Sequence[Array | float | None] | Mapping[str, Array | None]"
    " | Sequence[Gradients] | None"
)


@dataclass(frozen=True)
class NamedParameters:
    """The parameters of one group, with the names they go by in errors and states."""

    container: Container
    kind: str  # "array", "sequence" or "mapping"
    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # what the group says besides its parameters


def name_parameters(params: Params) -> tuple[bool, list[NamedParameters]]:
    """Return whether params is a list of groups, and the groups (one where it isn't)."""
    grouped = (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(entry, Mapping) for entry in params)
    )
    groups: list[NamedParameters] = []
    taken: set[str] = set()
    for index, entry in enumerate(params if grouped else [{"params": params}]):
        settings = dict(entry)
        if "params" not in settings:
            raise ValueError(
                f"group {index} has the keys {sorted(map(str, settings))}; "
                "a dict with 'params' among its keys is wanted"
            )
        container = settings.pop("params")
        group = _name_group(container, first=len(taken), settings=settings)
        for name in group.names:
            if name in taken:
                raise ValueError(
                    f"two parameters go by the name {name!r}; names that differ over all groups are wanted"
                )
            taken.add(name)
        groups.append(group)
    return grouped, groups


def _name_group(container: Any, first: int, settings: dict[str, Any]) -> NamedParameters:
    if isinstance(container, np.ndarray):
        return NamedParameters(container, "array", (str(first),), (container,), settings)
    if isinstance(container, Mapping):
        for key in container:
            if not isinstance(key, str):
                raise TypeError(f"a parameter's name is {key!r}; a str is wanted")
        kind, names, arrays = "mapping", tuple(container), tuple(container.values())
    elif isinstance(container, (list, tuple)):
        kind, arrays = "sequence", tuple(container)
        names = tuple(str(first + i) for i in range(len(arrays)))
    else:
        raise TypeError(
            f"params is a {type(container).__name__}; a NumPy array, a list or tuple of arrays, "
            "a dict name -> array or a list of group dicts is wanted"
        )
    if not arrays:
        raise ValueError("params is empty; at least one array is wanted")
    return NamedParameters(container, kind, names, arrays, settings)
