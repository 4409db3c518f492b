"""``instep inspect``: the content of a checkpoint, as text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from instep.checkpoint import CheckpointError, inspect
from instep.checkpoint.format import one_line
from instep.commands.info import as_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    parser.add_argument("file", metavar="FILE", help="a file that instep.checkpoint.save wrote")


def run(arguments: argparse.Namespace) -> int:
    """Verify and print the checkpoint; return the exit status, 1 if it is not a checkpoint."""
    try:
        text = as_text(_readable(inspect(arguments.file)))
    except (CheckpointError, OSError, ImportError, RecursionError) as error:
        print(f"instep inspect: {one_line(str(error))}", file=sys.stderr)
        return 1
    print(text)
    return 0


def _readable(found: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `inspect`, with a line of text for each value."""
    several = {f"optimizers[{k}]": _one(one) for k, one in enumerate(found.get("optimizers", []))}
    tree = {
        "schema": found["schema"],
        **_one(found),
        **several,
        "scaler": found["scaler"],
        "tensors": {
            name: f"{_array(tensor['dtype'], tensor['shape'])}, {tensor['bytes']:,} bytes"
            for name, tensor in found["tensors"].items()
        },
        "extra": json.dumps(found["extra"], default=lambda array: _array(array.dtype, array.shape)),
    }
    printable: dict[str, Any] = _printable(tree)
    return printable


def _one(found: Mapping[str, Any]) -> dict[str, Any]:
    in_common = dict(found["hyperparameters"])
    groups = in_common.pop("param_groups", [])
    groups = groups if isinstance(groups, list) else [groups]
    return {
        **{k: found[k] for k in ("rule", "step_count", "skipped_steps", "seed") if k in found},
        "hyperparameters": {
            **in_common,
            **{f"param_groups[{k}]": group for k, group in enumerate(groups)},
        },
    }


def _array(dtype: object, shape: tuple[int, ...]) -> str:
    return f"{dtype} {shape}"


def _printable(value: Any) -> Any:
    """Escape characters that a terminal would obey or can't print: the file's author is unknown."""
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner) for inner in value]
    if isinstance(value, str):
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return value
