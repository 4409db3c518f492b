"""What has been measured: every piece several times, minutes apart.

A machine that others share has better and worse quarters of an hour, in which even ratios differ: memory shared with a
neighbour slows whoever waits for it most. So all pieces are gone through again and again, and what counts is the median
of these passes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

Pieces = Mapping[str, Any]  # what one pass has found, by the piece's name


class Results:
    """The file of results: the machine, and by piece what was measured and when, pass after pass.

    Where there are some of another machine or build, they are these: `is_of` says so, and `start_afresh` drops them.
    """

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        self.path = folder / "results.json"
        self.pieces: dict[str, list[dict[str, Any]]] = {}
        self.machine = machine
        if self.path.exists():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.machine, self.pieces = kept["machine"], kept["pieces"]

    def is_of(self, machine: dict[str, Any]) -> bool:
        return self.machine == machine

    def start_afresh(self, machine: dict[str, Any]) -> None:
        self.machine, self.pieces = machine, {}

    def times(self, name: str) -> int:
        """How often the piece has been measured."""
        return len(self.pieces.get(name, ()))

    def add(self, name: str, found: dict[str, Any], order: Sequence[str]) -> None:
        """Keep what was measured now; the file has the pieces in that order."""
        when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.pieces.setdefault(name, []).append({"when": when, **found})
        self.pieces = {known: self.pieces[known] for known in order if known in self.pieces}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"machine": self.machine, "pieces": self.pieces}, indent=1, ensure_ascii=False
        )
        self.path.write_text(text + "\n", encoding="utf-8")

    @property
    def passes(self) -> list[Pieces]:
        """What was found in the first pass over the pieces, in the second, and so on."""
        count = max(map(len, self.pieces.values()), default=0)
        return [
            {name: found[k] for name, found in self.pieces.items() if k < len(found)}
            for k in range(count)
        ]

    @property
    def together(self) -> Pieces:
        """Every figure's median over the passes."""
        return {name: typical(found) for name, found in self.pieces.items()}

    @property
    def whens(self) -> list[str]:
        return sorted(found["when"] for piece in self.pieces.values() for found in piece)


def typical(values: Sequence[Any]) -> Any:
    """Medians where there are numbers, within mappings and lists too; of anything else the last.

    A mapping has every key that any has: a contestant may have been left out of a pass.
    """
    last = values[-1]
    if isinstance(last, Mapping):
        keys = list(dict.fromkeys(key for value in values for key in value))
        return {key: typical([value[key] for value in values if key in value]) for key in keys}
    if isinstance(last, list):
        return [typical(column) for column in zip(*values, strict=True)]
    if isinstance(last, int):
        return statistics.median_low(values)  # a count stays one
    return statistics.median(values) if isinstance(last, float) else last
