"""The command ``instep demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from instep import AdamW
from instep.commands.demo.digits import load_digits
from instep.commands.demo.extras import MissingExtraError, load_extra
from instep.commands.demo.mlp import MLP
from instep.commands.demo.numpy_adamw import NumpyAdamW
from instep.commands.demo.picture import PictureError, require_writable, save_picture
from instep.commands.demo.report import setting, table
from instep.commands.demo.training import Run, first_difference, learning_rate, train

__all__ = ["add_arguments", "run"]

SIZES = (64, 256, 128, 10)
PEAK_LR = 5e-3
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0


def _positive(text: str) -> int:
    number = _not_negative(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"the number must be at least 1, got {number}")
    return number


def _not_negative(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"the number must be a whole number, got {text!r}"
        ) from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"the number must be at least 0, got {number}")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("--epochs", type=_positive, default=30, help="passes over the images (%(default)s)")
    add("--batch-size", type=_positive, default=64, help="images in a step (%(default)s)")
    add(
        "--seed",
        type=_not_negative,
        default=0,
        help="of the split, the weights and the batches (%(default)s)",
    )
    add(
        "--save",
        "--output",
        type=Path,
        default="instep-demo.png",
        metavar="FILE",
        help="where to save the picture, in any format of Matplotlib's (%(default)s)",
    )
    add("--quiet", action="store_true", help="no progress bar")
    add("--no-picture", action="store_true", help="no picture")


def run(arguments: argparse.Namespace) -> int:
    """Train, report and draw; return 0 if both runs end with the same bits, else 1."""
    try:
        return _run(arguments)
    except (MissingExtraError, PictureError) as error:
        print(f"instep demo: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    epochs = _epochs(arguments)
    if not arguments.no_picture:
        require_writable(arguments.save)  # if it can't be: say so now, not after the training
    split, weights, order = np.random.SeedSequence(arguments.seed).spawn(3)
    digits = load_digits(np.random.default_rng(split))
    steps_per_epoch = -(-len(digits.train[1]) // arguments.batch_size)
    steps = arguments.epochs * steps_per_epoch
    lr = learning_rate(PEAK_LR, steps)

    ours, numpys = (MLP(SIZES, np.random.default_rng(weights)) for _ in range(2))
    instep_adamw = AdamW(ours.params, lr, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM)
    numpy_adamw = NumpyAdamW(numpys.params, lr, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM)
    runs = (
        Run("instep.AdamW", ours, instep_adamw),
        Run("AdamW in NumPy", numpys, numpy_adamw),
    )
    train(runs, digits, arguments.batch_size, epochs, np.random.default_rng(order))

    print(setting(digits, SIZES, arguments.batch_size, steps, runs[0]), end="\n\n", flush=True)
    print(table(*runs, steps_per_epoch), end="\n\n")
    different = first_difference(ours, numpys)
    if different is None:
        print("Both runs ended in the same bits: every byte of every parameter was compared.")
    else:
        print(f"THE RUNS ENDED IN DIFFERENT BITS; the first parameter that differs: {different}")
    if not arguments.no_picture:
        bits = "different bits" if different else "the same bits"
        title = f"Handwritten digits, network {'-'.join(map(str, SIZES))}: the runs end in {bits}"
        save_picture(arguments.save, title, runs, lr, steps)
        print(f"Picture: {arguments.save.resolve()}")
    return 0 if different is None else 1


def _epochs(arguments: argparse.Namespace) -> Iterable[int]:
    """Return the epochs, with a progress bar if there is a terminal."""
    epochs = range(arguments.epochs)
    if arguments.quiet:
        return epochs
    bar: Iterable[int] = load_extra("tqdm").tqdm(
        epochs, desc="training", unit="epoch", disable=None, leave=False
    )
    return bar
