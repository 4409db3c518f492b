"""Trains networks side by side, and measures the time of gradients and steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from instep import schedules
from instep.commands.demo.digits import Batch, Digits, batches
from instep.commands.demo.mlp import MLP

__all__ = ["Run", "Stepper", "first_difference", "learning_rate", "train"]

_WARMUP_SHARE = 0.1
_PIXEL_NOISE = 0.2


class Stepper(Protocol):
    """The interface of both optimizers."""

    def step(self, grads: Any) -> None:
        """Change the parameters in place, once."""


@dataclass
class Run:
    """A network, its optimizer, and the measurements of each epoch."""

    name: str
    network: MLP
    optimizer: Stepper
    losses: list[float] = field(default_factory=list)  # mean over the epoch's batches
    accuracies: list[float] = field(default_factory=list)  # on the test images, after the epoch
    epoch_seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)  # of all the epoch's steps

    def train_epoch(self, epoch: Sequence[Batch]) -> None:
        """Take a step for each batch; the time is that of the gradients and the steps alone."""
        loss_sum = in_steps = 0.0
        began = perf_counter()
        for images, labels in epoch:
            loss, gradients = self.network.loss_and_gradients(images, labels)
            step_began = perf_counter()
            self.optimizer.step(gradients)
            in_steps += perf_counter() - step_began
            loss_sum += loss
        self.epoch_seconds.append(perf_counter() - began)
        self.step_seconds.append(in_steps)
        self.losses.append(loss_sum / len(epoch))


def learning_rate(peak: float, steps: int) -> schedules.Schedule:
    """Return a schedule over so many steps: a tenth of them up to the peak, then down to zero."""
    warmup = int(_WARMUP_SHARE * steps)
    return schedules.Warmup(schedules.CosineDecay(peak, steps=steps - warmup), steps=warmup)


def train(
    runs: Sequence[Run],
    digits: Digits,
    batch_size: int,
    epochs: Iterable[int],
    rng: np.random.Generator,
) -> None:
    """Train every run on the same batches.

    The runs take turns epoch by epoch, so that whatever else the machine does slows down both.
    """
    for _ in epochs:
        epoch = batches(digits.train, batch_size, _PIXEL_NOISE, rng)
        for run in runs:
            run.train_epoch(epoch)
            run.accuracies.append(run.network.accuracy(*digits.test))


def first_difference(a: MLP, b: MLP) -> str | None:
    """Return the name of the first parameter with different bits, or None."""
    for name, value in a.params.items():
        if value.tobytes() != b.params[name].tobytes():
            return name
    return None
