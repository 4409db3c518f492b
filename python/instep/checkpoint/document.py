"""The JSON document of a checkpoint: the numbers of optimizer and scaler, and the caller's extra."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from instep._support.wording import kind
from instep.checkpoint.format import as_text, parse
from instep.optimizers import stored_state
from instep.optimizers.loss_scaler import LossScaler

__all__ = [
    "SCHEMA",
    "as_json",
    "path_text",
    "require_scaler",
    "stored_optimizer",
    "without_infinity",
]

#: Version of the layout of a checkpoint's document.
SCHEMA = 1

_DOCUMENT = ("schema", "optimizer", "scaler", "extra", "tensors")
_ARRAYS = ("state", "averages", "accumulated")  # of state_dict, kept as tensors
_DEEPEST = 200  # levels of extra: far from the interpreter's limit, wherever load is called


def path_text(path: object) -> str:
    """Return a path as text; raise TypeError for any other object."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):  # such as a descriptor, which opening and closing would close
        raise TypeError(f"path is {kind(path)}; a str or a path of str is wanted")
    return text


def require_scaler(scaler: object) -> None:
    """Raise TypeError unless this is a LossScaler or None."""
    if scaler is not None and not isinstance(scaler, LossScaler):
        raise TypeError(f"scaler is {kind(scaler)}; a LossScaler is wanted")


def as_json(extra: Any) -> Any:
    """Return extra in the form in which `load` will return it."""
    too_deep = f"it is nested too deeply; at most {_DEEPEST} levels are wanted"
    try:
        found = parse(as_text(extra, default=_python_number))
    except TypeError as error:
        raise TypeError(f"extra can't be written as JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        why = too_deep if isinstance(error, RecursionError) else error
        raise ValueError(f"extra can't be written as JSON: {why}") from None
    if _depth(found) > _DEEPEST:
        raise ValueError(f"extra can't be written as JSON: {too_deep}")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    # a loop, since a recursion may have no room
    while outers := [inner for inner in level if isinstance(inner, (dict, list))]:
        depth += 1
        level = [
            inner
            for outer in outers
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def _python_number(value: Any) -> Any:
    """Return a NumPy scalar as a Python number."""
    for kinds, make in ((np.bool_, bool), (np.integer, int), (np.floating, float)):
        if isinstance(value, kinds):
            return make(value)
    raise TypeError(f"{kind(value)} is nothing for JSON")


def stored_optimizer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer's state without its arrays; raise if the document is of another schema."""
    stored_state.require_schema("the checkpoint", document.get("schema"), SCHEMA)
    stored_state.require_keys("the checkpoint", document, _DOCUMENT)
    stored = _with_infinity(document["optimizer"])
    wanted = tuple(key for key in stored_state.KEYS if key not in _ARRAYS)
    stored_state.require_keys("the optimizer's state", stored, wanted)
    return dict(stored)


def without_infinity(value: Any) -> Any:
    """Return hyperparameters in a form that strict JSON can hold: a limit may be infinite."""
    if isinstance(value, dict):
        return {key: without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinity(inner) for inner in value]
    return {"float": str(value)} if isinstance(value, float) and math.isinf(value) else value


def _with_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        if value in ({"float": "inf"}, {"float": "-inf"}):
            return float(value["float"])
        return {key: _with_infinity(inner) for key, inner in value.items()}
    return [_with_infinity(inner) for inner in value] if isinstance(value, list) else value
