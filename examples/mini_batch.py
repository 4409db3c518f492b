"""Linear regression by batch gradient descent, by mini-batches, and by Adam on mini-batches.

All three train for the same number of epochs. In each epoch, a batch of all points takes one exact
step. Mini-batches take several noisy steps, so they reach the valley sooner, but stay restless at
its bottom.
"""

import numpy as np
from picture import output_path, picture
from straight_line import StraightLine

import instep

EPOCHS = 60


def train(make_optimizer, batch_size):
    """Return theta before the first epoch and after each epoch."""
    rng = np.random.default_rng(1)
    theta = np.zeros(2)
    optimizer = make_optimizer(theta)
    path = [theta.copy()]
    for _ in range(EPOCHS):
        for rows in line.batches(batch_size, rng):
            optimizer.step(line.gradient(theta, rows))
        path.append(theta.copy())
    return np.array(path)


output = output_path(__doc__)
line = StraightLine()
paths = {
    "batch of all 100": train(lambda theta: instep.SGD(theta, lr=0.1), 100),
    "mini-batches of 10": train(lambda theta: instep.SGD(theta, lr=0.1), 10),
    "Adam, mini-batches of 10": train(lambda theta: instep.Adam(theta, lr=0.1), 10),
}

print(f"least squares: {line.report(line.best)}")
for name, path in paths.items():
    print(f"{name}: {line.report(path[-1])}")

if output:
    title = f"Linear regression, {EPOCHS} epochs of 100 points"
    with picture(output, title) as axes:
        line.draw(axes, paths, unit="epoch", limit=4.6)
