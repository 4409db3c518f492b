"""``instep info``: the configuration, to read or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from instep.machine.configuration import config

__all__ = ["add_arguments", "run"]

_INDENT = "  "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration and return the exit status."""
    print(json.dumps(config(), indent=2) if arguments.json else as_text(config()))
    return 0


def as_text(tree: Mapping[str, Any]) -> str:
    """Return a line for each key, nested ones indented, with all values in one column."""
    lines = list(_lines(tree, ""))
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {value}".rstrip() for label, value in lines)


def _lines(tree: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield indent + key, ""
            yield from _lines(value, indent + _INDENT)
        else:
            yield indent + key, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
