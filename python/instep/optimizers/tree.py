"""Nested containers of arrays: dicts, lists and tuples, taken down once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instep._support.reals import is_real
from instep._support.wording import described, difference, kind, shown

__all__ = ["Node", "decoded", "encoded", "filled", "is_plain", "leaves", "match", "take_down"]

_DEEPEST = 200


class Node(NamedTuple):
    """One container in a container, or a leaf: an array, or nothing at all."""

    kind: str  # "array", "nothing", "list", "tuple" or "dict"
    keys: tuple[str | int, ...] = ()  # of a dict
    children: tuple[Node, ...] = ()
    size: int = 0  # arrays in it


_ARRAY = Node("array", size=1)
_NOTHING = Node("nothing")


def take_down(container: Any, who: str, first: int = 0) -> tuple[Node, list[str], list[Any]]:
    """Return the structure of a container, and the names and values of its leaves, in order.

    A name is the path to the leaf, such as "enc.0.w". The entries of a sequence are counted from
    `first` on.

    Raises
    ------
    TypeError, ValueError
        If it has anything else than dicts, lists, tuples and arrays, or if two leaves would have
        the same name.
    """
    names: list[str] = []
    arrays: list[Any] = []

    def visit(value: Any, path: tuple[str, ...], above: tuple[int, ...]) -> Node:
        if value is None and path:
            return _NOTHING
        if isinstance(value, np.ndarray):
            names.append(".".join(path) if path else str(first))
            arrays.append(value)
            return _ARRAY
        if not isinstance(value, (Mapping, list, tuple)):
            raise TypeError(_refusal(value, who, path))
        if id(value) in above:
            raise ValueError(
                f"{_at(who, path)} must be a tree, got {kind(value)} that holds itself"
            )
        if len(above) >= _DEEPEST:
            raise ValueError(f"{who} must be at most {_DEEPEST} containers deep, got more")
        inside = (*above, id(value))
        if isinstance(value, Mapping):
            keys = tuple(value)
            for key in keys:
                _check_key(key, _at(who, path))
            children = tuple(visit(value[key], (*path, str(key)), inside) for key in keys)
            return Node("dict", keys, children, _size(children))
        start = 0 if path else first
        children = tuple(
            visit(child, (*path, str(start + i)), inside) for i, child in enumerate(value)
        )
        return Node("tuple" if isinstance(value, tuple) else "list", (), children, _size(children))

    node = visit(container, (), ())
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(
            f"each parameter in {who} must have its own name, got {twice!r} twice; choose keys "
            "whose paths differ"
        )
    return node, names, arrays


def _size(children: Sequence[Node]) -> int:
    return sum(child.size for child in children)


def _at(who: str, path: tuple[str, ...]) -> str:
    return f"{who} at {'.'.join(path)!r}" if path else who


def _check_key(key: object, where: str) -> None:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise TypeError(f"a key in {where} must be a str or an int, got {shown(key)}")
    try:
        str(key).encode()
    except UnicodeEncodeError:  # half a pair of surrogates, which the core can't encode
        raise ValueError(
            f"a key in {where} must be a text that UTF-8 can encode, got {key!r}"
        ) from None


def _refusal(value: Any, who: str, path: tuple[str, ...]) -> str:
    where = f"parameter {'.'.join(path)!r}" if path else who
    hint = ""
    if hasattr(value, "__next__"):
        hint = "; pass list(...) of it"
    elif hasattr(value, "__dataclass_fields__"):
        hint = "; pass {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}"
    elif hasattr(value, "detach"):
        hint = "; pass tensor.detach().numpy(), which shares its memory"
    elif hasattr(value, "todense"):
        hint = "; pass matrix.data, the array of its elements"
    elif is_real(value):
        hint = "; make np.array(number) of it, and use this array in the model, too"
    elif hasattr(value, "__array__"):
        hint = "; make a copy by np.array(...), and use this array in the model, too"
    expected = "a NumPy array, or a dict, list or tuple of arrays"
    return f"{where} must be {expected}, got {kind(value)}{hint}"


def filled(node: Node, values: Iterator[Any]) -> Any:
    """Return dicts, lists and tuples of this structure, with these leaves."""
    if node.kind == "array":
        return next(values)
    if node.kind == "nothing":
        return None
    children = [filled(child, values) for child in node.children]
    if node.kind == "dict":
        return dict(zip(node.keys, children, strict=True))
    return tuple(children) if node.kind == "tuple" else children


def leaves(node: Node, container: Any) -> Iterator[Any]:
    """Go through the leaves of a container that has, or had, this structure; None for a missing leaf."""
    if node.kind == "array":
        yield container
    elif node.kind == "dict" and isinstance(container, dict):
        for key, child in zip(node.keys, node.children, strict=True):
            yield from leaves(child, dict.get(container, key))
    elif node.kind in ("list", "tuple") and isinstance(container, (list, tuple)):
        held = list(
            tuple.__iter__(container) if isinstance(container, tuple) else list.__iter__(container)
        )
        for i, child in enumerate(node.children):
            yield from leaves(child, held[i] if i < len(held) else None)
    else:
        yield from (None for _ in range(node.size))


def is_plain(node: Node, container: Any) -> bool:
    """Tell whether a container still has this structure, and consists of Python's own dicts, lists and tuples."""
    if node.kind == "array":
        return isinstance(container, np.ndarray)
    if node.kind == "nothing":
        return container is None
    if node.kind == "dict":
        return (
            type(container) is dict
            and tuple(container) == node.keys
            and all(map(is_plain, node.children, container.values()))
        )
    return (
        type(container) is (tuple if node.kind == "tuple" else list)
        and len(container) == len(node.children)
        and all(map(is_plain, node.children, container))
    )


def encoded(node: Node) -> Any:
    """Return the node as tuples and names, the form in pickles and in the core."""
    if node.kind in ("array", "nothing"):
        return node.kind
    return node.kind, node.keys, tuple(map(encoded, node.children))


def decoded(stored: Any) -> Node:
    """Return the node from its `encoded` form."""
    if stored == "array":
        return _ARRAY
    if stored == "nothing":
        return _NOTHING
    kind, keys, children = stored
    nodes = tuple(map(decoded, children))
    return Node(kind, keys, nodes, _size(nodes))


def match(node: Node, values: Any, who: str) -> Iterator[Any]:
    """Go through the leaves of a container like that of the parameters; None stands for all leaves below.

    Raises
    ------
    ValueError
        If it has another structure.
    """
    if values is None:
        yield from (None for _ in range(node.size))
    elif node.kind == "array":
        yield values
    elif node.kind == "nothing":
        raise ValueError(f"{who} must be None, as there is no parameter, got {kind(values)}")
    elif node.kind == "dict":
        if not isinstance(values, Mapping):
            raise ValueError(f"{who} must be a dict with the parameters' keys, got {kind(values)}")
        if values.keys() != set(node.keys):
            raise ValueError(
                f"{who} must have the parameters' keys (None for one without); "
                f"{difference(values, node.keys)}"
            )
        for key, child in zip(node.keys, node.children, strict=True):
            yield from match(child, values[key], f"{who}[{key!r}]")
    else:
        count = len(node.children)
        if not isinstance(values, (list, tuple)) or len(values) != count:
            raise ValueError(
                f"{who} must be a list or tuple of {count}, one for each parameter (None for one "
                f"without), got {described(values)}"
            )
        for k, child in enumerate(node.children):
            yield from match(child, values[k], f"{who}[{k}]")
