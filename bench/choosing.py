"""Every rule on three small problems: the tables and the figure of docs/choosing.md.

`python bench/choosing.py` makes them anew. All random numbers have fixed seeds.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import instep
from instep.commands.demo.digits import load_digits
from instep.commands.demo.mlp import MLP
from pictures import COLOURS, DPI, GRID, OURS, PEER, SETTINGS
from tables import put

PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
PICTURE = "choosing.png"  # beside the page

Arrays = dict[str, np.ndarray]

# The order of the rows: relatives stand together.
FAMILIES = (
    ("SGD", "Momentum", "ASGD", "ScheduleFreeSGD", "LARS", "Muon"),
    ("Signum", "Lion", "Rprop"),
    ("Adagrad", "FTRL", "Adadelta", "RMSprop"),
    ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "AdaBelief", "Yogi"),
    ("ADOPT", "AdEMAMix", "Adan", "ScheduleFreeAdamW", "LAMB", "Prodigy"),
)
RULES = tuple(name for family in FAMILIES for name in family)

# Times the default rate. Most defaults are for large networks: small problems bear larger rates.
FACTORS = (1.0, 5.0, 25.0, 125.0, 625.0)
OWN_FACTORS = {
    "ASGD": (0.2, 1.0, 5.0, 25.0, 125.0),
    "LARS": (0.2, 1.0, 5.0, 25.0, 125.0),
    "Adadelta": (0.2, 1.0, 5.0, 25.0, 125.0),
    "ScheduleFreeSGD": (0.002, 0.02, 0.2, 1.0, 5.0),
    "Prodigy": (0.1, 0.3, 1.0, 3.0, 10.0),
}

# --- The problems


class Run(NamedTuple):
    """Parameters, their gradients at a step, and what is to be minimised: the loss over all data."""

    params: Arrays
    gradients: Callable[[], Arrays]
    loss: Callable[[], float]


class Problem(NamedTuple):
    title: str
    steps: int
    seeds: int
    l1: float
    start: Callable[[int], Run]
    logarithmic: bool


def rosenbrock(seed: int) -> Run:
    """(1 - x)² + 100 (y - x²)² from (-1.2, 1); nothing is random."""
    w = np.array([-1.2, 1.0])

    def gradients() -> Arrays:
        x, y = w
        return {"w": np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])}

    def loss() -> float:
        x, y = w
        return float((1 - x) * (1 - x) + 100 * (y - x * x) * (y - x * x))

    return Run({"w": w}, gradients, loss)


BATCH = 64


def _batches(rng: np.random.Generator, size: int, count: int = BATCH) -> Iterator[np.ndarray]:
    """Numbers below size, each once an epoch, without end."""
    while True:
        order = rng.permutation(size)
        for first in range(0, size - count + 1, count):
            yield order[first : first + count]


@functools.cache
def _digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(np.random.default_rng(seed)).train
    return images.astype(np.float64), labels


def digits(seed: int, whole: bool = False) -> Run:
    """The network of `instep demo`, smaller, in float64; whole: a step uses all images."""
    images, labels = _digits(seed)
    rng = np.random.default_rng(seed)
    net = MLP([64, 32, 10], rng, np.float64)
    batches = _batches(rng, len(labels), len(labels) if whole else BATCH)

    def gradients() -> Arrays:
        batch = next(batches)
        return net.loss_and_gradients(images[batch], labels[batch])[1]

    return Run(net.params, gradients, lambda: net.loss_and_gradients(images, labels)[0])


FEATURES, INFORMATIVE, EXAMPLES = 500, 30, 2000
L1 = 1e-3


@functools.cache
def _clicks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that are 0 or 1, few of them frequent, and labels of -1 and 1."""
    rng = np.random.default_rng(seed)
    frequency = 0.5 / (1 + np.arange(FEATURES) / 5)
    x = (rng.random((EXAMPLES, FEATURES)) < frequency).astype(np.float64)
    truth = np.zeros(FEATURES)
    truth[rng.choice(200, INFORMATIVE, replace=False)] = rng.choice([-3.0, 3.0], INFORMATIVE)
    return x, np.where(rng.random(EXAMPLES) < 1 / (1 + np.exp(-x @ truth)), 1.0, -1.0)


def sparse(seed: int) -> Run:
    """Logistic regression with L1, from zeros."""
    x, y = _clicks(seed)
    w = np.zeros(FEATURES)
    batches = _batches(np.random.default_rng(seed), EXAMPLES)

    def gradients() -> Arrays:
        batch = next(batches)
        features, labels = x[batch], y[batch]
        share = 1 / (1 + np.exp(labels * (features @ w)))
        return {"w": features.T @ (-labels * share) / len(batch)}

    def loss() -> float:
        return float(np.mean(np.logaddexp(0, -y * (x @ w))) + L1 * np.abs(w).sum())

    return Run({"w": w}, gradients, loss)


class Problems(NamedTuple):
    rosenbrock: Problem
    digits: Problem
    sparse: Problem


PROBLEMS = Problems(
    Problem("Rosenbrock", 500, 1, 0.0, rosenbrock, True),
    Problem("digits", 300, 3, 0.0, digits, True),
    Problem("sparse", 400, 3, L1, sparse, False),
)

# --- The runs


def default_lr(rule: str) -> float:
    return float(inspect.signature(getattr(instep, rule)).parameters["lr"].default)


def rates(rule: str) -> list[float]:
    """Five learning rates, the default among them."""
    return [factor * default_lr(rule) for factor in OWN_FACTORS.get(rule, FACTORS)]


def _train(problem: Problem, rule: str, seed: int, **options: Any) -> tuple[float, int]:
    """Return the loss at the end, and how many numbers are not zero."""
    run = problem.start(seed)
    if each := problem.l1:
        # FTRL's l1 counts once, for the sum of all gradients: in step with a penalty at each step.
        options["l1"] = (lambda step: each * (step + 1)) if rule == "FTRL" else each
    mine = {name: p for name, p in run.params.items() if rule != "Muon" or p.ndim == 2}
    others = {name: p for name, p in run.params.items() if name not in mine}
    optimizer = getattr(instep, rule)(mine, **options)
    optimizers = [optimizer, instep.AdamW(others, **options)] if others else [optimizer]
    with np.errstate(all="ignore"):  # a rate that is too large diverges
        for _ in range(problem.steps):
            gradients = run.gradients()
            for one in optimizers:
                one.step({name: gradients[name] for name in one.params})
        if rule.startswith("ScheduleFree") or rule == "ASGD":
            with optimizer.averaged():
                loss = run.loss()
        else:
            loss = run.loss()
    return loss, sum(int(np.count_nonzero(w)) for w in run.params.values())


class Result(NamedTuple):
    """Medians over the seeds."""

    lr: float
    loss: float
    nonzero: float
    worst: float  # the loss of the worst seed


def result(problem: Problem, rule: str, lr: float, **options: Any) -> Result:
    found = [_train(problem, rule, seed, lr=lr, **options) for seed in range(problem.seeds)]
    losses = [loss if math.isfinite(loss) else math.inf for loss, _ in found]
    nonzero = float(np.median([count for _, count in found]))
    return Result(lr, float(np.median(losses)), nonzero, max(losses))


class Found(NamedTuple):
    default: Result
    best: Result


def suits(problem: Problem, rule: str) -> bool:
    """Muon is for matrices: only the network has some."""
    return rule != "Muon" or any(p.ndim == 2 for p in problem.start(0).params.values())


def compare(problem: Problem, rule: str, **options: Any) -> Found:
    results = [result(problem, rule, lr, **options) for lr in rates(rule)]
    (default,) = (one for one in results if one.lr == default_lr(rule))
    return Found(default, min(results, key=lambda one: one.loss))


def start_loss(problem: Problem) -> float:
    return float(np.median([problem.start(seed).loss() for seed in range(problem.seeds)]))


# --- The page


def number(loss: float, start: float) -> str:
    if not loss <= start:
        return "higher" if math.isfinite(loss) else "diverges"
    return f"{loss:.2f}" if loss >= 1 else f"{loss:.3f}" if loss >= 0.01 else f"{loss:.2g}"


def in_order(found: Mapping[str, Mapping[str, Found]]) -> list[str]:
    return [rule for rule in RULES if any(rule in by_rule for by_rule in found.values())]


def losses_table(
    found: Mapping[str, Mapping[str, Found]], starts: Mapping[str, float]
) -> list[tuple[str, ...]]:
    """A row a rule; the three least of a column are bold."""
    header = ["rule"]
    for title in found:
        header += [f"{title}: default", "best", "at lr"]
    rows = [tuple(header)]
    for rule in in_order(found):
        cells = [f"`{rule}`"]
        for title, by_rule in found.items():
            if rule not in by_rule:
                cells += ["", "", ""]
                continue
            for kind in ("default", "best"):
                loss = getattr(by_rule[rule], kind).loss
                least = sorted(getattr(one, kind).loss for one in by_rule.values())[:3]
                text = number(loss, starts[title])
                cells.append(f"**{text}**" if loss in least else text)
            best = by_rule[rule].best
            cells.append(f"{best.lr:g}" if best.loss <= starts[title] else "")
        rows.append(tuple(cells))
    return rows


DECOUPLED = ("SGD", "Adagrad", "Adam")


def zeros_table(problem: Problem, by_rule: Mapping[str, Found]) -> list[tuple[str, ...]]:
    """Weights that are not zero, with L1 in the gradient and with L1 as a step of its own."""
    best = {rule: by_rule[rule].best for rule in ("FTRL", *DECOUPLED) if rule in by_rule}
    for rule in DECOUPLED:
        label = f"{rule}(decoupled_l1=True)"
        best[label] = compare(problem, rule, decoupled_l1=True).best
    rows = [("rule", "best loss", "at lr", "weights other than 0")]
    for label, one in best.items():
        rows.append((f"`{label}`", f"{one.loss:.3f}", f"{one.lr:g}", f"{one.nonzero:.0f}"))
    return rows


def asides_table(problems: Problems) -> list[tuple[str, ...]]:
    """Single runs that the text of the page speaks of."""
    small, net, _ = problems
    whole = net._replace(start=functools.partial(digits, whole=True))
    runs = (
        ("RAdam", 0.125, small, {"clip_norm": 1.0}),
        ("Lion", 0.004, net, {}),
        ("Rprop", 0.01, whole, {}),
        ("Adam", 0.025, whole, {}),
    )
    rows = [("run", "problem", "loss", "loss of the worst seed")]
    for rule, lr, problem, options in runs:
        arguments = ", ".join(f"{key}={value:g}" for key, value in {"lr": lr, **options}.items())
        where = problem.title + (", all images at each step" if problem is whole else "")
        found, start = result(problem, rule, lr, **options), start_loss(problem)
        losses = (number(found.loss, start), number(found.worst, start))
        rows.append((f"`{rule}({arguments})`", where, *losses))
    return rows


def _panel(
    axes: Axes, problem: Problem, by_rule: Mapping[str, Found], start: float, rules: Sequence[str]
) -> None:
    """A line a rule, from the loss at its default to the loss at its best rate."""
    least = min(found.best.loss for found in by_rule.values())
    left, right = (least / 2, start * 2) if problem.logarithmic else (least - 0.01, 0.72)
    if problem.logarithmic:
        axes.set_xscale("log")
    for y, found in ((rules.index(rule), found) for rule, found in by_rule.items()):
        default, best = (min(max(one.loss, left), right) for one in found)
        axes.plot([default, best], [y, y], color=PEER, linewidth=1.5, zorder=1)
        for x, one, filled in ((default, found.default, False), (best, found.best, True)):
            worse = not one.loss <= start
            colour = COLOURS["torch fused"] if filled else COLOURS[OURS]
            style = {
                "color": colour,
                "markersize": 5 if filled else 8,
                "zorder": 2 + filled,
                "clip_on": False,
            }
            style |= (
                {"marker": "x"} if worse else {"marker": "o", "mfc": colour if filled else "white"}
            )
            axes.plot([x], [y], **style)
    axes.axvline(start, color=PEER, linestyle=":", linewidth=1)
    axes.set_xlim(left, right)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    title = f"{problem.title}, {problem.steps} steps"
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("loss at the end" + (" (logarithmic)" if problem.logarithmic else ""))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def picture(
    path: Path,
    problems: Sequence[Problem],
    found: Mapping[str, Mapping[str, Found]],
    starts: Mapping[str, float],
) -> None:
    rules = in_order(found)
    legend = [
        Line2D([], [], color=COLOURS[OURS], marker="o", mfc="white", linestyle="", label="default"),
        Line2D(
            [], [], color=COLOURS["torch fused"], marker="o", linestyle="", label="best of five"
        ),
        Line2D([], [], color="#5B6570", marker="x", linestyle="", label="worse than the start"),
        Line2D([], [], color=PEER, linestyle=":", label="the start"),
    ]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(12, 1.6 + 0.27 * len(rules)), dpi=DPI, layout="constrained")
        panels = figure.subplots(1, len(problems), sharey=True, squeeze=False)[0]
        for axes, problem in zip(panels, problems, strict=True):
            _panel(axes, problem, found[problem.title], starts[problem.title], rules)
        panels[0].set_yticks(range(len(rules)), rules)
        panels[0].set_ylim(len(rules) - 0.5, -0.5)
        figure.legend(handles=legend, loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(path)


def write(page: Path, problems: Problems, rules: Sequence[str]) -> None:
    """Put the tables into the page, and the figure beside it."""
    found = {p.title: {r: compare(p, r) for r in rules if suits(p, r)} for p in problems}
    starts = {problem.title: start_loss(problem) for problem in problems}
    tables = {
        "losses": losses_table(found, starts),
        "zeros": zeros_table(problems.sparse, found[problems.sparse.title]),
        "asides": asides_table(problems),
    }
    text = page.read_text(encoding="utf-8")
    for name, rows in tables.items():
        text = put(text, name, rows)
    page.write_text(text, encoding="utf-8")
    picture(page.with_name(PICTURE), problems, found, starts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write into")
    write(parser.parse_args().page, PROBLEMS, RULES)
