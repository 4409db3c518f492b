"""scikit-learn's perceptrons get the same numbers from instep's steps, by ==."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'instep[sklearn]'"
)

from perceptrons import SMALL, WAYS, both, by_fit, by_parts, data, trained, unequal
from scipy import sparse
from sklearn.datasets import make_multilabel_classification
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor

import instep.sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"solver": "adam"},
    "adam, other numbers": {"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-3, "learning_rate_init": 1},
}
SOLVERS |= {
    f"sgd {rate} {momentum} {nesterov=}": {
        "solver": "sgd",
        "learning_rate": rate,
        "learning_rate_init": 0.05,
        "momentum": momentum,
        "nesterovs_momentum": nesterov,
    }
    for rate, momentum, nesterov in itertools.product(
        ("constant", "invscaling", "adaptive"), (0.0, 0.9), (False, True)
    )
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_numbers(solver: str, way: Any) -> None:
    theirs, ours = both(way, MLPClassifier, **SOLVERS[solver])
    assert unequal(theirs, ours) == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_same_numbers_in_regression(solver: str, way: Any) -> None:
    theirs, ours = both(way, MLPRegressor, solver=solver)
    assert unequal(theirs, ours) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": "auto"},
        {"batch_size": 1, "max_iter": 2},
        {"batch_size": 90, "shuffle": False},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (3,) * 9, "activation": "tanh"},
        {"alpha": 0.5},
        {"alpha": 0.0, "activation": "logistic"},
        {"learning_rate_init": 1e-300},
        {"max_iter": 500, "tol": 1e-2},
    ],
    ids=str,
)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_same_numbers_with_other_settings(solver: str, settings: dict[str, Any]) -> None:
    theirs, ours = both(by_fit, MLPClassifier, solver=solver, **settings)
    assert unequal(theirs, ours) == []
    assert ours.n_iter_ < 500


@pytest.mark.parametrize(
    "form", ["csr", "csc", "two classes", "labels", "fortran", "float targets"]
)
def test_the_same_numbers_from_other_data(form: str) -> None:
    X, y = data(MLPClassifier)
    kind: Any = MLPClassifier
    if form in ("csr", "csc"):
        X = sparse.random(90, 6, 0.3, form, random_state=1)
    elif form == "two classes":
        y = y > 1
    elif form == "labels":
        X, y = make_multilabel_classification(90, 6, random_state=1)
    elif form == "fortran":
        X = np.asfortranarray(X)
    else:
        kind, y = MLPRegressor, np.stack([y, y**2], axis=1) / 3
    found = []
    for on in (nullcontext, instep.sklearn.patched):
        with on():
            found.append(kind(**SMALL).fit(X, y))
    assert unequal(*found) == []


def test_an_adaptive_rate_falls_by_the_same_steps(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1}
    theirs, ours = both(by_fit, MLPClassifier, max_iter=500, verbose=True, **settings)
    assert unequal(theirs, ours) == []
    assert 0 < ours._optimizer.learning_rate <= 1e-6
    words = capsys.readouterr().out.splitlines()
    first, second = words[: len(words) // 2], words[len(words) // 2 :]
    assert first == second
    assert "Learning rate too small. Stopping." in first[-1]


@pytest.mark.parametrize("form", ["fortran", "views"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_new_arrays_of_parameters_are_stepped(solver: str, form: str) -> None:
    theirs, ours = both(by_parts, MLPClassifier, solver=solver)
    for mlp in (theirs, ours):
        if form == "fortran":
            mlp.coefs_ = [np.asfortranarray(w + 1) for w in mlp.coefs_]
        else:  # of one array, as after lbfgs
            flat = np.concatenate([w.ravel() for w in mlp.coefs_])
            ends = np.cumsum([w.size for w in mlp.coefs_])
            pieces = np.split(flat, ends[:-1])
            mlp.coefs_ = [p.reshape(w.shape) for p, w in zip(pieces, mlp.coefs_, strict=True)]
        by_parts(mlp, nullcontext)
    assert unequal(theirs, ours) == []


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_float32(solver: str, kind: Any) -> None:
    """scikit-learn computes some of it in float64."""
    X, y = data(kind)
    found = []
    for on in (nullcontext, instep.sklearn.patched):
        with on():
            mlp = kind(**SMALL, solver=solver).fit(X.astype(np.float32), y)
            mlp.partial_fit(X, y)  # float64 gradients for float32 parameters
        assert {w.dtype for w in mlp.coefs_} == {np.dtype(np.float32)}
        found.append(mlp)
    theirs, ours = found
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-4)
    for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
        assert np.abs(a - b).max() < 1e-4 * np.abs(a).max()


def test_other_networks_are_left_alone() -> None:
    X = np.random.default_rng(1).random((40, 6))
    found = []
    for on in (nullcontext, instep.sklearn.patched):
        with on():
            found.append(BernoulliRBM(4, random_state=1).fit(X))
            found.append(trained(by_fit, MLPClassifier, solver="lbfgs"))
    assert np.array_equal(found[0].components_, found[2].components_)
    assert all(map(np.array_equal, found[1].coefs_, found[3].coefs_))
    assert not hasattr(found[3], "_optimizer")
