"""Optimizers stepped from many Python threads while everything around them is asked for and changed.

    python tests/threads/stress.py [SECONDS] [--race]

For the thread sanitizer (`nox -s tsan`), which reports any two accesses that nothing orders; results are compared
elsewhere. --race lets two optimizers step one array at a time, which nobody may do: a sanitizer that is set up right
must report it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

import instep
from instep import _core, schedules

SIZES = (3, 70_000, 16_384, 40_001)
WORKERS = 4
LARGE = 6_000_000  # of float32: a step long enough to release the GIL


def params(dtype: str = "f4") -> list[np.ndarray]:
    return [np.ones(n, dtype) for n in SIZES]


def optimizers() -> list[instep.Optimizer]:
    """Every rule, every extra: clipped, averaged, copied, guarded, scheduled."""
    copies = [np.zeros(n, "f2") for n in SIZES]
    rate = schedules.Warmup(schedules.CosineDecay(0.1, steps=50), steps=5)
    return [
        instep.AdamW(params(), clip_norm=1.0, ema_decay=0.99, amsgrad=True),
        instep.Adam(params("f8"), rate, nonfinite="skip", betas=(0.9, 0.99)),
        instep.Momentum(params(), rate, momentum=0.5, copy_to=copies, clip_norm=1.0),
        instep.RMSprop(params("f2"), centered=True, nonfinite="raise", l1=0.01),
        instep.SGD([np.ones(LARGE, "f4")], 0.1, clip_value=0.5),
    ]


def gradients(optimizer: instep.Optimizer) -> list[np.ndarray]:
    return [np.full(p.shape, 0.1, "f4") for p in optimizer.params.values()]


def step(optimizer: instep.Optimizer, k: int) -> None:
    """One step; now and then with a gradient that is not finite."""
    grads = gradients(optimizer)
    if k % 7 == 3:
        grads[0][1] = np.inf
    with suppress(FloatingPointError):
        optimizer.step(grads)


def accumulate(optimizer: instep.Optimizer, k: int) -> None:
    optimizer.accumulate(gradients(optimizer))


def average(optimizer: instep.Optimizer, k: int) -> None:
    if optimizer.ema_decay is None:
        return
    with optimizer.averaged():
        time.sleep(0.001)


def save(optimizer: instep.Optimizer, k: int) -> None:
    state = optimizer.state_dict()
    if k % 3 == 0:
        optimizer.load_state_dict(state)
    copy.copy(optimizer.state)


def threads(optimizer: instep.Optimizer, k: int) -> None:
    instep.set_num_threads(1 + k % 4)
    instep.set_isa(instep.isa_levels()[k % len(instep.isa_levels())])
    instep.config()


def settings(optimizer: instep.Optimizer, k: int) -> None:
    optimizer.lr = 0.01 * (1 + k % 3)
    _ = optimizer.step_count, optimizer.grad_norm, optimizer.param_groups, optimizer.skipped_steps


ACTIONS = (step, step, accumulate, threads, step, average, save, step, settings)


def work(
    shared: list[instep.Optimizer], worker: int, until: float, failed: list[BaseException]
) -> None:
    """Step what all share and what is the thread's own, in an order of its own."""
    try:
        own = optimizers()
        for k in itertools.count(worker):
            if time.monotonic() > until:
                return
            action: Callable[[instep.Optimizer, int], None] = ACTIONS[k % len(ACTIONS)]
            for optimizer in (shared[(k + worker) % len(shared)], own[k % len(own)]):
                try:
                    action(optimizer, k)
                except RuntimeError as error:
                    if "averaged()" not in str(error):
                        raise
    except BaseException as error:
        failed.append(error)
        raise


def race(until: float) -> None:
    """Two optimizers, each on its own thread, update the same array."""
    array = np.ones(LARGE, "f4")
    grad = np.full(LARGE, 0.1, "f4")
    instep.set_num_threads(1)

    def run() -> None:
        optimizer = instep.SGD(array, 0.1)
        while time.monotonic() < until:
            optimizer.step(grad)

    together = [threading.Thread(target=run) for _ in range(2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()


def main() -> int:
    """Return 0 unless a thread failed; what raced, the sanitizer says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=30.0)
    parser.add_argument("--race", action="store_true")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    if arguments.race:
        race(until)
        return 0
    _core.testing.set_least_work(1)
    shared, failed = optimizers(), []
    workers = [
        threading.Thread(target=work, args=(shared, k, until, failed)) for k in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(
        f"{_core.testing.counters()['parallel_regions']} parallel regions, "
        f"{sum(o.step_count for o in shared)} shared steps"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
