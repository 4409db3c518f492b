"""What extras cost a step out of cache: bytes that they move, against time measured.

Each variant moves 28 bytes an element for float32 Adam and what its extra adds. If memory is what a step waits for and
each buffer is read once and written once, time grows as the bytes do. The variants take turns.

    python bench/extras.py [--elements 20000000] [--turns 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import instep

# name -> arguments and bytes an element more: the norm reads the gradient once more (4), an average is read and written
# (8), a float16 copy is written (2).
EXTRAS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 0),
    "weight_decay": ({"weight_decay": 0.01}, 0),
    "clip_norm": ({"clip_norm": 1.0}, 4),
    "ema_decay": ({"ema_decay": 0.999}, 8),
    "copy_to": ({"copy_to": np.float16}, 2),
    "all": (
        {"weight_decay": 0.01, "clip_norm": 1.0, "ema_decay": 0.999, "copy_to": np.float16},
        14,
    ),
}
PLAIN_BYTES = 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=20_000_000)
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    grad = rng.standard_normal(arguments.elements, dtype="f4")
    steps = {}
    for name, (settings, _) in EXTRAS.items():
        param = rng.standard_normal(arguments.elements, dtype="f4")
        more = dict(settings)
        if "copy_to" in more:
            more["copy_to"] = np.empty(param.shape, more["copy_to"])
        steps[name] = instep.Adam(param, **more).step
        steps[name](grad)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.turns):
        for name, step in steps.items():
            start = time.perf_counter()
            step(grad)
            times[name].append(time.perf_counter() - start)
    plain = statistics.median(times["plain"])
    print(f"{arguments.elements} elements, {instep.get_num_threads()} threads, float32 Adam")
    for name, (_, more_bytes) in EXTRAS.items():
        predicted = (PLAIN_BYTES + more_bytes) / PLAIN_BYTES
        measured = statistics.median(times[name]) / plain
        print(
            f"{name:13} bytes x {predicted:5.2f}  time x {measured:5.2f}  time/bytes {measured / predicted:5.2f}"
        )


if __name__ == "__main__":
    main()
