"""Gradient descent on f(x) = x^2 from x = 10, and on a vector of a hundred tens.

Each step multiplies x by 1 - 2 lr. With small rates x crawls. With lr = 0.5 it would reach 0 in one
step. With larger rates x jumps from side to side, and with lr = 1 it never comes nearer.
"""

import numpy as np
from picture import BLUE, GREEN, GREY, ORANGE, RED, output_path, picture

import instep

STEPS = 100


def descend(start, lr):
    """Return x before the first step and after each step."""
    x = start.copy()
    optimizer = instep.SGD(x, lr=lr)
    path = [x.copy()]  # a copy: the optimizer changes x in place
    for _ in range(STEPS):
        optimizer.step(2 * x)
        path.append(x.copy())
    return np.array(path)


output = output_path(__doc__)
ten, tens = np.array([10.0]), np.full(100, 10.0)
paths = {lr: descend(ten, lr)[:, 0] for lr in (0.01, 0.1, 0.9, 1.0)}
vector = descend(tens, 0.1)

print(f"lr 0.1, {STEPS} steps: x = {paths[0.1][-1]:.4e}; 10 * 0.8^{STEPS} = {10 * 0.8**STEPS:.4e}")
first, last = np.sum(vector[0] ** 2), np.sum(vector[-1] ** 2)
print(f"a hundred tens: sum of squares {first:.0f} -> {last:.4e}")

if output:
    styles = {
        0.01: {"color": GREEN},
        0.1: {"color": BLUE, "linewidth": 4},
        0.9: {"color": ORANGE, "linewidth": 1.5},
        1.0: {"color": RED},
    }
    with picture(output, "Gradient descent on x² from 10") as (curve, distance):
        x = np.linspace(-10.5, 10.5, 200)
        curve.plot(x, x**2, color=GREY, linewidth=5, label="x²")
        for lr in (0.1, 0.9):
            path = paths[lr][:16]
            curve.plot(path, path**2, "o-", markersize=5, label=f"lr = {lr}", **styles[lr])
        curve.set(title="The first 15 steps", xlabel="x", ylabel="x²")
        for lr, path in paths.items():
            distance.semilogy(np.abs(path), label=f"lr = {lr}", **styles[lr])
        norm = np.linalg.norm(vector, axis=1)
        distance.semilogy(norm, "--", color="black", label="a hundred tens, lr = 0.1")
        distance.set(title="Distance from the minimum: lr 0.1 and 0.9 alike")
        distance.set(xlabel="step", ylabel="|x|, length of the vector")
