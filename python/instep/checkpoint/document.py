"""The JSON document of a checkpoint: the numbers of optimizer and scaler, and the caller's extra."""

import math
import os
from collections.abc import Mapping
from typing import Any

from instep._support.checks import require_keys
from instep._support.wording import kind, shown
from instep.checkpoint.extra import Encoded, decoded, is_of_extra, require_each_once
from instep.optimizers import stored_state
from instep.optimizers.containers import Array
from instep.optimizers.loss_scaler import LossScaler

__all__ = [
    "SCHEMA",
    "made",
    "path_text",
    "require_scaler",
    "stored_extra",
    "stored_optimizer",
]

#: Newest version of the layout of a checkpoint's document. A file has the oldest version that can
#: hold its content: version 1 if `extra` has neither arrays nor numbers that aren't finite.
SCHEMA = 2

_OF_JSON_ALONE = 1  # the version in which extra is its own form

_DOCUMENT = ("schema", "optimizer", "scaler", "extra", "tensors")
_ARRAYS = ("state", "averages", "accumulated")  # of state_dict, kept as tensors


def path_text(path: object) -> str:
    """Return a path as text; raise TypeError for any other object."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):  # such as a file descriptor, which would be closed
        raise TypeError(f"path must be a str or a path of str, got {kind(path)}")
    return text


def require_scaler(scaler: object) -> None:
    """Raise TypeError unless this is a LossScaler or None."""
    if scaler is not None and not isinstance(scaler, LossScaler):
        raise TypeError(f"scaler must be a LossScaler, got {kind(scaler)}")


def made(optimizer: Mapping[str, Any], scaler: LossScaler | None, extra: Encoded) -> dict[str, Any]:
    """Return the document of a new file for an optimizer's numbers."""
    return {
        "schema": _OF_JSON_ALONE if extra.is_json else SCHEMA,
        "optimizer": _without_infinity(optimizer),
        "scaler": None if scaler is None else scaler.state_dict(),
        "extra": extra.form,
    }


def stored_optimizer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer's state without its arrays; raise if the document is of another schema."""
    _require_document(document)
    stored = _with_infinity(document["optimizer"])
    expected = tuple(key for key in stored_state.KEYS if key not in _ARRAYS)
    require_keys("the optimizer's state", stored, expected)
    return dict(stored)


def stored_extra(document: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Return extra, with its arrays taken from the file's arrays; raise if the document is wrong."""
    _require_document(document)
    own = {name: array for name, array in arrays.items() if is_of_extra(name)}
    if document["schema"] == _OF_JSON_ALONE:
        require_each_once([], own)
        return document["extra"]
    return decoded(document["extra"], own)


def _require_document(document: Mapping[str, Any]) -> None:
    schema = document.get("schema")
    if type(schema) is not int or not _OF_JSON_ALONE <= schema <= SCHEMA:
        raise ValueError(
            f"the schema of the checkpoint must be {_OF_JSON_ALONE} or {SCHEMA}, got {shown(schema)}"
        )
    require_keys("the checkpoint", document, _DOCUMENT)


def _without_infinity(value: Any) -> Any:
    """Return hyperparameters in a form that strict JSON can hold: a limit may be infinite."""
    if isinstance(value, dict):
        return {key: _without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(inner) for inner in value]
    return {"float": str(value)} if isinstance(value, float) and math.isinf(value) else value


def _with_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        if value in ({"float": "inf"}, {"float": "-inf"}):
            return float(value["float"])
        return {key: _with_infinity(inner) for key, inner in value.items()}
    return [_with_infinity(inner) for inner in value] if isinstance(value, list) else value
