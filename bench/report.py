"""Measure everything, piece by piece, and make pictures and a page of it.

    python bench/report.py --all                 what this build's results lack; then page and pictures
    python bench/report.py step/mlp loop/64      these pieces, again
    python bench/report.py                       page and pictures of what is there

Every finished piece is kept at once, so that an interrupted run goes on where it was. Results are of one build on one
machine: where the machine or the installed instep is another, they start afresh.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import call
import extras
import footprint
import loop
import page
import scaling
import step
import threads
from harness import Pool
from machine import describe
from rows import ROWS
from tables import plain_table
from targets import COLUMNS, judge

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
RESULTS = "results.json"
LARGE = ("resnet50", "gpt2", "one100M")  # with everybody in several heats


def _pieces() -> dict[str, Callable[[Pool], dict[str, Any]]]:
    """What there is to measure, each in less than two minutes."""
    pieces: dict[str, Callable[[Pool], dict[str, Any]]] = {}
    for name, row in ROWS.items():
        seconds = 30.0 if name in LARGE else 12.0 if row.task.workload == "gpt2" else 8.0
        pieces[f"step/{name}"] = lambda pool, row=row, s=seconds: step.measure(
            pool, row, s
        ).summary()
    for batch in loop.BATCHES:
        pieces[f"loop/{batch}"] = lambda _, batch=batch: loop.measure(batch, 24.0).summary()
    for size in scaling.SIZES:
        pieces[f"scaling/{size}"] = lambda pool, size=size: scaling.measure(
            pool, size, 20.0 if size == max(scaling.SIZES) else 6.0
        ).summary()
    pieces["extras"] = lambda _: extras.measure(20_000_000, 20.0)
    pieces["call"] = lambda _: {"steps": call.measure(4.0)}
    pieces["threads"] = lambda _: {
        "sizes": {f"{n:,}": threads.measure(n, 2.0) for n in threads.SIZES}
    }
    pieces["footprint"] = lambda _: footprint.measure(8.0)
    return pieces


PIECES = _pieces()


class Results:
    """The file of results: the machine, and by piece what was measured and when."""

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        self.path = folder / RESULTS
        self.pieces: dict[str, Any] = {}
        self.machine = machine
        if self.path.exists():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["machine"] == machine:
                self.pieces = kept["pieces"]

    def add(self, name: str, found: dict[str, Any]) -> None:
        when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.pieces[name] = {"when": when, **found}
        in_order = {known: self.pieces[known] for known in PIECES if known in self.pieces}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"machine": self.machine, "pieces": in_order}, indent=1, ensure_ascii=False
        )
        self.path.write_text(text + "\n", encoding="utf-8")


def measure(results: Results, names: list[str], limit: float) -> list[str]:
    """Measure pieces until the limit (seconds) is over; return those that are left."""
    end = time.monotonic() + limit
    with Pool() as pool:
        for k, name in enumerate(names):
            if time.monotonic() >= end:
                return names[k:]
            start = time.monotonic()
            found = PIECES[name](pool)
            results.add(name, found)
            print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
            for who, why in found.get("left out", {}).items():
                print(f"  {who} is left out: {why}", flush=True)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)}")
    parser.add_argument("--all", action="store_true", help="measure every piece that is lacking")
    parser.add_argument("--again", action="store_true", help="with --all: measure all of them anew")
    parser.add_argument(
        "--limit",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="begin no piece later than this; the next run goes on",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of results, page and pictures")
    arguments = parser.parse_args()
    for name in arguments.pieces:
        if name not in PIECES:
            parser.error(f"piece {name!r} is not known; one of {', '.join(PIECES)} is wanted")
    results = Results(arguments.folder, describe())
    if arguments.all and arguments.again:
        results.pieces.clear()
    names = list(arguments.pieces)
    if arguments.all:
        names += [name for name in PIECES if name not in results.pieces and name not in names]
    left = measure(results, names, arguments.limit)
    if left:
        print(f"left for the next run: {', '.join(left)}")
    verdicts = judge(results.pieces)
    print(plain_table([COLUMNS, *(verdict.cells() for verdict in verdicts)]))
    if results.pieces:
        page.write(arguments.folder, results.machine, results.pieces, verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
