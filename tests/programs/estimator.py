"""Softmax regression as an estimator of scikit-learn's kind, which takes the class of the optimizer as a parameter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import instep
from instep.typing import Number

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.generic]


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear classification by mini-batches."""

    def __init__(
        self,
        rule: type[instep.Optimizer] = instep.Adam,
        lr: Number = 0.01,
        weight_decay: Number = 0.0,
        epochs: int = 5,
    ) -> None:
        self.rule = rule
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs

    def fit(self, X: Floats, y: Labels) -> SoftmaxRegression:
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.coef_ = np.zeros((X.shape[1], len(self.classes_)))
        self.intercept_ = np.zeros(len(self.classes_))
        self.optimizer_ = self.rule(
            [self.coef_, self.intercept_], lr=self.lr, weight_decay=self.weight_decay
        )
        rng = np.random.default_rng(0)
        targets = np.eye(len(self.classes_))[labels]
        for _ in range(self.epochs):
            order = rng.permutation(len(X))
            for rows in np.array_split(order, max(len(X) // 50, 1)):
                error = (self.predict_proba(X[rows]) - targets[rows]) / len(rows)
                self.optimizer_.step([X[rows].T @ error, error.sum(axis=0)])
        return self

    def predict_proba(self, X: Floats) -> Floats:
        logits = X @ self.coef_ + self.intercept_
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = odds / odds.sum(axis=1, keepdims=True)
        return shares

    def predict(self, X: Floats) -> Labels:
        told: Labels = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return told


def main() -> None:
    X, y = (array[:900] for array in load_digits(return_X_y=True))
    X = X / 16.0
    model = make_pipeline(StandardScaler(), SoftmaxRegression(rule=instep.SGD, lr=0.05))
    print("SGD:", *cross_val_score(model, X, y, cv=3))
    search = GridSearchCV(SoftmaxRegression(), {"lr": [0.0001, 0.05], "rule": [instep.AdamW]}, cv=2)
    search.fit(X, y)
    print("best rate and its score:", search.best_params_["lr"], search.best_score_)
    again = clone(search.best_estimator_).fit(X, y)
    print("fits alike:", np.array_equal(again.coef_, search.best_estimator_.coef_))
    print("steps:", again.optimizer_.step_count)


if __name__ == "__main__":
    main()
