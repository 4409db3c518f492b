"""The containers that parameters come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from instep._support.wording import difference, kind, listed

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "GRADIENTS",
    "Accumulated",
    "Array",
    "Container",
    "Copies",
    "Gradients",
    "NamedParameters",
    "Params",
    "match_copies",
    "name_parameters",
    "packed",
    "replaced",
    "unpacked",
]

# One kind of sequence in each union: type checkers then read a list display in the light of it.
Array: TypeAlias = "npt.NDArray[Any]"
Container: TypeAlias = "Array | Sequence[Array] | Mapping[str, Array]"
#: One array, a list or tuple of arrays, a dict name -> array, or a list of group dicts.
Params: TypeAlias = "Array | Sequence[Array | Mapping[str, Any]] | Mapping[str, Array]"
#: The same container with gradients; None for one leaves its parameter alone.
Gradients: TypeAlias = "Gradient | Sequence[Gradients] | Mapping[str, Gradient]"
Gradient: TypeAlias = "Array | float | np.floating[Any] | None"
#: The same container with arrays that the parameters are copied to; None for one without.
Copies: TypeAlias = "Array | Sequence[Copies] | Mapping[str, Array | None] | None"


class Accumulated(Enum):
    """Stands for the gradients that have been accumulated, where step is given none."""

    GRADIENTS = "accumulated gradients"

    def __repr__(self) -> str:  # as signatures show it
        return f"<{self.value}>"


GRADIENTS = Accumulated.GRADIENTS  # an enum's member costs a look-up that a step can feel


class NamedParameters(NamedTuple):
    """The parameters of one group, with the names they go by in errors and states."""

    given: Container  # the caller's own, which may change
    container: Container  # one like it, of the arrays as they were given
    kind: str  # "array", "sequence" or "mapping"
    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    settings: dict[str, Any]  # what the group says besides its parameters


def packed(group: NamedParameters, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `unpacked` makes the group of again, for pickles and copies.

    Each array stands there once: joblib writes one anew for each time. Where the caller's container
    holds just the arrays that are stepped they are left to it, so that a model stored beside its
    optimizer has the optimizer's arrays again, by joblib too.
    """
    given: Any = group.given
    kinds = {dict: "mapping", list: "sequence", tuple: "sequence", np.ndarray: "array"}
    if kinds.get(type(given)) == group.kind:
        held = tuple(given.values()) if isinstance(given, dict) else given
        names = tuple(given) if isinstance(given, dict) else group.names
        held = (held,) if group.kind == "array" else tuple(held)
        same = len(held) == len(group.arrays) and all(map(is_, held, group.arrays))
        # No plain array leads back to an optimizer, which would ask a container for what is to come.
        whole = same and names == group.names and all(type(a) is np.ndarray for a in held)
    else:
        whole = False
    return {
        "given": given,
        "kind": group.kind,
        "names": group.names,
        "arrays": None if whole else group.arrays,
        "is_tuple": isinstance(group.container, tuple),
        "settings": dict(settings),
    }


def unpacked(parts: Mapping[str, Any]) -> NamedParameters:
    """Return the group that `packed` was given."""
    given, form, names, arrays = (parts[name] for name in ("given", "kind", "names", "arrays"))
    if arrays is None:
        held = given.values() if form == "mapping" else (given,) if form == "array" else given
        arrays = tuple(held)
    own: Any
    if form == "mapping":
        own = dict(zip(names, arrays, strict=True))
    elif form == "array":
        (own,) = arrays
    else:
        own = tuple(arrays) if parts["is_tuple"] else list(arrays)
    return NamedParameters(given, own, form, names, tuple(arrays), parts["settings"])


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
                f"group {index} has the keys {listed(settings)}; "
                "a dict with 'params' among its keys is wanted"
            )
        container = settings.pop("params")
        who = f"params of group {index}" if grouped else "params"
        group = _name_group(container, who, first=len(taken), settings=settings)
        for name in group.names:
            if name in taken:
                raise ValueError(
                    f"two parameters go by the name {name!r}; names that differ over all groups are wanted"
                )
            taken.add(name)
        groups.append(group)
    return grouped, groups


def _name_group(container: Any, who: str, first: int, settings: dict[str, Any]) -> NamedParameters:
    if isinstance(container, np.ndarray):
        return NamedParameters(container, container, "array", (str(first),), (container,), settings)
    if isinstance(container, Mapping):
        if isinstance(container.get("params"), (list, tuple, Mapping)):
            raise TypeError(
                f"{who} is a group's dict, with 'params' in it; groups come in a list, such as [{{'params': ...}}]"
            )
        for key in container:
            if not isinstance(key, str):
                raise TypeError(f"a parameter's name is {key!r}; a str is wanted")
            _require_unicode(key)
        own: Any = dict(container)
        form, names, arrays = "mapping", tuple(own), tuple(own.values())
    elif isinstance(container, (list, tuple)):
        own = tuple(container) if isinstance(container, tuple) else list(container)
        form, arrays = "sequence", tuple(own)
        names = tuple(str(first + i) for i in range(len(arrays)))
    else:
        raise TypeError(
            f"{who} is {kind(container)}; a NumPy array, a list or tuple of arrays, "
            "a dict name -> array or a list of group dicts is wanted"
        )
    if not arrays:
        raise ValueError(f"{who} is empty; at least one array is wanted")
    return NamedParameters(container, own, form, names, arrays, settings)


def replaced(group: NamedParameters) -> str | None:
    """Return the name of a parameter in whose place the caller's container has another array.

    None where there is no such name. Only a dict and a list can tell.
    """
    given: Any = group.given
    if isinstance(given, dict):
        found: Any = ((name, dict.get(given, name)) for name in group.names)
    elif isinstance(given, list):
        found = zip(group.names, list.__iter__(given), strict=False)
    else:
        return None
    for (name, array), mine in zip(found, group.arrays, strict=False):
        if array is not mine and isinstance(array, np.ndarray) and not _same_memory(array, mine):
            return str(name)
    return None


def _same_memory(a: Array, b: Array) -> bool:
    """Tell whether two arrays are views of the very same elements."""
    a, b = np.asarray(a), np.asarray(b)  # whatever a subclass says of itself
    first, second = (x.__array_interface__["data"][0] for x in (a, b))
    return (first, a.shape, a.strides) == (second, b.shape, b.strides)


def _require_unicode(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a pair of surrogates, of which the core can make no text
        raise ValueError(
            f"a parameter's name is {name!r}, which UTF-8 can't encode; one that it can is wanted"
        ) from None


def match_copies(
    copies: Copies | None, groups: list[NamedParameters], grouped: bool
) -> list[tuple[Array | None, ...]]:
    """Return for each group the arrays its parameters are copied to, None where there is none."""
    if copies is None:
        return [(None,) * len(group.names) for group in groups]
    if not grouped:
        return [_match_group(copies, groups[0], "copy_to")]
    if not isinstance(copies, (list, tuple)) or len(copies) != len(groups):
        raise ValueError(
            f"copy_to is {_described(copies)}; a list with an entry for each of the "
            f"{len(groups)} parameter groups is wanted"
        )
    return [
        _match_group(entry, group, f"copy_to[{k}]")
        for k, (entry, group) in enumerate(zip(copies, groups, strict=True))
    ]


def _match_group(copies: Any, group: NamedParameters, who: str) -> tuple[Array | None, ...]:
    if copies is None:
        return (None,) * len(group.names)
    if group.kind == "array":
        return (copies,)
    if group.kind == "mapping":
        if not isinstance(copies, Mapping):
            raise ValueError(f"{who} is {kind(copies)}; a dict with the parameters' keys is wanted")
        if copies.keys() != set(group.names):
            raise ValueError(
                f"{who} must have the parameters' keys (None for one without a copy); "
                f"{difference(copies, group.names)}"
            )
        return tuple(copies[name] for name in group.names)
    if not isinstance(copies, (list, tuple)) or len(copies) != len(group.names):
        raise ValueError(
            f"{who} is {_described(copies)}; a list or tuple of {len(group.names)} is wanted, "
            "one for each parameter (None for one without a copy)"
        )
    return tuple(copies)


def _described(container: Any) -> str:
    size = f" of {len(container)}" if isinstance(container, (list, tuple)) else ""
    return kind(container) + size
