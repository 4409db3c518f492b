"""The containers that parameters come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from instep._support.wording import described, listed
from instep.optimizers.tree import (
    Node,
    decoded,
    encoded,
    filled,
    is_plain,
    leaves,
    match,
    take_down,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "FORMATS",
    "GRADIENTS",
    "Accumulated",
    "Array",
    "Container",
    "Copies",
    "Gradients",
    "NamedParameters",
    "Params",
    "match_copies",
    "name_group",
    "name_parameters",
    "packed",
    "replaced",
    "unpacked",
]

# Each union has one kind of sequence, so that type checkers infer the type of a list display from it. Two mappings are
# needed: a mapping with keys of str or int accepts neither a dict of str nor a dict of int.
Array: TypeAlias = "npt.NDArray[Any]"
Container: TypeAlias = (
    "Array | Sequence[Container | None]"
    " | Mapping[str, Container | None] | Mapping[int, Container | None]"
)
#: Arrays in any nesting of dicts, lists and tuples, or a list of group dicts. None is a place without a parameter.
Params: TypeAlias = (
    "Array | Sequence[Params | Mapping[str, Any] | None]"
    " | Mapping[str, Container | None] | Mapping[int, Container | None]"
)
#: The same nesting with gradients; with None, the parameter, or all parameters below, stay as they
#: are.
Gradients: TypeAlias = (
    "Gradient | Sequence[Gradients] | Mapping[str, Gradients] | Mapping[int, Gradients]"
)
Gradient: TypeAlias = "Array | float | np.floating[Any] | None"
#: The same nesting with arrays for copies of the parameters; None for a parameter, or all parameters below, without a
#: copy.
Copies: TypeAlias = "Array | Sequence[Copies] | Mapping[str, Copies] | Mapping[int, Copies] | None"


class Accumulated(Enum):
    """Stands for the accumulated gradients if a step gets no gradients."""

    GRADIENTS = "accumulated gradients"

    def __repr__(self) -> str:  # as signatures show it
        return f"<{self.value}>"


GRADIENTS = Accumulated.GRADIENTS  # a look-up of an enum's member would slow down small steps


#: Entries of a group's dict that are fixed when the group is made, and so are no hyperparameters.
FORMATS = ("state_dtype",)


class NamedParameters(NamedTuple):
    """The parameters of one group, with the names they go by in errors and states."""

    given: Container  # the caller's own container, which may change
    container: Container  # a container like it, with the arrays as they were given
    tree: Node
    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    settings: dict[str, Any]  # the hyperparameters in the group's dict
    formats: dict[str, Any]  # what else is there: a state_dtype of the group's own, or nothing


def packed(group: NamedParameters, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts from which `unpacked` makes the group again, for pickles and copies.

    Each array is there only once, since joblib writes an array anew each time. If the caller's
    container holds exactly the arrays that are stepped, only the container has them. So a model
    that is stored with its optimizer has the optimizer's arrays again, also with joblib.
    """
    return {
        "given": group.given,
        "tree": encoded(group.tree),
        "names": group.names,
        "arrays": None if _holds_all(group) else group.arrays,
        "settings": dict(settings),
        "formats": group.formats,
    }


def _holds_all(group: NamedParameters) -> bool:
    """Tell whether the caller's container is one of Python's own, and holds exactly the arrays that are stepped.

    Only plain arrays: another object may lead back to the optimizer, before the container is
    complete.
    """
    if not is_plain(group.tree, group.given):
        return False
    held = list(leaves(group.tree, group.given))
    return all(map(is_, held, group.arrays)) and all(type(array) is np.ndarray for array in held)


def unpacked(parts: Mapping[str, Any]) -> NamedParameters:
    """Return the group from its `packed` parts."""
    given, names, arrays = parts["given"], parts["names"], parts["arrays"]
    tree = decoded(parts["tree"])
    held = tuple(leaves(tree, given)) if arrays is None else tuple(arrays)
    container = filled(tree, iter(held))
    return NamedParameters(given, container, tree, names, held, parts["settings"], parts["formats"])


def name_parameters(params: Params) -> tuple[bool, list[NamedParameters]]:
    """Return whether params is a list of groups, and the groups (otherwise one group)."""
    grouped = _are_groups(params)
    groups: list[NamedParameters] = []
    taken: set[str] = set()
    entries: Any = params if grouped else [{"params": params}]
    for index, entry in enumerate(entries):
        who = f"params of group {index}" if grouped else "params"
        groups.append(_named(entry, who, index, taken))
        taken.update(groups[-1].names)
    return grouped, groups


def name_group(group: Any, others: Sequence[NamedParameters]) -> NamedParameters:
    """Return a new group for an optimizer that has other groups."""
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(_no_group("param_group", group))
    taken = {name for other in others for name in other.names}
    return _named(group, f"params of group {len(others)}", len(others), taken)


def _named(group: Mapping[str, Any], who: str, index: int, taken: set[str]) -> NamedParameters:
    settings = dict(group)
    container = settings.pop("params")
    formats = {name: settings.pop(name) for name in FORMATS if name in settings}
    tree, names, arrays = take_down(container, who, first=len(taken))
    if not arrays:
        raise ValueError(f"{who} must have at least one array, got none")
    # The number of the group goes before all of its names, so that they stay together.
    while not taken.isdisjoint(names):
        names = [f"{index}.{name}" for name in names]
    again = filled(tree, iter(arrays))
    return NamedParameters(container, again, tree, tuple(names), tuple(arrays), settings, formats)


def _are_groups(params: Any) -> bool:
    """Tell whether params is a list of groups, each a dict with "params", rather than a container."""
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = [key for key in params if key != "params"]
        if all(_is_number(params[key]) for key in others):
            raise TypeError(
                f"params must be a list of groups, got a group's dict with {listed(others)} beside "
                "'params'; pass [{'params': ...}]"
            )
    if not isinstance(params, (list, tuple)) or len(params) == 0:
        return False
    groups = [isinstance(entry, Mapping) and "params" in entry for entry in params]
    misspelt = [isinstance(entry, Mapping) and _has_rate(entry) for entry in params]
    if (any(groups) or any(misspelt)) and not all(groups):
        k = groups.index(False)
        raise ValueError(_no_group(f"group {k}", params[k]))
    return all(groups)


def _has_rate(entry: Mapping[Any, Any]) -> bool:
    """Tell whether a dict is meant as a group, though it has no "params": it has a learning rate."""
    return "lr" in entry and _is_number(entry["lr"])


def _no_group(who: str, value: Any) -> str:
    found = described(value)
    if isinstance(value, Mapping):
        found = f"a dict with the keys {listed(value)}" if value else "an empty dict"
    return f"{who} must be a dict with 'params' among its keys, got {found}"


def _is_number(value: Any) -> bool:
    """Tell whether a value is a hyperparameter rather than arrays: a number, a schedule or a pair of these."""
    if isinstance(value, tuple):
        return len(value) > 0 and all(map(_is_number, value))
    return isinstance(value, (int, float)) or callable(value)


def replaced(group: NamedParameters) -> str | None:
    """Return the name of a parameter that is another array in the caller's container.

    None if there is no such parameter. Only dicts, lists and tuples are searched.
    """
    if isinstance(group.given, np.ndarray):
        return None
    for name, array, mine in zip(
        group.names, leaves(group.tree, group.given), group.arrays, strict=True
    ):
        if array is not mine and isinstance(array, np.ndarray) and not _same_memory(array, mine):
            return name
    return None


def _same_memory(a: Array, b: Array) -> bool:
    """Tell whether two arrays are views of the very same elements."""
    a, b = np.asarray(a), np.asarray(b)  # whatever a subclass says of itself
    first, second = (x.__array_interface__["data"][0] for x in (a, b))
    return (first, a.shape, a.strides) == (second, b.shape, b.strides)


def match_copies(
    copies: Copies | None, groups: list[NamedParameters], grouped: bool
) -> list[tuple[Array | None, ...]]:
    """Return for each group the arrays for its parameters' copies, None for a parameter without a copy."""
    if copies is None:
        return [(None,) * len(group.names) for group in groups]
    if not grouped:
        return [tuple(match(groups[0].tree, copies, "copy_to"))]
    if not isinstance(copies, (list, tuple)) or len(copies) != len(groups):
        raise ValueError(
            f"copy_to must be a list of {len(groups)}, with an entry for each parameter group, "
            f"got {described(copies)}"
        )
    return [
        tuple(match(group.tree, entry, f"copy_to[{k}]"))
        for k, (entry, group) in enumerate(zip(copies, groups, strict=True))
    ]
