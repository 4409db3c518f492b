"""Adam and RMSprop fit one dense unit to 100 random points: lr 0.1, 100 epochs of batches of 32.

Both divide the gradient by its recent size, so a step is about lr long, whatever the loss. They
differ at the start, which Adam corrects, and at the end, where Adam's mean is calmer.
"""

import numpy as np
from picture import GREY, output_path, picture

import instep

EPOCHS, BATCH = 100, 32

rng = np.random.default_rng(0)
x = rng.random((100, 1))
y = 2 * x - 1 + 0.1 * rng.standard_normal((100, 1))


def train(make_optimizer):
    """Return the unit's weight and bias, and the mean squared error after each epoch."""
    order = np.random.default_rng(1)
    unit = {"weight": np.zeros((1, 1)), "bias": np.zeros(1)}
    optimizer = make_optimizer(unit)
    losses = []
    for _ in range(EPOCHS):
        for rows in np.array_split(order.permutation(len(x)), range(BATCH, len(x), BATCH)):
            error = x[rows] @ unit["weight"] + unit["bias"] - y[rows]
            slope = 2 * error / len(rows)
            optimizer.step({"weight": x[rows].T @ slope, "bias": slope.sum(axis=0)})
        losses.append(np.mean((x @ unit["weight"] + unit["bias"] - y) ** 2))
    return unit, losses


output = output_path(__doc__)
runs = {
    "Adam": train(lambda unit: instep.Adam(unit, lr=0.1)),
    "RMSprop": train(lambda unit: instep.RMSprop(unit, lr=0.1, alpha=0.9)),
}

for name, (unit, losses) in runs.items():
    print(
        f"{name}: y = {unit['weight'].item():.3f} x + {unit['bias'].item():.3f}, "
        f"loss {losses[-1]:.5f}, mean of the last 20 epochs {np.mean(losses[-20:]):.5f}"
    )

if output:
    with picture(output, "One dense unit, 100 random points, lr 0.1") as (curves, fit):
        fit.plot(x, y, "o", color=GREY, markersize=5, label="points")
        ends = np.array([[0.0], [1.0]])
        for name, (unit, losses) in runs.items():
            curves.semilogy(np.arange(1, EPOCHS + 1), losses, label=name)
            fit.plot(ends, ends @ unit["weight"] + unit["bias"], label=name)
        curves.set(title="Loss after each epoch", xlabel="epoch", ylabel="mean squared error")
        fit.set(title="The unit in the end", xlabel="x", ylabel="y")
