"""The pictures: bars of every workload, and how a step grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

import scaling
import training
from harness import LIMIT, SAME_ARRAYS
from rows import ROWS
from tables import duration
from task import OURS

# The palette of Okabe and Ito (2008), which the colour-blind tell apart; each line has a marker of its own besides.
COLOURS = {
    OURS: "#D55E00",
    LIMIT: "#000000",
    SAME_ARRAYS: "#000000",
    "NumPy": "#56B4E9",
    "Numba": "#009E73",
    "torch fused": "#0072B2",
    "DeepSpeed": "#CC79A7",
    "optax": "#E69F00",
}
MARKERS = {
    OURS: "o",
    "NumPy": "s",
    "Numba": "^",
    "torch fused": "D",
    "DeepSpeed": "v",
    "optax": "P",
}
PEER = "#9AA5B1"  # bars of the others: what is to be seen is where instep stands among them
GRID = "#D9DEE4"
SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5B6570",
    "svg.hashsalt": "instep",
}
DPI = 110
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}


def _factor(ratio: float) -> str:
    return (
        f"{ratio:.0f} x"
        if ratio >= 99.5
        else f"{ratio:.1f} x"
        if ratio >= 9.95
        else f"{ratio:.2f} x"
    )


def _bars(axes: Axes, title: str, contestants: Mapping[str, Any]) -> None:
    """Time by instep's of everybody, on a logarithmic axis that begins well below the fastest."""
    ranked = sorted(contestants, key=lambda label: contestants[label]["by instep"], reverse=True)
    ratios = [contestants[label]["by instep"] for label in ranked]
    colours = [COLOURS[label] if label in (OURS, LIMIT, SAME_ARRAYS) else PEER for label in ranked]
    axes.barh(ranked, ratios, color=colours, height=0.72)
    axes.set_xscale("log")
    axes.set_xlim(0.2, max(ratios) * 2.2)
    axes.axvline(1, color=COLOURS[OURS], linewidth=1, zorder=0)
    for y, (label, ratio) in enumerate(zip(ranked, ratios, strict=True)):
        text = duration(contestants[label]["median"]) if label == OURS else _factor(ratio)
        axes.text(ratio * 1.06, y, text, va="center", fontsize=8.5, bbox=BEHIND_TEXT)
    for tick in axes.get_yticklabels():
        if tick.get_text() == OURS:
            tick.set_fontweight("bold")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.xaxis.set_major_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def steps(path: Path, pieces: Mapping[str, Any], where: str) -> None:
    """One panel a workload."""
    names = [name for name in ROWS if name == ROWS[name].task.workload and f"step/{name}" in pieces]
    titles = {}
    for name in names:
        task = ROWS[name].task
        tensors = f"{len(task.shapes):,} tensor{'s' if len(task.shapes) > 1 else ''}"
        titles[f"{name}: {task.elements:,} parameters, {tensors}"] = pieces[f"step/{name}"]
    found = {title: piece["contestants"] for title, piece in titles.items()}
    title = f"A step of Adam, float32: time by instep's (logarithmic, shorter is faster)\n{where}"
    _panels(path, found, title, 2)


def _panels(path: Path, found: Mapping[str, Mapping[str, Any]], title: str, columns: int) -> None:
    lines = -(-len(found) // columns)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6 * columns, 2.75 * lines + 0.6), dpi=DPI, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (name, contestants) in zip(panels, found.items(), strict=False):
            _bars(axes, name, contestants)
        for axes in panels[len(found) :]:
            axes.axis("off")
        figure.suptitle(title, fontsize=12)
        figure.savefig(path)


def trainings(path: Path, pieces: Mapping[str, Any], where: str) -> None:
    """One panel a model and program of PyTorch's; none if nothing of them was measured."""
    found = {
        f"{name.replace('/', ', threads: ')}: {program}": row["contestants"]
        for name in training.PIECES
        if not name.endswith("rules")
        for program, row in pieces.get(f"torch/{name}", {}).get("rows", {}).items()
    }
    if found:
        _panels(path, found, f"Training in PyTorch: time by instep.torch's\n{where}", 3)


def growth(path: Path, pieces: Mapping[str, Any], where: str, cores: int) -> None:
    """Time a step and time a parameter, over the number of parameters."""
    fewer = scaling.on_fewer_threads(OURS, cores)
    sizes = [size for size in scaling.SIZES if f"scaling/{size}" in pieces]
    found = {size: pieces[f"scaling/{size}"]["contestants"] for size in sizes}
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(12, 5.2), dpi=DPI, layout="constrained")
        whole, each = figure.subplots(1, 2)
        for label in (*scaling.PEERS, LIMIT, OURS, *fewer):
            at = [size for size in sizes if label in found[size]]
            # By instep's, for times of different heats don't compare.
            ours = [found[size][OURS]["median"] for size in at]
            times = [t * found[size][label]["by instep"] for t, size in zip(ours, at, strict=True)]
            if not at:
                continue
            style = _style(label)
            if label in fewer:
                style["marker"] = "os^Dv<"[fewer.index(label) % 6]
            whole.plot(at, times, label=label, **style)
            each.plot(at, [1e9 * t / n for t, n in zip(times, at, strict=True)], **style)
        for axes in (whole, each):
            axes.set(xscale="log", yscale="log", xlabel="parameters, in one array")
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
        whole.yaxis.set_major_formatter(FuncFormatter(lambda t, _: _plain(t)))
        each.yaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g} ns"))
        whole.set_title("Time of a step", loc="left", fontsize=11, fontweight="bold")
        each.set_title("Time a parameter", loc="left", fontsize=11, fontweight="bold")
        figure.legend(loc="outside right center", frameon=False)
        figure.suptitle(f"A step of Adam, float32\n{where}", fontsize=12)
        figure.savefig(path)


def _plain(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:g} {unit}"
    return f"{seconds * 1e6:g} us"


def _style(label: str) -> dict[str, Any]:
    whose = label.partition(",")[0]
    style: dict[str, Any] = {"color": COLOURS[whose], "linewidth": 1.5, "markersize": 5}
    if whose == OURS:
        style |= {"linewidth": 2.5, "zorder": 3}
    if whose == LIMIT or label != whose:
        return style | {
            "linestyle": "--",
            "marker": "" if whose == LIMIT else "o",
            "linewidth": 1.8,
        }
    return style | {"marker": MARKERS[whose]}
