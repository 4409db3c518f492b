"""Which ways to store states and parameters train like float32: the tables and the figure of docs/storage.md.

    python bench/storage_training.py                 what docs/storage.json lacks; then tables and figure
    python bench/storage_training.py --again         everything anew, in about 25 minutes of one core
    python bench/storage_training.py --quick --folder FOLDER    a few steps, to see that it works

Three small networks (storage_nets.py) are trained with every choice of storage_choices.py. All choices of a seed see
the same batches from the same start. The rate decays along a cosine to 0, so that the loss at the end, over all data,
has little noise of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import instep
from instep import schedules
from machine import describe
from storage_choices import FLOAT32, OTHERS, SETTINGS, Choice, Setting, Stepper
from storage_nets import PROBLEMS, Problem
from storage_picture import picture
from tables import fill, markdown_table

FOLDER = Path(__file__).parents[1] / "docs"
PAGE, FIGURES, PICTURE = "storage.md", "storage.json", "storage.png"
SEEDS, QUICK_STEPS = 5, 3
PERCENTILES = (5, 50, 95)


class Run(NamedTuple):
    loss: float
    roots: (
        list[float] | None
    )  # percentiles of the root of v, by that of v in float32 from the same gradients


def run(problem: Problem, setting: Setting, choice: Choice, seed: int, steps: int) -> Run:
    training, tracked = problem.start(seed), setting.tracked
    lr = schedules.CosineDecay(setting.lr or problem.lr, steps=steps)
    stepper = Stepper(setting, choice, training.net.params, {"lr": lr}, seed)
    for _ in range(steps):
        _, grads = training.net.loss_and_gradients(*next(training.batches))
        if tracked:
            tracked.see(grads)
        stepper.step(grads)
    if tracked is None:
        return Run(training.loss(), None)
    ratios = [
        np.sqrt(stored[wide > 0] / wide[wide > 0])
        for name, stored in stepper.narrow(tracked.state).items()
        for wide in [tracked.values[name]]
    ]
    roots = np.percentile(np.concatenate(ratios), PERCENTILES).tolist() if ratios else None
    return Run(training.loss(), roots)


# --- The figures

Figures = dict[str, dict[str, dict[str, dict[str, Any]]]]  # setting, problem, choice: losses, roots


def measure(figures: Figures, path: Path, seeds: int, quick: bool) -> None:
    """Add what is missing, and keep each choice as soon as it is measured."""
    for setting_name, setting in SETTINGS.items():
        for problem_name in setting.problems:
            problem = PROBLEMS[problem_name]
            found = figures.setdefault(setting_name, {}).setdefault(problem_name, {})
            for choice in setting.choices:
                if choice.label in found:
                    continue
                start = time.monotonic()
                steps = QUICK_STEPS if quick else setting.steps or problem.steps
                runs = [run(problem, setting, choice, seed, steps) for seed in range(seeds)]
                roots = [one.roots for one in runs if one.roots]
                found[choice.label] = {"losses": [one.loss for one in runs]}
                if roots:
                    found[choice.label]["roots"] = np.mean(roots, axis=0).tolist()
                path.write_text(
                    json.dumps({"machine": describe(), "figures": figures}, indent=1) + "\n",
                    encoding="utf-8",
                )
                took = time.monotonic() - start
                print(f"{setting_name}, {problem_name}, {choice.label}: {took:.1f} s", flush=True)


class Compared(NamedTuple):
    """A choice's losses by those of float32 with the same seeds."""

    ratio: float  # the mean over the seeds
    error: float  # its standard error
    within: bool  # whether the mean losses differ by no more than the standard error of their difference


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return statistics.fmean(values), 0.0
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def compared(found: Mapping[str, Any], label: str) -> Compared:
    losses, losses32 = (found[name]["losses"] for name in (label, FLOAT32.label))
    (mean, error), (mean32, error32) = _mean(losses), _mean(losses32)
    within = abs(mean - mean32) <= math.hypot(error, error32)
    return Compared(*_mean([a / b for a, b in zip(losses, losses32, strict=True)]), within)


# --- The page


def _columns(figures: Figures, names: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """The problems of some settings, of which all choices have been measured."""
    return [
        (", ".join([PROBLEMS[problem].title, *setting.split(", ")[1:]]), found)
        for problem in PROBLEMS
        for setting in names
        for found in [figures.get(setting, {}).get(problem, {})]
        if found.keys() >= {choice.label for choice in SETTINGS[setting].choices}
    ]


def _loss(one: Compared) -> str:
    if not math.isfinite(one.ratio):
        return "diverged"
    digits = 2 if one.ratio < 10 else 0
    text = f"{one.ratio:.{digits}f} ± {one.error:.{digits}f}"
    return text if one.within else f"**{text}**"


def losses_table(figures: Figures, names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row a choice; bold where the mean lies further from float32's than the standard error of their difference."""
    columns = _columns(figures, names)
    rows = [("", *(title for title, _ in columns))]
    means = (statistics.fmean(found[FLOAT32.label]["losses"]) for _, found in columns)
    rows.append((f"{FLOAT32.label}: the mean loss", *(f"{mean:.2g}" for mean in means)))
    for choice in SETTINGS[names[0]].choices[1:]:
        rows.append((choice.label, *(_loss(compared(found, choice.label)) for _, found in columns)))
    return rows


def rules_table(figures: Figures, names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row a rule."""
    labels = [choice.label for choice in SETTINGS[names[0]].choices[1:]]
    rows = [("rule", "lr", "the mean loss of float32", *labels)]
    for name in names:
        found = next((found for _, found in _columns(figures, [name])), None)
        if found is None:
            continue
        mean = statistics.fmean(found[FLOAT32.label]["losses"])
        cells = (_loss(compared(found, label)) for label in labels)
        rows.append((f"`{name}`", f"{SETTINGS[name].lr:g}", f"{mean:.2g}", *cells))
    return rows


def roots_table(figures: Figures, names: Sequence[str]) -> list[tuple[str, ...]]:
    columns = _columns(figures, names)
    rows = [("", *(title for title, _ in columns))]
    for choice in SETTINGS[names[0]].choices[1:]:
        cells = [found[choice.label].get("roots") for _, found in columns]
        if all(cells):
            shown = (", ".join(f"{root:.2f}" for root in cell) for cell in cells if cell)
            rows.append((choice.label, *shown))
    return rows


ADAMW = tuple(name for name in SETTINGS if SETTINGS[name].rule == "AdamW")
TABLES = {
    "losses": (losses_table, ADAMW),
    # With beta2 0.95 moments of elements that are seldom other than 0 vanish, and quotients say nothing.
    "roots": (roots_table, ADAMW[:1]),
    "Adan": (losses_table, ("Adan",)),
    "Adagrad": (losses_table, ("Adagrad",)),
    "Adagrad, roots": (roots_table, ("Adagrad",)),
    "rules": (rules_table, tuple(OTHERS)),
}


def write(folder: Path, figures: Figures) -> None:
    """Put the tables of what has been measured into the page, and the figure beside it."""
    page = folder / PAGE
    text = page.read_text(encoding="utf-8")
    for name, (table, settings) in TABLES.items():
        measured = any(_columns(figures, [setting]) for setting in settings)
        content = f"{markdown_table(table(figures, settings))}\n" if measured else ""
        text = fill(text, name, content)
    columns = _columns(figures, ADAMW)
    if columns:
        picture(folder / PICTURE, columns, SETTINGS[ADAMW[0]].choices[1:], compared)
    shown = f"![Losses by float32's, and the second moments]({PICTURE})\n" if columns else ""
    page.write_text(fill(text, "figure", shown), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of page, figures and picture")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    parser.add_argument("--quick", action="store_true", help="three steps and one seed")
    arguments = parser.parse_args()
    if arguments.quick and arguments.folder.resolve() == FOLDER.resolve():
        parser.error("--quick must go with a --folder of its own")
    path = arguments.folder / FIGURES
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures: Figures = {} if arguments.again else kept.get("figures", {})
    with threadpool_limits(1), instep.num_threads(1):
        measure(figures, path, 1 if arguments.quick else SEEDS, arguments.quick)
    write(arguments.folder, figures)


if __name__ == "__main__":
    main()
