"""`for_`, and what the face of scikit-learn refuses: one line each, nothing changed."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'instep[sklearn]'"
)

import sklearn
from perceptrons import SMALL, by_fit, by_parts, data, trained, unequal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import (
    MLPClassifier,
    MLPRegressor,
    _multilayer_perceptron,
    _stochastic_optimizers,
)
from sklearn.pipeline import make_pipeline

import instep
import instep.sklearn
from instep.sklearn import SGD, Adam, patched

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

OURS = {"adam": Adam, "sgd": SGD}

# --- for_


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("way", [by_parts, by_fit])
@pytest.mark.parametrize("solver", OURS)
def test_an_optimizer_goes_on_where_scikit_learns_was(solver: str, way: Any, kind: Any) -> None:
    settings = {"solver": solver, "learning_rate": "invscaling"}
    theirs, ours = (trained(way, kind, **settings) for _ in range(2))
    before = ours._optimizer
    moments = pickle.dumps(before)
    new = OURS[solver].for_(ours)
    assert ours._optimizer is new
    assert type(new) is OURS[solver]
    assert unequal(theirs, ours) == []
    assert unequal(by_parts(theirs, nullcontext), by_parts(ours, nullcontext)) == []
    assert pickle.dumps(before) == moments, "its arrays were stepped"
    assert OURS[solver].for_(ours) is new is ours._optimizer


@pytest.mark.parametrize("solver", OURS)
def test_float32_parameters_whose_gradients_were_float64(solver: str) -> None:
    """scikit-learn's moments are float64 then; the rule's are float32."""
    X, y = data(MLPRegressor)
    theirs, ours = (MLPRegressor(**SMALL, solver=solver) for _ in range(2))
    for mlp in (theirs, ours):
        mlp.partial_fit(X.astype(np.float32), y)
        mlp.partial_fit(X, y)
    new = OURS[solver].for_(ours)
    for mlp in (theirs, ours):
        mlp.partial_fit(X, y)
    assert new is ours._optimizer
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-5)
    moments = [*(new.ms if solver == "adam" else new.velocities), *ours.coefs_]
    assert {array.dtype for array in moments} == {np.dtype(np.float32)}


def test_a_class_of_ones_own() -> None:
    class Own(Adam):
        pass

    ours = trained(by_parts, MLPClassifier)
    assert type(Own.for_(ours)) is Own
    assert isinstance(Adam.for_(ours), Own)


class Other(_stochastic_optimizers.AdamOptimizer):  # type: ignore[misc]
    pass


def other() -> Any:
    mlp = trained(by_parts, MLPClassifier)
    mlp._optimizer.__class__ = Other
    return mlp


REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    (
        Adam,
        lambda: MLPClassifier(**SMALL),
        NotFittedError,
        "estimator must be fitted, got a MLPClassifier that is not; call partial_fit first",
    ),
    (
        Adam,
        lambda: trained(by_fit, MLPClassifier, solver="lbfgs"),
        ValueError,
        "the estimator's solver must be 'adam', got 'lbfgs'; other solvers take no steps of an optimizer",
    ),
    (
        Adam,
        lambda: trained(by_parts, MLPClassifier, solver="sgd"),
        ValueError,
        "the estimator's solver must be 'adam', got 'sgd'; use SGD.for_",
    ),
    (
        SGD,
        lambda: trained(by_parts, MLPRegressor, patched),
        ValueError,
        "the estimator's solver must be 'sgd', got 'adam'; use Adam.for_",
    ),
    (
        SGD,
        lambda: trained(by_parts, MLPRegressor).set_params(solver="sgd"),
        TypeError,
        "the estimator's optimizer must be scikit-learn's SGDOptimizer, got an AdamOptimizer; call "
        "fit, which makes a new optimizer",
    ),
    (
        Adam,
        other,
        TypeError,
        "the estimator's optimizer must be scikit-learn's AdamOptimizer, got an Other; call fit, "
        "which makes a new optimizer",
    ),
    *(
        (
            Adam,
            lambda wrong=wrong: wrong,
            TypeError,
            f"estimator must be an MLPClassifier or MLPRegressor of scikit-learn, got {found}",
        )
        for wrong, found in (
            (None, "None"),
            (MLPClassifier, "the class MLPClassifier"),
            (SGDClassifier(), "a SGDClassifier"),
            (make_pipeline(MLPClassifier()), "a Pipeline; pass its last step, pipeline[-1]"),
        )
    ),
]


@pytest.mark.parametrize(
    ("ours", "make", "error", "words"), REFUSED, ids=[words for *_, words in REFUSED]
)
def test_for_refuses(ours: Any, make: Any, error: type[Exception], words: str) -> None:
    estimator = make()
    before = getattr(estimator, "_optimizer", None)
    with pytest.raises(error, match=f"^{re.escape(words)}$"):
        ours.for_(estimator)
    assert getattr(estimator, "_optimizer", None) is before


# --- Steps


def test_arrays_that_cannot_be_used() -> None:
    ours = trained(by_parts, MLPClassifier, patched)
    optimizer, params = ours._optimizer, ours.coefs_ + ours.intercepts_
    grads = [np.ones_like(param) for param in params]
    before = pickle.dumps(ours)
    words = r"^params must be a list of 6 arrays, as when the optimizer was made, got a list of 4$"
    with pytest.raises(ValueError, match=words):
        optimizer.update_params(params[:4], grads[:4])
    with pytest.raises(ValueError, match=r"^the gradient of 'intercepts_\[2\]' must have shape"):
        optimizer.update_params(params, [*grads[:5], np.ones(8)])
    others = [param.copy() for param in params]
    others[1] = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"^state 'exp_avg' of 'coefs_\[1\]' must have shape"):
        optimizer.update_params(others, grads)
    others[1] = [1.0]
    with pytest.raises(TypeError, match=r"^parameter 'coefs_\[1\]' must be"):
        optimizer.update_params(others, grads)
    optimizer.beta_1 = 1.0
    with pytest.raises(ValueError, match=r"^beta1 of group 0 must be"):
        optimizer.update_params(params, grads)
    optimizer.beta_1 = 0.9
    assert pickle.dumps(ours) == before
    optimizer.update_params(params, grads)
    assert pickle.dumps(ours) != before


def test_no_parameters() -> None:
    optimizer = Adam([])
    optimizer.update_params([], [])
    assert (optimizer.t, optimizer.learning_rate) == (0, 0.001)


# --- Releases of scikit-learn


@pytest.fixture
def face_anew(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """A function that imports the face as if for the first time."""

    def face() -> ModuleType:
        return importlib.import_module("instep.sklearn")

    monkeypatch.setattr(instep, "sklearn", instep.sklearn)  # puts it back
    for name in [name for name in sys.modules if name.startswith("instep.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    return face


def test_the_face_can_be_imported_anew(face_anew: Callable[[], ModuleType]) -> None:
    before = instep.sklearn
    assert dir(face_anew()) == sorted(before.__all__) == dir(before)
    assert face_anew() is not before


LACKING = [
    (_multilayer_perceptron, "SGDOptimizer", "_multilayer_perceptron.SGDOptimizer"),
    (_stochastic_optimizers, "AdamOptimizer", "_stochastic_optimizers.AdamOptimizer"),
    (
        _stochastic_optimizers.SGDOptimizer,
        "trigger_stopping",
        "_stochastic_optimizers.SGDOptimizer.trigger_stopping",
    ),
]


@pytest.mark.parametrize(("owner", "name", "path"), LACKING, ids=[path for *_, path in LACKING])
def test_a_release_that_lacks_a_name(
    owner: Any, name: str, path: str, monkeypatch: pytest.MonkeyPatch, face_anew: Any
) -> None:
    monkeypatch.setattr(owner, name, None)
    words = (
        f"instep.sklearn needs sklearn.neural_network.{path}, which sklearn {sklearn.__version__} "
        "lacks; instep was tested with sklearn 1.2 to 1.9"
    )
    with pytest.raises(ImportError, match=f"^{re.escape(words)}$"):
        face_anew()


def test_a_release_whose_optimizer_keeps_the_parameters(
    monkeypatch: pytest.MonkeyPatch, face_anew: Any
) -> None:
    def update_params(self: object, grads: object) -> None:
        """As before scikit-learn 0.24.2."""

    monkeypatch.setattr(_stochastic_optimizers.AdamOptimizer, "update_params", update_params)
    words = r"^instep.sklearn needs AdamOptimizer.update_params\(params, grads\), which sklearn .* lacks; .*$"
    with pytest.raises(ImportError, match=words):
        face_anew()


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, face_anew: Any) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    words = "instep.sklearn needs scikit-learn, which is missing; pip install 'instep[sklearn]'"
    with pytest.raises(ImportError, match=f"^{re.escape(words)}$"):
        face_anew()
