"""The picture: loss, accuracy and learning rate over the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instep.commands.demo.extras import load_extra
from instep.commands.demo.training import Run
from instep.schedules import Schedule

__all__ = ["PictureError", "save_picture"]

# The first curve is broad and pale, the second thin and dark: both show where they coincide.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#f4a259", "linewidth": 6, "marker": "o", "markersize": 7},
    {"color": "#1d3557", "linewidth": 1.5, "linestyle": "--", "marker": ".", "markersize": 4},
)


class PictureError(Exception):
    """The picture can't be written."""


def save_picture(path: Path, title: str, runs: Sequence[Run], lr: Schedule, steps: int) -> None:
    """Save three panels as a PNG: loss and accuracy of each run, and the learning rate."""
    # A figure without pyplot draws with Agg and leaves the process's backend alone.
    figure = load_extra("matplotlib.figure").Figure(figsize=(13, 4.2), dpi=120, layout="tight")
    losses, accuracies, rates = figure.subplots(1, 3)
    for run, style in zip(runs, _STYLES, strict=True):
        epochs = np.arange(1, len(run.losses) + 1)
        losses.plot(epochs, run.losses, label=run.name, **style)
        accuracies.plot(epochs, 100 * np.array(run.accuracies), label=run.name, **style)
    losses.set_yscale("log")
    t = np.arange(steps)
    rates.plot(t, lr(t), color="#2a9d8f", linewidth=2)

    for axes, panel, x, y in (
        (losses, "Loss in training", "epoch", "cross-entropy, mean over the epoch"),
        (accuracies, "Accuracy on held-out images", "epoch", "accuracy (%)"),
        (rates, "Learning rate", "step", "learning rate"),
    ):
        axes.set(title=panel, xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
    for axes in (losses, accuracies):
        axes.legend()
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise PictureError(f"the picture was not saved: {error}") from error
