"""What a call costs: steps so small that the arithmetic hardly counts.

python bench/call.py [--seconds 5]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import instep
from instep import schedules
from package import options as allowed
from package import turns, workloads
from tables import duration, plain_table

TURN = 0.005
RATES = {"constant lr": 1e-3, "scheduled lr": schedules.CosineDecay(1e-3, 10**9)}


def measure(seconds: float) -> dict[str, float]:
    contestants = {}
    for workload in ("1", "tiny", "many"):
        shapes = workloads.shapes_of(workload)
        grads = workloads.filled(shapes, "float32", 1)
        for label, lr in RATES.items():
            step = instep.Adam(workloads.filled(shapes, "float32", 0), lr=lr).step
            name = "one element" if workload == "1" else workload
            contestants[f"{name}, {label}"] = partial(turns.pace, partial(step, grads), TURN)
    times = turns.take_turns(contestants, seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def as_text(found: dict[str, float]) -> str:
    return plain_table([("Adam, float32", "a step"), *((n, duration(t)) for n, t in found.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=allowed.seconds, default=5.0, help="of turns")
    print(as_text(measure(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
