"""From how many elements on a second thread pays, inside a loop whose gradients take matrix products.

A benchmark of steps alone finds the team awake and the cores free. Here matrix products stand between the steps, as
in a training loop: the team has gone to sleep, and NumPy's own threads may still hold the other cores. One and two
threads take turns; what counts is the whole iteration.

    python bench/threads.py [--seconds 3] [--host torch]

With --host torch, the products are PyTorch's, and the step runs on PyTorch's threads.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import instep
from instep import _core
from package import options as allowed
from package import turns, workloads
from tables import duration, plain_table

SIZES = [2**k for k in range(14, 24)]
TURN = 0.01


def turn(threads: int, iteration: Callable[[], object]) -> float:
    with instep.num_threads(threads):
        found: float = turns.pace(iteration, TURN)
    return found


def with_numpy(a: Any, b: Any, param: Any, grad: Any) -> Callable[[], object]:
    step = instep.Adam(param).step

    def iteration() -> None:
        a.T @ (a @ b)
        step(grad)

    return iteration


def with_torch(*arrays: Any) -> Callable[[], object]:
    torch = importlib.import_module("torch")
    a, b, param, grad = map(torch.from_numpy, arrays)
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    states = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")}
    steps = instep.Steps()
    steps._share_team(_core.find_team(library))
    steps.add_group("adam")
    steps.append()
    steps.bind(0, param, states=states)
    numbers = [{"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}]

    def iteration() -> None:
        a.T @ (a @ b)
        steps.step([grad], numbers)

    return iteration


HOSTS = {"numpy": with_numpy, "torch": with_torch}


def measure(size: int, seconds: float, host: str) -> dict[str, float]:
    shapes = [(64, 784), (784, 256), (size,), (size,)]
    iteration = HOSTS[host](*workloads.filled(shapes, "float32", 0))
    before = _core.testing.least_work()
    _core.testing.set_least_work(1)  # as many threads as are allowed, whatever the size
    try:
        times = turns.take_turns(
            {str(threads): lambda threads=threads: turn(threads, iteration) for threads in (1, 2)},
            seconds,
        )
    finally:
        _core.testing.set_least_work(before)
    one, two = times["1"], times["2"]
    return {
        "1 thread": statistics.median(one),
        "2 threads": statistics.median(two),
        "ratio": turns.ratio(one, two),
    }


def as_text(found: dict[str, dict[str, float]]) -> str:
    lines = [("elements", "1 thread", "2 threads", "1 thread / 2 threads")]
    for size, times in found.items():
        one, two = duration(times["1 thread"]), duration(times["2 threads"])
        lines.append((size, one, two, f"{times['ratio']:.2f}"))
    return plain_table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=3.0, help="of turns, for each size"
    )
    parser.add_argument("--host", choices=HOSTS, default="numpy", help="whose matrix products")
    chosen = parser.parse_args()
    if chosen.host == "numpy":
        print(f"idle threads: {instep.config()['openmp']['idle_threads']}")
    found: dict[str, Any] = {
        f"{size:,}": measure(size, chosen.seconds, chosen.host) for size in SIZES
    }
    print(as_text(found))


if __name__ == "__main__":
    main()
