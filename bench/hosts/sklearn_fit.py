"""`fit` of scikit-learn's MLPClassifier on its digits, by its own optimizers and inside `instep.sklearn.patched()`.

Both take turns in one process, a whole `fit` a turn. A third contestant takes no steps: what remains of its time is all
that another optimizer can't make faster.

    python bench/hosts/sklearn_fit.py [--batch 32 200] [--solver adam sgd] [--seconds 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

sys.path.append(str(Path(__file__).parents[1]))  # for the modules of bench/

import instep.sklearn
from machine import describe
from package import options as allowed
from package import turns
from tables import duration, plain_table

BATCHES = (32, 200)
SOLVERS = ("adam", "sgd")
DTYPES = ("float64", "float32")
HIDDEN = (256, 128)
TURN = 0.3  # seconds of scikit-learn's fit, about
THEIRS, OURS, NO_STEP = "scikit-learn", "instep", "no step"

Fit = Callable[[int], MLPClassifier]


def no_steps() -> AbstractContextManager[Any]:
    """Optimizers that do nothing."""
    names = {
        name: type(name, (getattr(_multilayer_perceptron, name),), {"update_params": nothing})
        for name in ("AdamOptimizer", "SGDOptimizer")
    }
    return mock.patch.multiple(_multilayer_perceptron, **names)


def nothing(optimizer: object, params: object, grads: object) -> None:
    del optimizer, params, grads


ON: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    THEIRS: nullcontext,
    OURS: instep.sklearn.patched,
    NO_STEP: no_steps,
}


def contestants(
    batch: int, solver: str, dtype: str, hidden: tuple[int, ...] = HIDDEN
) -> dict[str, Fit]:
    """For each contestant a function that fits for so many epochs."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)

    def fit(epochs: int, on: Callable[[], AbstractContextManager[Any]]) -> MLPClassifier:
        mlp = MLPClassifier(
            hidden,
            solver=solver,
            batch_size=batch,
            max_iter=epochs,
            n_iter_no_change=epochs,
            tol=0.0,
            random_state=0,
        )
        with on(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return mlp.fit(X, y)

    return {label: lambda epochs, on=on: fit(epochs, on) for label, on in ON.items()}


def seconds_of(fit: Fit, epochs: int) -> float:
    start = time.perf_counter()
    fit(epochs)
    return time.perf_counter() - start


def measure(
    batch: int, solver: str, dtype: str, seconds: float, hidden: tuple[int, ...] = HIDDEN
) -> dict[str, Any]:
    turns.keep_freed_memory()
    fits = contestants(batch, solver, dtype, hidden)
    seconds_of(fits[THEIRS], 1)  # with the caches cold
    epochs = max(1, round(TURN / seconds_of(fits[THEIRS], 1)))
    took = turns.take_turns(
        {label: lambda fit=fit: seconds_of(fit, epochs) / epochs for label, fit in fits.items()},
        seconds,
    )
    return {
        "epochs": epochs,
        "rounds": len(took[THEIRS]),
        "an epoch": {label: statistics.median(times) for label, times in took.items()},
        "times as fast": turns.ratio(took[THEIRS], took[OURS]),
        "times as fast, no step": turns.ratio(took[THEIRS], took[NO_STEP]),
    }


def as_text(found: dict[str, dict[str, Any]]) -> str:
    lines = [("an epoch", THEIRS, OURS, NO_STEP, "rounds", "times as fast", "no step")]
    for name, row in found.items():
        lines.append(
            (
                name,
                *(duration(row["an epoch"][label]) for label in (THEIRS, OURS, NO_STEP)),
                str(row["rounds"]),
                f"{row['times as fast']:.2f}",
                f"{row['times as fast, no step']:.2f}",
            )
        )
    return plain_table(lines)


def conditions() -> dict[str, Any]:
    """Machine and versions."""
    return {**describe(), "scikit-learn": sklearn.__version__, "numpy": np.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=allowed.count, nargs="+", default=list(BATCHES))
    parser.add_argument("--solver", choices=SOLVERS, nargs="+", default=list(SOLVERS))
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES))
    parser.add_argument("--hidden", type=allowed.count, nargs="+", default=list(HIDDEN))
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=20.0, help="of turns, for each row (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    report: dict[str, Any] = {"machine": conditions(), "rows": {}}
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    for dtype in asked.dtype:
        for solver in asked.solver:
            for batch in asked.batch:
                row = measure(batch, solver, dtype, asked.seconds, tuple(asked.hidden))
                report["rows"][f"{solver}, {dtype}, batch {batch}"] = row
    print(f"\n{as_text(report['rows'])}")
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
