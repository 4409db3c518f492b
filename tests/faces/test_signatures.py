"""The recipes of docs/recipes-signatures.md beside the originals whose signatures they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "recipes-signatures.md"


def recipe(heading: str) -> dict[str, Any]:
    """The names that the recipe under this heading defines."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"## {heading}")
    (program, *_) = re.findall(r"^```python\n(.*?)^```", rest, re.M | re.S)
    names: dict[str, Any] = {}
    exec(program, names)
    return names


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(abs(found - expected).max() <= 1e-12 * abs(expected).max())


class OfEvolutionStrategies:
    """The arithmetic of es_distributed/optimizers.py, which adds epsilon to the uncorrected root."""

    def __init__(self, theta: np.ndarray, stepsize: float) -> None:
        self.theta, self.stepsize, self.t = theta, stepsize, 0
        self.m = self.v = np.zeros(theta.shape)

    def update(self, g: np.ndarray) -> float:
        self.t += 1
        a = self.stepsize * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        self.m = 0.9 * self.m + (1 - 0.9) * g
        self.v = 0.999 * self.v + (1 - 0.999) * (g * g)
        step = -a * self.m / (np.sqrt(self.v) + 1e-8)
        ratio = np.linalg.norm(step) / np.linalg.norm(self.theta)
        self.theta = self.theta + step
        return float(ratio)


def test_evolution_strategies() -> None:
    rng = np.random.default_rng(0)
    names = recipe("Evolution strategies")
    policy = names["Policy"]()
    policy.trainable_flat = rng.standard_normal(50)
    mine, theirs = names["Adam"](policy, 0.02), OfEvolutionStrategies(policy.trainable_flat, 0.02)
    for _ in range(100):
        g = rng.standard_normal(50)
        assert np.isclose(mine.update(g), theirs.update(g), rtol=1e-10)
        assert close(policy.trainable_flat, theirs.theta)


def test_autograd() -> None:
    optimizers = pytest.importorskip(
        "autograd.misc.optimizers", reason="autograd is not installed: pip install autograd"
    )
    names = recipe("autograd")
    start = {"a": [(np.ones((2, 3)), np.arange(3.0))], "b": np.array(2.0)}

    def grad(x: Any, i: int) -> Any:
        ((w, b),) = x["a"]
        return {"a": [(w - i, np.sin(b) + 0.1 * i)], "b": x["b"] ** 3}

    calls: tuple[list[Any], list[Any]] = ([], [])
    ends = [
        adam(grad, start, lambda x, i, g, to=to: to.append((i, float(x["b"]))), 150, 0.03)
        for adam, to in zip((names["adam"], optimizers.adam), calls, strict=True)
    ]
    mine, theirs = ends
    for found, expected in zip(mine["a"][0], theirs["a"][0], strict=True):
        assert close(found, expected)
    assert close(mine["b"], theirs["b"])
    assert [i for i, _ in calls[0]] == [i for i, _ in calls[1]] == list(range(150))
    assert np.allclose([b for _, b in calls[0]], [b for _, b in calls[1]], rtol=1e-12)
    assert (start["a"][0][0] == 1).all()  # type: ignore[index]


class OfTheBook:
    """The arithmetic of Adam in Deep Learning from Scratch (common/optimizer.py)."""

    def __init__(self, lr: float) -> None:
        self.lr, self.t = lr, 0
        self.m: dict[str, Any] = {}
        self.v: dict[str, Any] = {}

    def update(self, params: dict[str, Any], grads: dict[str, Any]) -> None:
        self.t += 1
        lr = self.lr * np.sqrt(1.0 - 0.999**self.t) / (1.0 - 0.9**self.t)
        for key in params:
            m, v = self.m.get(key, 0.0), self.v.get(key, 0.0)
            m = m + (1 - 0.9) * (grads[key] - m)
            v = v + (1 - 0.999) * (grads[key] ** 2 - v)
            self.m[key], self.v[key] = m, v
            params[key] -= lr * m / (np.sqrt(v) + 1e-7)


def test_the_textbook() -> None:
    rng = np.random.default_rng(1)
    mine = {"W1": rng.standard_normal((4, 3)), "b1": rng.standard_normal(3)}
    theirs = {key: value.copy() for key, value in mine.items()}
    ours, book = recipe("The textbook")["Adam"](lr=0.01), OfTheBook(lr=0.01)
    for _ in range(100):
        grads = {"b1": rng.standard_normal(3), "W1": rng.standard_normal((4, 3)), "more": None}
        ours.update(mine, grads)
        book.update(theirs, grads)
        for key, value in theirs.items():
            assert close(mine[key], value)


class OfPints:
    """Adam as PINTS documents it, for where PINTS isn't installed."""

    def __init__(self, x0: np.ndarray, sigma0: Any) -> None:
        self.x, self.alpha, self.t = np.array(x0), np.min(sigma0), 0
        self.m = self.v = np.zeros(self.x.shape)

    def ask(self) -> list[np.ndarray]:
        return [self.x]

    def tell(self, reply: Any) -> None:
        ((_, g),) = reply
        self.t += 1
        self.m = 0.9 * self.m + (1 - 0.9) * g
        self.v = 0.999 * self.v + (1 - 0.999) * g**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.x = self.x - self.alpha * m / (np.sqrt(v) + 1e-8)


@pytest.mark.parametrize("original", ["documented", "pints"])
def test_pints(original: str) -> None:
    start, sigma = np.array([3.0, -1.0, 0.5]), np.array([0.3, 0.05, 0.2])
    theirs: Any = OfPints(start, sigma)
    if original == "pints":
        pints = pytest.importorskip("pints", reason="PINTS is not installed: pip install pints")
        theirs = pints.Adam(start.copy(), sigma)
    mine = recipe("PINTS")["Adam"](start, sigma)
    for _ in range(200):
        ((x,), (y,)) = mine.ask(), theirs.ask()
        assert close(x, y)
        mine.tell([(np.sum(x**4), 4 * x**3)])
        theirs.tell([(np.sum(y**4), 4 * y**3)])
    if original == "pints":
        assert np.isclose(mine.best[0], theirs.f_best())
