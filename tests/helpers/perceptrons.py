"""Perceptrons of scikit-learn, small: how they are trained, and whether two are equal.

Import it after `pytest.importorskip("sklearn")`.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from sklearn.datasets import make_classification, make_regression
from sklearn.neural_network import MLPClassifier, MLPRegressor

import instep.sklearn

SMALL = {"hidden_layer_sizes": (7, 5), "batch_size": 32, "max_iter": 6, "random_state": 3}
WEIGHTED = "sample_weight" in inspect.signature(MLPClassifier.fit).parameters  # from 1.7 on

STATES = ("learning_rate", "t", "ms", "vs", "velocities")
RESULTS = ("coefs_", "intercepts_", "loss_curve_", "n_iter_", "t_", "loss_", "best_loss_")
RESULTS += ("validation_scores_", "best_validation_score_")


def data(kind: type[Any], count: int = 90) -> tuple[np.ndarray, np.ndarray]:
    if kind is MLPRegressor:
        X, y = make_regression(count, 6, random_state=1)
        return X, y / 100
    return make_classification(count, 6, n_informative=4, n_classes=3, random_state=1)


def unequal(one: Any, other: Any) -> list[str]:
    """Name what differs between two fitted perceptrons or their optimizers, by ==."""
    pairs = [(name, getattr(one, name, None), getattr(other, name, None)) for name in RESULTS]
    first, second = one._optimizer, other._optimizer
    pairs += [(name, getattr(first, name, None), getattr(second, name, None)) for name in STATES]
    return [name for name, a, b in pairs if not _equal(a, b)]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(np.all(one == other))


def by_fit(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    with on():
        return mlp.fit(*data(type(mlp)))


def by_warm_start(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    mlp.set_params(warm_start=True, max_iter=3)
    for _ in range(3):
        mlp = by_fit(mlp, on)
    return mlp


def parts(kind: type[Any]) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Calls of partial_fit."""
    X, y = data(kind)
    more: dict[str, Any] = {} if kind is MLPRegressor else {"classes": [0, 1, 2]}
    for rows in (slice(0, 50), slice(40, 90), slice(20, 60)):
        yield X[rows], y[rows], more
        more = {}


def by_parts(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    for X, y, more in parts(type(mlp)):
        with on():
            mlp.partial_fit(X, y, **more)
    return mlp


def by_parts_and_pickles(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    """scikit-learn#19626: the optimizer of an unpickled estimator went on with the old arrays."""
    for X, y, more in parts(type(mlp)):
        with on():
            before = pickle.dumps(mlp)
            mlp = pickle.loads(before).partial_fit(X, y, **more)
            assert unequal(mlp, pickle.loads(pickle.dumps(mlp))) == []
    return mlp


def by_fit_and_parts(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    return by_parts(by_fit(mlp, on), on)


def by_early_stopping(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Twice: the second time over the arrays of the best epoch."""
    mlp.set_params(early_stopping=True, max_iter=25, n_iter_no_change=2, warm_start=True)
    return by_fit(by_fit(mlp, on), on)


def by_sample_weight(mlp: Any, on: Callable[[], AbstractContextManager[Any]]) -> Any:
    X, y = data(type(mlp))
    with on():
        return mlp.fit(X, y, np.linspace(0.1, 2.0, len(X)))


WAYS = [by_fit, by_warm_start, by_parts, by_parts_and_pickles, by_fit_and_parts, by_early_stopping]
WAYS += [by_sample_weight] if WEIGHTED else []


def trained(
    way: Callable[..., Any], kind: type[Any], on: Callable[[], Any] = nullcontext, **settings: Any
) -> Any:
    return way(kind(**{**SMALL, **settings}), on)


def both(way: Callable[..., Any], kind: type[Any], **settings: Any) -> tuple[Any, Any]:
    """Train by scikit-learn's optimizers and by instep's."""
    ours = trained(way, kind, instep.sklearn.patched, **settings)
    assert type(ours._optimizer).__module__ == "instep.sklearn"
    return trained(way, kind, **settings), ours


def made_by() -> str:
    """Tell whose optimizer a perceptron gets; here, since processes of joblib import it by name."""
    return type(trained(by_fit, MLPClassifier)._optimizer).__module__
