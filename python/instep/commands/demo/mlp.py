"""A multilayer perceptron in NumPy: forward and backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MLP", "Array"]

Array = npt.NDArray[Any]


class MLP:
    """Layers ``x @ weight + bias`` with ReLU between them, trained by softmax cross-entropy.

    ``params`` has the arrays that an optimizer changes in place: "weight1", "bias1", "weight2", ...
    Weights start with variance 2/inputs (He et al. 2015), biases at zero.

    Parameters
    ----------
    sizes : sequence of int
        The widths: of the input, of each hidden layer, and the number of classes.
    rng : numpy.random.Generator
        Draws the weights.
    dtype : dtype
        Of the parameters; it is the dtype of the whole computation where the input has it too.
    """

    def __init__(
        self, sizes: Sequence[int], rng: np.random.Generator, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self.layers = len(sizes) - 1
        self.params: dict[str, Array] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            weight = rng.standard_normal((inputs, outputs)) * math.sqrt(2 / inputs)
            self.params[f"weight{layer}"] = weight.astype(dtype)
            self.params[f"bias{layer}"] = np.zeros(outputs, dtype)

    def forward(self, images: Array) -> list[Array]:
        """Return the input of each layer, and last the logits."""
        values = [images]
        for layer in range(1, self.layers + 1):
            z = values[-1] @ self.params[f"weight{layer}"] + self.params[f"bias{layer}"]
            values.append(z if layer == self.layers else np.maximum(z, 0))
        return values

    def loss_and_gradients(self, images: Array, labels: Array) -> tuple[float, dict[str, Array]]:
        """Return the mean cross-entropy of a batch, and its gradient for every parameter."""
        *inputs, logits = self.forward(images)
        rows = np.arange(len(labels))
        logits = logits - logits.max(axis=1, keepdims=True)  # no overflow in exp, same softmax
        exp = np.exp(logits)
        total = exp.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(total[:, 0]) - logits[rows, labels]))

        gradients: dict[str, Array] = {}
        delta = exp / total
        delta[rows, labels] -= 1
        delta /= len(labels)
        for layer in range(self.layers, 0, -1):
            gradients[f"weight{layer}"] = inputs[layer - 1].T @ delta
            gradients[f"bias{layer}"] = delta.sum(axis=0)
            if layer > 1:
                delta = (delta @ self.params[f"weight{layer}"].T) * (inputs[layer - 1] > 0)
        return loss, gradients

    def accuracy(self, images: Array, labels: Array) -> float:
        """Return the share of images whose label has the largest logit."""
        return float(np.mean(self.forward(images)[-1].argmax(axis=1) == labels))
