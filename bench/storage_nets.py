"""The networks of storage_training.py in plain NumPy: forward, backward, and the data of each."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from instep.commands.demo.digits import load_digits
from instep.commands.demo.mlp import MLP

Arrays = dict[str, np.ndarray]


class Net(Protocol):
    """`params` has float32 arrays; they are read anew at every call."""

    params: Arrays

    def loss_and_gradients(
        self, inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[float, Arrays]: ...


class Training(NamedTuple):
    """A network with all its data, and the batches in the order of one seed."""

    net: Net
    inputs: np.ndarray
    labels: np.ndarray
    batches: Iterator[tuple[np.ndarray, np.ndarray]]  # inputs and labels

    def loss(self) -> float:
        """The mean loss over all data."""
        return self.net.loss_and_gradients(self.inputs, self.labels)[0]


class Problem(NamedTuple):
    title: str
    steps: int
    lr: float
    start: Callable[[int], Training]  # of a seed


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean over all rows, and its gradient for the logits (rows, classes)."""
    rows = np.arange(len(labels))
    logits = logits - logits.max(axis=1, keepdims=True)
    exp = np.exp(logits)
    total = exp.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - logits[rows, labels]))
    delta = exp / total
    delta[rows, labels] -= 1
    delta /= np.float32(len(labels))
    return loss, delta


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Variance 2/inputs (He et al. 2015)."""
    return (rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:-1]))).astype(np.float32)


KERNEL = 3


class ConvNet:
    """Two convolutions (3 x 3, the second with stride 2) and two dense layers, on 8 x 8 pixels."""

    _channels, _hidden, _side = (16, 32), 64, 4

    def __init__(self, rng: np.random.Generator) -> None:
        first, second = self._channels
        dense = self._side**2 * second
        weights = {
            "filter1": _normal(rng, KERNEL, KERNEL, 1, first),
            "filter2": _normal(rng, KERNEL, KERNEL, first, second),
            "weight3": _normal(rng, dense, self._hidden),
            "weight4": _normal(rng, self._hidden, 10),
        }
        biases = {
            f"bias{name[-1]}": np.zeros(w.shape[-1], np.float32) for name, w in weights.items()
        }
        self.params: Arrays = weights | biases

    def loss_and_gradients(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
        p, count = self.params, len(labels)
        seen1 = _patches(inputs.reshape(count, 8, 8, 1), 1)
        out1 = np.maximum(seen1 @ p["filter1"].reshape(-1, self._channels[0]) + p["bias1"], 0)
        seen2 = _patches(out1.reshape(count, 8, 8, -1), 2)
        out2 = np.maximum(seen2 @ p["filter2"].reshape(-1, self._channels[1]) + p["bias2"], 0)
        flat = out2.reshape(count, -1)
        out3 = np.maximum(flat @ p["weight3"] + p["bias3"], 0)
        loss, delta = cross_entropy(out3 @ p["weight4"] + p["bias4"], labels)

        grads = {"weight4": out3.T @ delta, "bias4": delta.sum(axis=0)}
        delta = (delta @ p["weight4"].T) * (out3 > 0)
        grads |= {"weight3": flat.T @ delta, "bias3": delta.sum(axis=0)}
        delta = (delta @ p["weight3"].T).reshape(out2.shape) * (out2 > 0)
        grads |= {"filter2": seen2.T @ delta, "bias2": delta.sum(axis=0)}
        back = delta @ p["filter2"].reshape(-1, self._channels[1]).T
        delta = _from_patches(back, count, 8, 2).reshape(out1.shape) * (out1 > 0)
        grads |= {"filter1": seen1.T @ delta, "bias1": delta.sum(axis=0)}
        return loss, {name: grads[name].reshape(w.shape) for name, w in p.items()}


def _patches(images: np.ndarray, stride: int) -> np.ndarray:
    """Rows of KERNEL x KERNEL x channels around every pixel, or every second one, with zeros around the image."""
    count, side, _, channels = images.shape
    padded = np.zeros((count, side + 2, side + 2, channels), np.float32)
    padded[:, 1:-1, 1:-1] = images
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(-1, KERNEL * KERNEL * channels)


def _from_patches(rows: np.ndarray, count: int, side: int, stride: int) -> np.ndarray:
    """Add up what belongs to each pixel: the transpose of `_patches`."""
    outputs = side // stride
    parts = rows.reshape(count, outputs, outputs, KERNEL, KERNEL, -1)
    padded = np.zeros((count, side + 2, side + 2, parts.shape[-1]), np.float32)
    for i in range(KERNEL):
        for j in range(KERNEL):
            at = (slice(None), *(slice(k, k + stride * outputs, stride) for k in (i, j)))
            padded[at] += parts[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1]


UNASKED = 20  # characters at the beginning of a row whose successors are not foretold


class CharNet:
    """A recurrent layer (tanh) that reads characters and foretells the next, after the first few of a row."""

    def __init__(self, rng: np.random.Generator, letters: int, width: int = 128) -> None:
        orthogonal, _ = np.linalg.qr(rng.standard_normal((width, width)))
        self.params: Arrays = {
            "embedding": (rng.standard_normal((letters, width)) * 0.3).astype(np.float32),
            "recurrent": orthogonal.astype(np.float32),
            "bias": np.zeros(width, np.float32),
            "output": (rng.standard_normal((width, letters)) / math.sqrt(width)).astype(np.float32),
            "output_bias": np.zeros(letters, np.float32),
        }

    def loss_and_gradients(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
        """The state is zero before the first character of each row of inputs."""
        p, (count, length) = self.params, inputs.shape
        width = len(p["bias"])
        times = inputs.T  # all rows of a time lie together
        seen = p["embedding"][times] + p["bias"]
        states = np.zeros((length + 1, count, width), np.float32)
        for t in range(length):
            np.tanh(seen[t] + states[t] @ p["recurrent"], out=states[t + 1])
        hidden = states[1 + UNASKED :].reshape(-1, width)
        asked = labels.T[UNASKED:].ravel()
        loss, delta = cross_entropy(hidden @ p["output"] + p["output_bias"], asked)

        grads = {"output": hidden.T @ delta, "output_bias": delta.sum(axis=0)}
        above = np.zeros((length, count, width), np.float32)
        above[UNASKED:] = (delta @ p["output"].T).reshape(-1, count, width)
        inner, back = np.empty_like(above), p["recurrent"].T.copy()
        carried = np.zeros((count, width), np.float32)
        slopes = 1 - states[1:] * states[1:]
        for t in reversed(range(length)):
            np.multiply(above[t] + carried, slopes[t], out=inner[t])
            carried = inner[t] @ back
        flat = inner.reshape(-1, width)
        one_hot = np.zeros((len(flat), len(p["embedding"])), np.float32)
        one_hot[np.arange(len(flat)), times.ravel()] = 1
        grads |= {
            "embedding": one_hot.T @ flat,
            "recurrent": states[:-1].reshape(-1, width).T @ flat,
            "bias": flat.sum(axis=0),
        }
        return loss, {name: grads[name] for name in p}


def batches(
    rng: np.random.Generator, inputs: np.ndarray, labels: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """So many at a time, each once an epoch, without end."""
    while True:
        order = rng.permutation(len(labels))
        for first in range(0, len(labels) - count + 1, count):
            those = order[first : first + count]
            yield inputs[those], labels[those]


# Noise that is new in every batch keeps networks from learning the images by heart: their losses would be nothing.
NOISE = 0.2


def _noisy(
    rng: np.random.Generator, clean: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in clean:
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        yield images + np.float32(NOISE) * noise, labels


def _on_digits(make: Callable[[np.random.Generator], Net], batch: int) -> Callable[[int], Training]:
    def start(seed: int) -> Training:
        rng = np.random.default_rng(seed)
        images, labels = load_digits(rng).train
        net, noise = make(rng), np.random.default_rng([seed, 1])
        return Training(net, images, labels, _noisy(noise, batches(rng, images, labels, batch)))

    return start


LENGTH = 32  # characters of a row


def text() -> str:
    """The Zen of Python (PEP 20, in the public domain), which a module of Python holds."""
    with contextlib.redirect_stdout(io.StringIO()):  # the module prints it
        coded: str = importlib.import_module("this").s
    return codecs.decode(coded, "rot13")


def _on_text(seed: int) -> Training:
    rng = np.random.default_rng(seed)
    letters, numbers = np.unique(list(text()), return_inverse=True)
    rows = np.lib.stride_tricks.sliding_window_view(numbers, LENGTH + 1)[::2]
    net, inputs, labels = CharNet(rng, len(letters)), rows[:, :-1], rows[:, 1:]
    return Training(net, inputs, labels, batches(rng, inputs, labels, 16))


class Clicks:
    """Logistic regression on features that an example has or has not: few are frequent, most are rare."""

    features, informative, most, examples = 8192, 500, 24, 10_000

    def __init__(self) -> None:
        self.params: Arrays = {"weight": np.zeros(self.features, np.float32)}

    def data(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The features of each example, and 0 or 1; frequent and rare features lie side by side."""
        weights = 1 / (5 + np.arange(self.features))
        shares = rng.permutation(weights / weights.sum())
        had = rng.choice(self.features, (self.examples, self.most), p=shares)
        truth = np.zeros(self.features)
        truth[rng.choice(had.ravel(), self.informative)] = rng.choice([-2.0, 2.0], self.informative)
        chance = 1 / (1 + np.exp(-truth[had].sum(axis=1)))
        return had, (rng.random(self.examples) < chance).astype(np.int64)

    def loss_and_gradients(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
        signs = 1 - 2 * labels
        z = signs * self.params["weight"][inputs].sum(axis=1)
        share = signs / (1 + np.exp(-z)) / len(labels)
        grad = np.bincount(inputs.ravel(), np.repeat(share, inputs.shape[1]), self.features)
        return float(np.mean(np.logaddexp(0, z))), {"weight": grad.astype(np.float32)}


def _on_clicks(seed: int) -> Training:
    rng = np.random.default_rng(seed)
    net = Clicks()
    inputs, labels = net.data(rng)
    return Training(net, inputs, labels, batches(rng, inputs, labels, 64))


def perceptron(rng: np.random.Generator) -> Net:
    return MLP([64, 256, 128, 10], rng)


PROBLEMS = {
    "digits": Problem("perceptron, digits", 3000, 1e-3, _on_digits(perceptron, 32)),
    "convolutions": Problem("convolutions, digits", 1200, 2e-3, _on_digits(ConvNet, 32)),
    "characters": Problem("recurrent, characters", 1000, 2e-3, _on_text),
    "clicks": Problem("linear, sparse features", 8000, 1e-2, _on_clicks),
}
