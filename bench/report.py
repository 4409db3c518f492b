"""Measure everything, piece by piece, and make pictures and a page of it.

    python bench/report.py --all                 what this build's results lack; then page and pictures
    python bench/report.py step/mlp loop/64      these pieces, once more
    python bench/report.py rules                 the rows of the rules, once more
    python bench/report.py torch                 training in PyTorch, once more
    python bench/report.py                       page and pictures of what is there

All pieces are measured in several passes (results.py). Every finished piece is kept at once, so that an interrupted run
goes on where it was. Results are of one build on one machine: to those of another nothing is added.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import call
import extras
import footprint
import loop
import page
import scaling
import step
import storage_speed
import threads
import training
from harness import Pool
from machine import describe
from results import Results
from rows import ROWS, RULES, Row
from tables import plain_table
from targets import COLUMNS, judge

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks" / "zen3"
PASSES = 5
LARGE = ("resnet50", "gpt2", "one100M")  # with everybody in several heats


def _pieces() -> dict[str, Callable[[Pool], dict[str, Any]]]:
    """What there is to measure, each in a minute or two."""
    pieces: dict[str, Callable[[Pool], dict[str, Any]]] = {}
    for name, row in ROWS.items():
        if row.fits:
            pieces[f"step/{name}"] = partial(_step, row)
    for batch in loop.BATCHES:
        # Single turns scatter by a fifth and starts by a tenth, more than the bound leaves room for.
        seconds, starts = (60.0, loop.STARTS) if batch == loop.JUDGED else (8.0, 1)
        pieces[f"loop/{batch}"] = lambda _, batch=batch, s=seconds, n=starts: loop.measure(
            batch, s, n
        ).summary()
    for size in scaling.SIZES:
        pieces[f"scaling/{size}"] = lambda pool, size=size: scaling.measure(
            pool, size, 12.0 if size == max(scaling.SIZES) else 3.0
        ).summary()
    pieces["extras"] = lambda _: extras.measure(20_000_000, 20.0)
    pieces["storage"] = lambda _: storage_speed.measure(10.0)
    pieces["call"] = lambda _: {"steps": call.measure(2.0)}
    pieces["threads"] = lambda _: {
        "sizes": {f"{n:,}": threads.measure(n, 1.0) for n in threads.SIZES}
    }
    for name in training.PIECES:
        pieces[f"torch/{name}"] = lambda _, name=name: training.measure(
            name, 3.0 if name.endswith("rules") else 8.0
        )
    pieces["footprint"] = lambda _: footprint.measure(4.0)
    return pieces


def _step(row: Row, pool: Pool) -> dict[str, Any]:
    within, beyond = (2.0, 6.0) if row.brief else (4.0, 8.0)
    seconds = beyond if row.task.workload == "gpt2" else within
    return step.measure(pool, row, 30.0 if row.name in LARGE else seconds).summary()


PIECES = _pieces()
# Several pieces by one name. Adam's rows are those of the workloads.
GROUPS = {
    "rules": [f"step/{row.name}" for row in RULES.values() if row.brief],
    "torch": [f"torch/{name}" for name in training.PIECES],
}


def plan(results: Results, named: list[str], passes: int) -> list[list[str]]:
    """Say what to measure, pass by pass: what is named, and then what the results lack of so many passes."""
    done = {name: results.times(name) + named.count(name) for name in PIECES}
    lacking = [[name for name in PIECES if done[name] <= k] for k in range(passes)]
    return [names for names in ([*named], *lacking) if names]


def measure(results: Results, names_by_pass: list[list[str]], limit: float) -> list[str]:
    """Measure pieces, pass after pass, until the limit (seconds) is over; return those that are left.

    Each pass has contestants started anew, because where their arrays come to lie differs.
    """
    end = time.monotonic() + limit
    left = [name for names in names_by_pass for name in names]
    for names in names_by_pass:
        with Pool() as pool:
            for name in names:
                if time.monotonic() >= end:
                    return left
                start = time.monotonic()
                found = PIECES[name](pool)
                results.add(name, found, list(PIECES))
                left = left[1:]
                again = results.times(name)
                print(f"{name}, {again}: {time.monotonic() - start:.0f} s", flush=True)
                for who, why in found.get("left out", {}).items():
                    print(f"  {who} is left out: {why}", flush=True)
    return left


def main() -> int:
    known = GROUPS | {name: [name] for name in PIECES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(known)}")
    parser.add_argument("--all", action="store_true", help="measure every piece that is lacking")
    parser.add_argument("--again", action="store_true", help="with --all: measure all of them anew")
    parser.add_argument("--passes", type=int, help=f"of --all, over all pieces ({PASSES})")
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
        if name not in known:
            parser.error(f"a piece must be one of {', '.join(known)}, got {name!r}")
    named = [piece for name in arguments.pieces for piece in known[name]]
    if arguments.passes is not None and not (arguments.all and arguments.passes >= 1):
        parser.error("--passes must be at least 1 and go with --all")
    machine = describe()
    results = Results(arguments.folder, machine)
    if arguments.all and arguments.again:
        results.start_afresh(machine)
    if (arguments.all or arguments.pieces) and not results.is_of(machine):
        parser.error(
            f"{results.path} is of another machine or build; --all --again replaces it, --folder writes elsewhere"
        )
    passes = (arguments.passes or PASSES) if arguments.all else 0
    left = measure(results, plan(results, named, passes), arguments.limit)
    if left:
        counts = [f"{name} x {count}" for name, count in Counter(left).items()]
        print(f"left for the next run: {', '.join(counts)}")
    verdicts = judge(results.passes)
    print(plain_table([COLUMNS, *(verdict.cells() for verdict in verdicts)]))
    if results.pieces:
        page.write(arguments.folder, results, verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
