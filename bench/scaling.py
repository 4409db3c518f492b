"""How a step grows: one array of 10³ to 10⁸ parameters, and instep on 1 thread up to all cores.

python bench/scaling.py [--sizes 1000 ...] [--seconds 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness import LIMIT, Comparison, Entry, Pool, compare
from machine import describe
from package import options as allowed
from tables import contestants_table
from task import OURS, Task, cores

SIZES = tuple(10**k for k in range(3, 9))
PEERS = ("NumPy", "Numba", "torch fused", "DeepSpeed", "optax")
LEAST_FOR_LIMIT = 100_000  # below, a call is what a step waits for, not memory


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... below the number of cores, at which the contestants run anyway."""
    return [1 << k for k in range(most.bit_length()) if 1 << k < most]


def on_threads(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}"


def on_fewer_threads(name: str, most: int) -> list[str]:
    """The labels of that contestant on fewer threads than there are cores."""
    return [on_threads(name, count) for count in thread_counts(most)]


def measure(pool: Pool, size: int, seconds: float) -> Comparison:
    task = Task(str(size))
    ours = [OURS, LIMIT] if size >= LEAST_FOR_LIMIT else [OURS]
    entries = [Entry(name, name, task) for name in ours]
    for threads in thread_counts(cores()):
        fewer = Task(str(size), threads=threads)
        entries += [Entry(on_threads(name, threads), name, fewer) for name in ours]
    return compare(pool, entries + [Entry(peer, peer, task) for peer in PEERS], seconds)


def as_text(size: int, summary: dict[str, Any]) -> str:
    return f"{size:,} parameters\n{contestants_table(summary, 'a step', OURS)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=allowed.count, nargs="+", default=list(SIZES))
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=10.0, help="of turns, for each size"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": describe(), "sizes": {}}
    with Pool() as pool:
        for size in arguments.sizes:
            found = measure(pool, size, arguments.seconds).summary()
            report["sizes"][size] = found
            print(as_text(size, found), end="\n\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
