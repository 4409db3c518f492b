"""What a call costs: steps so small that the arithmetic hardly counts.

python bench/call.py
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable

import numpy as np

import instep
from instep import schedules

TINY = [(64, 32), (32,), (32, 10), (10,)]
MANY = [(100,)] * 1000
LAYOUTS: dict[str, list[tuple[int, ...]]] = {"one element": [(1,)], "tiny": TINY, "many": MANY}


def microseconds(call: Callable[[], None], turns: int = 15) -> float:
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    number = max(1, number // 20)
    return statistics.median(timer.repeat(turns, number)) / number * 1e6


def main() -> None:
    rng = np.random.default_rng(0)
    for name, shapes in LAYOUTS.items():
        for label, lr in (
            ("constant lr", 1e-3),
            ("scheduled lr", schedules.CosineDecay(1e-3, 10**9)),
        ):
            params = [rng.standard_normal(shape).astype("f4") for shape in shapes]
            grads = [rng.standard_normal(shape).astype("f4") for shape in shapes]
            step = instep.Adam(params, lr=lr).step
            print(
                f"{name:12} {label:13} {microseconds(lambda step=step, grads=grads: step(grads)):9.2f} us"
            )


if __name__ == "__main__":
    main()
