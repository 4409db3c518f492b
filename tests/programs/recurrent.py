"""A recurrent net that keeps its first input in mind to the end of the sequence: backpropagation through time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import instep
from instep import schedules

Floats = npt.NDArray[np.float64]

LENGTH, HIDDEN = 12, 16


def sequences(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Return sequences of +-1, of which only the first says what is to be told at the end."""
    x = rng.choice([-1.0, 1.0], (LENGTH, count, 1))
    return x, x[0]


def forward(params: dict[str, Floats], x: Floats) -> tuple[list[Floats], Floats]:
    states = [np.zeros((x.shape[1], HIDDEN))]
    for now in x:
        states.append(np.tanh(states[-1] @ params["hidden"] + now @ params["in"] + params["bias"]))
    return states, states[-1] @ params["out"]


def gradients(params: dict[str, Floats], x: Floats, y: Floats) -> tuple[float, dict[str, Floats]]:
    """Return the mean squared error and its gradients."""
    states, told = forward(params, x)
    error = 2 * (told - y) / len(y)
    grads = {name: np.zeros_like(param) for name, param in params.items()}
    grads["out"] = states[-1].T @ error
    back = error @ params["out"].T
    for now, before, after in zip(x[::-1], states[-2::-1], states[:0:-1], strict=True):
        back = back * (1 - after**2)
        grads["hidden"] += before.T @ back
        grads["in"] += now.T @ back
        grads["bias"] += back.sum(axis=0)
        back = back @ params["hidden"].T
    return float(np.mean((told - y) ** 2)), grads


def main() -> None:
    rng = np.random.default_rng(1)
    params = {
        "in": rng.standard_normal((1, HIDDEN)),
        "hidden": np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0],
        "bias": np.zeros(HIDDEN),
        "out": np.zeros((HIDDEN, 1)),
    }
    plateau = schedules.ReduceOnPlateau(0.01, factor=0.5, patience=5)
    opt = instep.RMSprop(params, lr=plateau, clip_norm=1.0)
    largest = 0.0
    for step in range(600):
        loss, grads = gradients(params, *sequences(rng, 32))
        if step == 0:
            print("loss before:", loss)
        opt.step(grads)
        largest = max(largest, opt.grad_norm or 0.0)
        if step % 20 == 19:
            plateau.observe(loss)
    x, y = sequences(rng, 200)
    told = forward(params, x)[1]
    print("loss after:", np.mean((told - y) ** 2))
    print("right:", np.mean(np.sign(told) == y))
    print("largest norm, and rate at the end:", largest, opt.current("lr"))


if __name__ == "__main__":
    main()
