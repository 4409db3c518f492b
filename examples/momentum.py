"""Momentum and Nesterov momentum against plain gradient descent, on linear regression.

The loss is a valley, which is curved sixteen times as much across as along. Plain gradient descent
falls to the floor of the valley and creeps. Momentum adds up the part on which the gradients agree,
along the valley, and overshoots.
"""

import numpy as np
from picture import output_path, picture
from straight_line import StraightLine

import instep

STEPS = 150


def train(make_optimizer):
    """Return theta before the first step and after each step."""
    theta = np.zeros(2)
    optimizer = make_optimizer(theta)
    path = [theta.copy()]
    for _ in range(STEPS):
        optimizer.step(line.gradient(theta))
        path.append(theta.copy())
    return np.array(path)


output = output_path(__doc__)
line = StraightLine()
paths = {
    "plain": train(lambda theta: instep.SGD(theta, lr=0.02)),
    "momentum 0.9": train(lambda theta: instep.Momentum(theta, lr=0.02, momentum=0.9)),
    "Nesterov 0.9": train(lambda theta: instep.Momentum(theta, lr=0.02, nesterov=True)),
}

curvatures = np.linalg.eigvalsh(2 * line.features.T @ line.features / len(line.y))
print("curvatures of the valley: {:.3f} along, {:.3f} across".format(*curvatures))
print(f"least squares: {line.report(line.best)}")
for name, path in paths.items():
    print(f"{name}: {line.report(path[-1])}")

if output:
    title = f"Momentum on linear regression: lr 0.02, {STEPS} steps"
    with picture(output, title) as axes:
        line.draw(axes, paths, unit="step", limit=6.2)
