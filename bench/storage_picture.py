"""The figure of docs/storage.md: the losses of every choice by float32's, and how far second moments are off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from pictures import COLOURS, DPI, GRID, OURS, SETTINGS
from storage_choices import Choice

LEFT, RIGHT = 0.5, 4.0  # of the losses; what is beyond has an arrow at the edge
STYLES = (
    {"color": COLOURS[OURS], "marker": "o"},
    {"color": COLOURS["torch fused"], "marker": "s"},
    {"color": COLOURS["Numba"], "marker": "D"},
)


def picture(
    path: Path,
    columns: Sequence[tuple[str, Mapping[str, Any]]],
    choices: Sequence[Choice],
    compared: Callable[[Mapping[str, Any], str], Any],
) -> None:
    """One panel a beta2 with the losses of the problems, and one of the second moments of the first problem."""
    betas = list(dict.fromkeys(title.rpartition(", ")[2] for title, _ in columns))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(13, 1.8 + 0.34 * len(choices)), dpi=DPI, layout="constrained")
        *panels, last = figure.subplots(1, len(betas) + 1, sharey=True)
        for axes, beta2 in zip(panels, betas, strict=True):
            those = [(t, found) for t, found in columns if t.endswith(beta2)]
            for k, (title, found) in enumerate(those):
                cells = [compared(found, choice.label) for choice in choices]
                _losses(
                    axes, cells, title.rpartition(", ")[0], (k - (len(those) - 1) / 2) * 0.24, k
                )
            axes.set_xlabel("at the end, by float32's")
            _axis(axes, f"Loss, {beta2}", LEFT, RIGHT, (0.5, 1, 2, 4))
        roots = [columns[0][1][choice.label].get("roots") for choice in choices]
        _roots(last, roots)
        low, high = min(r[0] for r in roots if r), max(r[-1] for r in roots if r)
        edges = min(low / 1.1, 0.5), max(high * 1.1, 2.0)
        shown = [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16) if edges[0] <= tick <= edges[1]]
        _axis(last, f"Root of v, {betas[0]}", *edges, shown)
        last.set_xlabel(
            f"by float32's: 5th, 50th, 95th percentile\n({columns[0][0].rpartition(', ')[0]})"
        )
        panels[0].set_yticks(range(len(choices)), [choice.label for choice in choices])
        panels[0].set_ylim(len(choices) - 0.4, -0.6)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path)


def _losses(axes: Axes, cells: Sequence[Any], title: str, shift: float, k: int) -> None:
    for y, one in enumerate(cells):
        style: dict[str, Any] = {"color": STYLES[k]["color"], "markersize": 5, "linestyle": ""}
        beyond = not one.ratio <= RIGHT
        x = RIGHT if beyond or not math.isfinite(one.ratio) else max(one.ratio, LEFT)
        style["marker"] = ">" if beyond else STYLES[k]["marker"]
        error = 0.0 if beyond else one.error
        label = title if y == 0 else None
        axes.errorbar([x], [y + shift], xerr=[error], label=label, clip_on=False, **style)


def _roots(axes: Axes, roots: Sequence[Sequence[float] | None]) -> None:
    for y, one in enumerate(roots):
        if one:
            low, middle, high = one
            axes.plot([low, high], [y, y], color=STYLES[0]["color"], linewidth=2)
            axes.plot([middle], [y], **STYLES[0], markersize=6, linestyle="")


def _axis(axes: Axes, title: str, left: float, right: float, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color="black", linewidth=1, zorder=0)
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
