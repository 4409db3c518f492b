"""The problem that several examples share: linear regression, a straight line through points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from picture import GREY


class StraightLine:
    """A hundred points of y = 4 + 3x + noise, x in [0, 2]; theta is (intercept, slope)."""

    def __init__(self, points: int = 100) -> None:
        rng = np.random.default_rng(0)
        x = rng.uniform(0, 2, points)
        self.features = np.column_stack([np.ones(points), x])
        self.y = 4 + 3 * x + rng.standard_normal(points)
        self.best = np.linalg.lstsq(self.features, self.y, rcond=None)[0]

    def excess(self, theta: np.ndarray) -> float:
        """Return how much the loss, the mean squared error, exceeds the least-squares loss."""
        difference = self.features @ (theta - self.best)
        return float(np.mean(difference**2))  # since best residuals are orthogonal to features

    def report(self, theta: np.ndarray) -> str:
        """Return a text with theta and the loss at theta."""
        loss, excess = np.mean((self.features @ theta - self.y) ** 2), self.excess(theta)
        return (
            f"theta = ({theta[0]:.4f}, {theta[1]:.4f}), "
            f"mean squared error {loss:.4f}, {excess:.2e} above the least"
        )

    def gradient(self, theta: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Return the gradient of the mean squared error over all points, or over some rows."""
        features = self.features[rows]
        return 2 * features.T @ (features @ theta - self.y[rows]) / len(features)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the row numbers of each batch of an epoch: every point once, in random order."""
        order = rng.permutation(len(self.y))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def draw(self, axes: Any, paths: Mapping[str, np.ndarray], unit: str, limit: float) -> None:
        """Draw the paths of theta, by name, and the distance from the best loss along each path.

        A path has a row for each `unit` of time; contours reach from 0 to `limit`.
        """
        valley, losses = axes
        intercept, slope = np.meshgrid(*2 * [np.linspace(-0.3, limit, 80)])
        thetas = np.stack([intercept.ravel(), slope.ravel()], axis=1)
        excess = np.reshape([self.excess(theta) for theta in thetas], intercept.shape)
        levels = np.geomspace(0.01, excess.max(), 14)
        valley.contour(intercept, slope, excess, levels, colors=GREY, linewidths=0.8)
        valley.plot([], [], color=GREY, linewidth=0.8, label="equal loss")
        valley.plot(*self.best, "*", color="black", markersize=13, zorder=5, label="least squares")
        for name, path in paths.items():
            valley.plot(*path.T, ".-", linewidth=1.2, markersize=6, label=name)
            losses.semilogy([self.excess(theta) for theta in path], label=name)
        valley.set(title=f"Theta after each {unit}, in the valley of the loss")
        valley.set(xlabel="intercept", ylabel="slope")
        losses.set(title="How far from the best", xlabel=unit)
        losses.set_ylabel("mean squared error above the least")
