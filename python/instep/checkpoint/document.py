"""The JSON document of a checkpoint: the numbers of optimizer and scaler, and the caller's extra."""

import math
import os
from collections.abc import Mapping
from typing import Any

from instep._support.checks import require_keys
from instep._support.wording import kind, listed, shown
from instep.checkpoint.extra import Encoded, decoded, is_of_extra, require_each_once
from instep.checkpoint.format import Source, piece_count
from instep.optimizers import Combined, Optimizer, combined_state, stored_state
from instep.optimizers.containers import Array
from instep.optimizers.loss_scaler import LossScaler

__all__ = [
    "SCHEMA",
    "arrays_by_optimizer",
    "is_combined",
    "made",
    "members",
    "path_text",
    "require_scaler",
    "stored_combined",
    "stored_extra",
    "stored_for",
    "stored_optimizer",
]

#: Newest version of the layout of a checkpoint's document. A file has the oldest version that can
#: hold its content: version 3 if a tensor has more than 2^22 elements, so that its pieces have
#: checksums, too; else version 1 if `extra` has neither arrays nor numbers that aren't finite.
SCHEMA = 3

_OF_JSON_ALONE = 1  # the version in which extra is its own form
_OF_OBJECTS = 2  # has objects for other values in extra
_OF_PIECES = 3  # has the checksums of pieces, too

_OPTIMIZER, _COMBINED = "optimizer", "combined"  # a document has one of these
_DOCUMENT = ("schema", "scaler", "extra", "tensors")
_ARRAYS = ("state", "averages", "accumulated")  # of state_dict, kept as tensors


def path_text(path: object, who: str = "path") -> str:
    """Return a path as text; raise TypeError for any other object."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):  # such as a file descriptor, which would be closed
        raise TypeError(f"{who} must be a str or a path of str, got {kind(path)}")
    return text


def require_scaler(scaler: object) -> None:
    """Raise TypeError unless this is a LossScaler or None."""
    if scaler is not None and not isinstance(scaler, LossScaler):
        raise TypeError(f"scaler must be a LossScaler, got {kind(scaler)}")


def members(optimizer: Optimizer | Combined) -> list[tuple[str, Optimizer]]:
    """Return one optimizer, or all of a Combined, with what precedes the names of its tensors."""
    if not isinstance(optimizer, Combined):
        return [("", optimizer)]
    return [(f"{k}/", one) for k, one in enumerate(optimizer.optimizers)]


def arrays_by_optimizer(
    arrays: Mapping[str, Array], optimizer: Optimizer | Combined
) -> list[dict[str, Array]]:
    """Return each optimizer's arrays of a file by their names, without what precedes these."""
    own = {name: array for name, array in arrays.items() if not is_of_extra(name)}
    if not isinstance(optimizer, Combined):
        return [own]
    found: list[dict[str, Array]] = []
    for prefix, _ in members(optimizer):
        mine = {
            name.removeprefix(prefix): own.pop(name)
            for name in list(own)
            if name.startswith(prefix)
        }
        found.append(mine)
    if own:
        raise ValueError(f"a tensor must be of one of the optimizers, got {listed(own)}")
    return found


def made(
    optimizer: Optimizer | Combined,
    scaler: LossScaler | None,
    extra: Encoded,
    sources: Mapping[str, Source],
) -> dict[str, Any]:
    """Return the document of a new file of these tensors."""
    if isinstance(optimizer, Combined):
        name, numbers = _COMBINED, combined_state.numbers(optimizer)
    else:
        name, numbers = _OPTIMIZER, stored_state.numbers(optimizer)
    schema = _OF_JSON_ALONE if extra.is_json else _OF_OBJECTS
    if any(piece_count(source.shape) for source in sources.values()):
        schema = _OF_PIECES
    return {
        "schema": schema,
        name: _without_infinity(numbers),
        "scaler": None if scaler is None else scaler.state_dict(),
        "extra": extra.plain if schema == _OF_JSON_ALONE else extra.form,
    }


def is_combined(document: Mapping[str, Any]) -> bool:
    """Tell whether a document is of several optimizers as one; raise if it is of another schema."""
    _require_document(document)
    return _COMBINED in document


def stored_optimizer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer's state without its arrays; raise if the document is of another schema."""
    if is_combined(document):
        count = len(_stored_combined(document)["optimizers"])
        raise ValueError(
            f"the checkpoint must be of one optimizer, got one of a Combined of {count}; load it into "
            "a Combined"
        )
    return _stored("the optimizer's state", _with_infinity(document[_OPTIMIZER]))


def stored_combined(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a Combined without its arrays; raise if the document is of another schema."""
    if not is_combined(document):
        rule = stored_optimizer(document)["rule"]
        raise ValueError(
            f"the checkpoint must be of a Combined, got one of one optimizer ({shown(rule)}); load it "
            "into an optimizer of this rule"
        )
    return _stored_combined(document)


def stored_for(optimizer: Optimizer | Combined, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state without its arrays for one optimizer or as many as a Combined has; otherwise raise."""
    if not isinstance(optimizer, Combined):
        return stored_optimizer(document)
    stored = stored_combined(document)
    found, count = len(stored["optimizers"]), len(optimizer.optimizers)
    if found != count:
        raise ValueError(f"the checkpoint must be of {count} optimizers, got one of {found}")
    return stored


def _stored_combined(document: Mapping[str, Any]) -> dict[str, Any]:
    stored = _with_infinity(document[_COMBINED])
    require_keys("the state of the Combined", stored, combined_state.KEYS)
    optimizers = stored["optimizers"]
    if not isinstance(optimizers, list):
        raise ValueError(f"optimizers of the state must be a list, got {kind(optimizers)}")
    own = [_stored(f"the state of optimizers[{k}]", one) for k, one in enumerate(optimizers)]
    return {**stored, "optimizers": own}


def _stored(who: str, stored: Any) -> dict[str, Any]:
    keys = stored_state.keys_of(stored)
    require_keys(who, stored, tuple(key for key in keys if key not in _ARRAYS))
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
            f"the schema of the checkpoint must be {_OF_JSON_ALONE} to {SCHEMA}, got {shown(schema)}"
        )
    has_pieces = any("pieces" in listed for listed in document["tensors"].values())
    if has_pieces != (schema >= _OF_PIECES):
        raise ValueError(
            f"the schema of the checkpoint must be {_OF_PIECES} if, and only if, it has checksums of "
            f"pieces, got {schema}"
        )
    kind_of_state = _COMBINED if _COMBINED in document else _OPTIMIZER
    require_keys("the checkpoint", document, (*_DOCUMENT, kind_of_state))


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
