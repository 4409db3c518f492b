"""The perceptron of HIPS autograd's examples, on its list of (W, b), with instep's Adam."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import autograd.numpy as np
import numpy
import numpy.typing as npt
from autograd import grad
from autograd.misc.flatten import flatten

import instep

Floats = npt.NDArray[numpy.float64]
Layers = list[tuple[Floats, Floats]]  # the weights and the bias of each


def init_random_params(scale: float, layer_sizes: list[int], rng: numpy.random.Generator) -> Layers:
    return [
        (scale * rng.standard_normal((m, n)), scale * rng.standard_normal(n))
        for m, n in pairwise(layer_sizes)
    ]


def neural_net_predict(params: Layers, inputs: Floats) -> Any:
    """Return the logarithms of the classes' probabilities."""
    for W, b in params:
        outputs = np.dot(inputs, W) + b
        inputs = np.tanh(outputs)
    return outputs - np.log(np.sum(np.exp(outputs), axis=1, keepdims=True))


def l2_norm(params: Layers) -> Any:
    flat, _ = flatten(params)
    return np.dot(flat, flat)


def log_posterior(params: Layers, inputs: Floats, targets: Floats, L2_reg: float) -> Any:
    log_likelihood = np.sum(neural_net_predict(params, inputs) * targets)
    return log_likelihood - L2_reg * l2_norm(params)


def accuracy(params: Layers, inputs: Floats, targets: Floats) -> float:
    told = numpy.argmax(neural_net_predict(params, inputs), axis=1)
    return float(numpy.mean(told == numpy.argmax(targets, axis=1)))


def digits(rng: numpy.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Return images of ten patterns, which are always the same, in noise, and what they are."""
    patterns = numpy.random.default_rng(7).standard_normal((10, 64))
    labels = rng.integers(0, 10, count)
    return patterns[labels] + rng.standard_normal((count, 64)), numpy.eye(10)[labels]


def main() -> None:
    rng = numpy.random.default_rng(8)
    images, targets = digits(rng, 1024)
    test_images, test_targets = digits(rng, 512)
    batch_size, num_epochs = 128, 8
    num_batches = len(images) // batch_size

    def objective(params: Layers, iteration: int) -> Any:
        first = iteration % num_batches * batch_size
        batch = slice(first, first + batch_size)
        return -log_posterior(params, images[batch], targets[batch], L2_reg=0.1)

    objective_grad = grad(objective)
    params = init_random_params(0.1, [64, 32, 16, 10], rng)
    optimizer = instep.Adam(params, lr=0.01)
    print("accuracy before:", accuracy(params, test_images, test_targets))
    for iteration in range(num_epochs * num_batches):
        optimizer.step(objective_grad(params, iteration))
    print("accuracy after:", accuracy(params, test_images, test_targets))
    print("parameters:", *optimizer.params)


if __name__ == "__main__":
    main()
