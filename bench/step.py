"""The step benchmark: a step of instep beside its peers' and the memory's limit.

    python bench/step.py [ROW ...] [--peers NAME ...] [--seconds 20] [--json FILE]

Rows are those of rows.py; a workload's name alone is its row with Adam in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import LIMIT, Comparison, Pool, compare
from machine import describe
from package import options as allowed
from package import turns
from peers import PEERS
from rows import EVERYONE, ROWS, Row
from tables import contestants_table
from task import OURS

# Out of the caches where arrays come to lie can matter for as long as they live: on one host a contestant was half as
# fast as another with the same bytes for a whole row. All get others, in another order, as often as this; but where
# everybody takes part, in heats, instep and the memory limit get others in each as it is.
# A row of a rule starts its contestants once: each pass over the rows starts them anew.
STARTS = 3
OUT_OF_CACHES = 10_000_000  # elements; with fewer they are made once
# Rounds of a rule's row, at least: PyTorch takes seconds for a round over GPT-2's parameters.
BRIEF = 3


def measure(pool: Pool, row: Row, seconds: float, peers: list[str] | None = None) -> Comparison:
    chosen = [p for p in row.peers if peers is None or p in peers or p == OURS]
    entries, found = row.entries(chosen), Comparison()
    once = row.brief or row.task.elements < OUT_OF_CACHES or row.peers == EVERYONE
    starts, least = 1 if once else STARTS, BRIEF if row.brief else turns.LEAST
    for start in range(starts):
        if start > 0:  # memory that a process has had once, it may keep
            for entry in entries:
                pool.drop(entry.label)
        compare(pool, entries, seconds / starts, found=found, least=least)
        entries = [*entries[1:], entries[0]]
    return found


def as_text(row: Row, summary: Mapping[str, Any]) -> str:
    text = f"{row.name}: {row.title}\n{contestants_table(summary, 'a step', OURS)}"
    contestants = summary["contestants"]
    if LIMIT in contestants and OURS in contestants:
        text += f"\nshare of the memory limit reached: {contestants[LIMIT]['by instep']:.3f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (all)")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), help="only these, and instep")
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=20.0, help="of turns, for each row"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"a row must be one of {', '.join(ROWS)}, got {unknown[0]!r}")
    report: dict[str, Any] = {"machine": describe(), "rows": {}}
    with Pool() as pool:
        for name in arguments.rows or ROWS:
            found = measure(pool, ROWS[name], arguments.seconds, arguments.peers)
            report["rows"][name] = found.summary()
            print(as_text(ROWS[name], found.summary()), end="\n\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
