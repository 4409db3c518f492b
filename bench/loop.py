"""The step inside a training loop: a NumPy perceptron, forward, backward and step.

What a step costs a loop is more than the step: threads that go on spinning take the cores from NumPy's matrix
products. So every contestant trains in a process of its own, with default settings, alone for a tenth of a second at a
time. The processes are started anew several times, because where the arrays come to lie differs between them.

Whether a NumPy expression pays for page faults of its intermediate arrays is the luck of the program: glibc gives large
blocks back to the system until the program has freed larger ones. So it takes part twice, as a program begins and as
one goes on that has freed a large block.

    python bench/loop.py [--batch 16 64 256] [--seconds 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import DOZE, SAME_ARRAYS, Comparison, Entry, Pool, compare
from machine import describe
from package import options as allowed
from tables import contestants_table
from task import NO_STEP, OURS, Task

BATCHES = (16, 64, 256)
JUDGED = 64  # the batch that targets.py has bounds for
PEERS = (OURS, "NumPy", "NumPy in place", "Numba", "torch fused", "DeepSpeed")
ONE_THREAD = f"{OURS}, 1 thread"
LIMITS = (SAME_ARRAYS, f"{SAME_ARRAYS}, 1 thread")
NO_FAULTS = "NumPy, freed memory kept"
NUMPY_AT_ITS_BEST = (NO_FAULTS, "NumPy in place")
TURN = 0.1  # seconds
STARTS = 3


def measure(batch: int, seconds: float, starts: int = STARTS) -> Comparison:
    task = Task("mlp", batch=batch, keeps_freed_memory=False)
    alone = replace(task, threads=1)
    entries = [Entry(NO_STEP, NO_STEP, task), *(Entry(peer, peer, task) for peer in PEERS)]
    entries.append(Entry(ONE_THREAD, OURS, alone))
    entries += [
        Entry(label, SAME_ARRAYS, t) for label, t in zip(LIMITS, (task, alone), strict=True)
    ]
    entries.append(Entry(NO_FAULTS, "NumPy", replace(task, keeps_freed_memory=True)))
    found = Comparison()
    for _ in range(starts):
        with Pool(DOZE) as pool:
            compare(pool, entries, seconds / starts, TURN, found=found)
    return found


def as_text(batch: int, summary: dict[str, Any]) -> str:
    return f"batch {batch}\n{contestants_table(summary, 'an iteration', NO_STEP)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=allowed.count, nargs="+", default=list(BATCHES))
    parser.add_argument(
        "--seconds",
        type=allowed.seconds,
        default=20.0,
        help="of turns, for each batch; seven rounds in each of three starts are made anyway, which may take a minute "
        "(%(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": describe(), "batches": {}}
    for batch in arguments.batch:
        found = measure(batch, arguments.seconds).summary()
        report["batches"][batch] = found
        print(as_text(batch, found), end="\n\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
