"""From how many elements on a second thread pays, inside a loop whose gradients take matrix products.

A benchmark of steps alone finds the team awake and the cores free. Here matrix products stand between the steps, as
in a training loop: the team has gone to sleep, and NumPy's own threads may still hold the other cores. One and two
threads take turns; what counts is the whole iteration.

    python bench/threads.py [--turns 300]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import instep
from instep import _core

SIZES = [2**k for k in range(16, 24)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=300)
    turns = parser.parse_args().turns
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64, 784)).astype("f4"), rng.standard_normal((784, 256)).astype("f4")
    _core.set_least_work(1)
    print(f"idle threads: {instep.config()['openmp']['idle_threads']}")
    for size in SIZES:
        optimizer = instep.Adam(rng.standard_normal(size).astype("f4"))
        grad = rng.standard_normal(size).astype("f4")
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(turns):
            for threads, found in times.items():
                instep.set_num_threads(threads)
                start = time.perf_counter()
                for _ in range(4):
                    a @ b
                    a.T @ (a @ b)
                    optimizer.step(grad)
                found.append((time.perf_counter() - start) / 4)
        one, two = (statistics.median(found) * 1e6 for found in times.values())
        line = f"{size:9} elements: an iteration with 1 thread {one:8.1f} us, with 2 {two:8.1f} us"
        print(f"{line}, ratio {one / two:5.2f}")


if __name__ == "__main__":
    main()
