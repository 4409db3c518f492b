"""Logistic regression whose gradients HIPS autograd computes, by gradient descent and by Adam.

autograd (pip install autograd) differentiates the loss as it is written in NumPy, and returns the
gradients in a container like that of the parameters, as a step takes them.
"""

import sys

import numpy as np
from picture import GREEN, RED, output_path, picture

import instep

try:
    import autograd.numpy as anp
    from autograd import value_and_grad
except ImportError:
    sys.exit("this example needs autograd: pip install autograd")

STEPS = 100

rng = np.random.default_rng(0)
labels = np.repeat([0.0, 1.0], 100)
x = rng.standard_normal((200, 2)) + np.outer(labels, [2.0, 3.0])


def loss(params):
    """Return the mean cross-entropy: log(1 + exp(z)) - label * z."""
    z = anp.dot(x, params["w"]) + params["b"]
    return anp.mean(anp.logaddexp(0.0, z) - labels * z)


def train(make_optimizer):
    """Return the parameters, and the loss before each step."""
    params = {"w": np.zeros(2), "b": np.zeros(1)}
    optimizer = make_optimizer(params)
    losses = []
    for _ in range(STEPS):
        value, gradients = value_and_grad(loss)(params)
        losses.append(value)
        optimizer.step(gradients)
    return params, losses


output = output_path(__doc__)
runs = {
    "gradient descent": train(lambda params: instep.SGD(params, lr=0.1)),
    "Adam": train(lambda params: instep.Adam(params, lr=0.1)),
}

for name, (params, _) in runs.items():
    right = np.mean((x @ params["w"] + params["b"] > 0) == labels)
    print(f"{name}: loss {loss(params):.4f}, {100 * right:.1f}% of the points right")

if output:
    title = "Logistic regression, gradients by autograd, lr 0.1"
    with picture(output, title) as (curves, points):
        for label, colour in ((0, GREEN), (1, RED)):
            points.plot(
                *x[labels == label].T,
                "o",
                color=colour,
                alpha=0.4,
                markersize=5,
                label=f"class {label}",
            )
        ends = np.array([-3.0, 5.0])
        for name, (params, losses) in runs.items():
            (w1, w2), b = params["w"], params["b"]
            curves.plot(losses, label=name)
            points.plot(ends, -(b + w1 * ends) / w2, label=name)
        curves.set(title="Loss", xlabel="step", ylabel="mean cross-entropy", ylim=(0, None))
        points.set(title="Two classes, and where both are equally likely")
        points.set(xlabel="x₁", ylabel="x₂")
        points.set(xlim=(-3, 5), ylim=(-3, 6.5))
