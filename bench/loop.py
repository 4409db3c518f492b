"""The step inside a training loop: a NumPy perceptron, forward, backward and step, by variant.

Each variant runs in a process of its own, with default settings, because what a step costs a loop is more than the
step: threads that go on spinning take the cores from NumPy's matrix products. The processes take turns, several times.

    python bench/loop.py [--batch 64] [--turns 5] [--variants none instep ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (784, 256, 128, 10)
VARIANTS = ("none", "instep", "instep, 1 thread", "NumPy", "torch fused")
Step = Callable[[list[np.ndarray]], None]


class Perceptron:
    """Random inputs through dense layers with ReLU; parameters are weight, bias, weight, bias, ..."""

    def __init__(self, batch: int) -> None:
        rng = np.random.default_rng(0)
        self.params: list[np.ndarray] = []
        for inputs, outputs in pairwise(SIZES):
            weights = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
            self.params += [weights.astype("f4"), np.zeros(outputs, "f4")]
        self.x = rng.standard_normal((batch, SIZES[0])).astype("f4")
        self.y = np.eye(SIZES[-1], dtype="f4")[rng.integers(0, SIZES[-1], batch)]

    def gradients(self) -> list[np.ndarray]:
        weights, biases = self.params[::2], self.params[1::2]
        activations = [self.x]
        for w, b in zip(weights, biases, strict=True):
            z = activations[-1] @ w + b
            activations.append(np.maximum(z, 0) if w is not weights[-1] else z)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        delta = (e / e.sum(axis=1, keepdims=True) - self.y) / len(self.x)
        grads: list[np.ndarray] = []
        for k in reversed(range(len(weights))):
            grads = [activations[k].T @ delta, delta.sum(axis=0), *grads]
            if k:
                delta = (delta @ weights[k].T) * (activations[k] > 0)
        return grads


def numpy_adam(params: list[np.ndarray]) -> Step:
    """The expression that a user writes."""
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    t = 0

    def step(grads: list[np.ndarray]) -> None:
        nonlocal t
        t += 1
        for i, g in enumerate(grads):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            params[i] -= 1e-3 * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)

    return step


def torch_adam(params: list[np.ndarray]) -> Step:
    import torch  # noqa: PLC0415 - only in the process that needs it

    tensors = [torch.from_numpy(p) for p in params]
    optimizer = torch.optim.Adam(tensors, lr=1e-3, fused=True)

    def step(grads: list[np.ndarray]) -> None:
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.from_numpy(grad)
        optimizer.step()

    return step


def make_step(variant: str, params: list[np.ndarray]) -> Step:
    if variant == "none":
        return lambda grads: None
    if variant == "NumPy":
        return numpy_adam(params)
    if variant == "torch fused":
        return torch_adam(params)
    import instep  # noqa: PLC0415 - not in the processes of the others

    if variant == "instep, 1 thread":
        instep.set_num_threads(1)
    return instep.Adam(params, lr=1e-3).step


def run_variant(variant: str, batch: int, seconds: float) -> float:
    """Microseconds an iteration: the median over short stretches."""
    network = Perceptron(batch)
    step = make_step(variant, network.params)
    end = time.perf_counter() + seconds / 4
    while time.perf_counter() < end:
        step(network.gradients())
    stretches = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(10):
            step(network.gradients())
        stretches.append((time.perf_counter() - start) / 10)
    return statistics.median(stretches) * 1e6


def measure(variant: str, batch: int, seconds: float) -> float | None:
    """run_variant in a process of its own; None where it can't run."""
    command = [
        sys.executable,
        __file__,
        "--run",
        variant,
        "--batch",
        str(batch),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed"
        print(f"{variant} is left out: {reason}", file=sys.stderr)
        return None
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each process")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(run_variant(arguments.run, arguments.batch[0], arguments.seconds))
        return
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "batches": {}}
    for batch in arguments.batch:
        times: dict[str, list[float]] = {variant: [] for variant in arguments.variants}
        for _ in range(arguments.turns):
            for variant in list(times):
                found = measure(variant, batch, arguments.seconds)
                if found is None:
                    del times[variant]
                else:
                    times[variant].append(found)
        medians = {variant: statistics.median(found) for variant, found in times.items()}
        report["batches"][batch] = medians
        alone = medians.get("none")
        print(f"batch {batch}: an iteration, median of {arguments.turns} processes each")
        for variant, median in medians.items():
            ratio = f"{median / alone:8.2f} x forward and backward alone" if alone else ""
            print(f"  {variant:18} {median:9.1f} us {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
