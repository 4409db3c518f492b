"""The picture: loss, accuracy and learning rate over the training."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instep.commands.demo.extras import load_extra
from instep.commands.demo.training import Run
from instep.schedules import Schedule

__all__ = ["PictureError", "require_writable", "save_picture"]

# The first curve is broad and pale, the second thin and dark: both are visible if they coincide.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#f4a259", "linewidth": 6, "marker": "o", "markersize": 7},
    {"color": "#1d3557", "linewidth": 1.5, "linestyle": "--", "marker": ".", "markersize": 4},
)


class PictureError(Exception):
    """The picture can't be written."""


def require_writable(path: Path) -> None:
    """Raise PictureError unless Matplotlib can draw a file of this format, and the file can be written."""
    figure = load_extra("matplotlib.figure").Figure(figsize=(1, 1))
    figure.text(0, 0, "text")  # some formats need other programs for it
    formats = figure.canvas.get_supported_filetypes()
    if _format(path) not in formats:
        endings = ", ".join(f".{name}" for name in sorted(formats))
        raise PictureError(f"--save must end in one of {endings}, got {str(path)!r}")
    _save(figure, io.BytesIO(), _format(path))
    try:
        target = Path(os.path.realpath(path))  # the link's target, if path is a link
        is_new = not target.exists()
        if is_new or target.is_file() or target.is_dir():  # opening a pipe would wait for a reader
            with open(target, "ab"):
                pass
        if is_new:
            target.unlink()
    except OSError as error:
        raise PictureError(
            f"--save must be a file that can be written, got {str(path)!r}: {error.strerror}"
        ) from error


def save_picture(path: Path, title: str, runs: Sequence[Run], lr: Schedule, steps: int) -> None:
    """Save three panels, in the format of the file's name: loss and accuracy of each run, and the learning rate."""
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
    _save(figure, path, _format(path))


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _save(figure: Any, file: Path | io.BytesIO, format_: str) -> None:
    try:
        figure.savefig(file, format=format_)
    except (OSError, RuntimeError, ValueError) as error:  # also of programs that a format needs
        text = " ".join(str(error).split())
        raise PictureError(f"the picture was not saved: {text}") from error
