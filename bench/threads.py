"""From how many elements on a second thread pays, when the team has gone to sleep since the last step.

Between two steps a training loop computes for a while; here a busy wait stands for it, long enough for the team to fall
asleep. One and two threads take turns.

    python bench/threads.py [--pause-us 300]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import instep
from instep import _core

SIZES = [2**k for k in range(15, 23)]
TURNS = 400


def wait(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pause-us", type=float, default=300.0)
    pause = parser.parse_args().pause_us * 1e-6
    rng = np.random.default_rng(0)
    _core.set_least_work(1)
    print(f"{instep.config()['openmp']['idle_threads']}; {pause * 1e6:g} us between steps")
    for size in SIZES:
        optimizer = instep.Adam(rng.standard_normal(size).astype("f4"))
        grad = rng.standard_normal(size).astype("f4")
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(TURNS):
            for threads, found in times.items():
                instep.set_num_threads(threads)
                wait(pause)
                start = time.perf_counter()
                optimizer.step(grad)
                found.append(time.perf_counter() - start)
        one, two = (statistics.median(found) * 1e6 for found in times.values())
        print(f"{size:9} elements: 1 thread {one:8.1f} us, 2 threads {two:8.1f} us, ratio {one / two:5.2f}")


if __name__ == "__main__":
    main()
