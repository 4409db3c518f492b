"""The parts that the examples share: the command line and the picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREEN, RED, GREY = COLOURS = "#1d3557", "#f4a259", "#2a9d8f", "#d1495b", "#b8c0cc"


def command_line(description: str, **more: tuple[object, str]) -> argparse.Namespace:
    """Read the command line: `output` is the path for the picture, or None for no picture.

    `more` are options of an example: their default, whose class is theirs, and what they are.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    default = Path(sys.argv[0]).with_suffix(".png").name
    parser.add_argument("--output", type=Path, default=default, help="a PNG (%(default)s)")
    parser.add_argument("--no-picture", action="store_true", help="only train and print")
    for name, (value, text) in more.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=text)
    arguments = parser.parse_args()
    if arguments.no_picture:
        arguments.output = None
        return arguments
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 - if it is missing, say so before the training
    except ImportError:
        parser.exit(1, "the picture needs Matplotlib: pip install matplotlib, or --no-picture\n")
    return arguments


def output_path(description: str) -> Path | None:
    """Read the command line; return the path for the picture, or None for no picture."""
    path: Path | None = command_line(description).output
    return path


@contextmanager
def picture(path: Path, title: str, panels: int = 2) -> Iterator[Any]:
    """Yield axes side by side, and save the figure as a PNG at the end of the block."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only if a picture is asked for

    # Without pyplot, a figure draws with Agg, also on machines without a screen.
    figure = Figure(figsize=(1 + 4.8 * panels, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels)
    for one in axes:
        one.set_prop_cycle(color=COLOURS)  # so that a method looks the same in all panels
    yield axes
    for one in axes:
        one.grid(alpha=0.3)
        if one.get_legend_handles_labels()[0]:
            one.legend(framealpha=0.9)
    figure.suptitle(title)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        sys.exit(f"the picture was not saved: {error}")
    print(f"Picture: {path}")
