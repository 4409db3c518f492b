"""A convolutional net that tells bars in noise: one layer of 3 x 3 filters, a mean over the image, a dense layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import instep
from instep import schedules
from instep.typing import Array

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]
Net = dict[str, dict[str, Floats]]


def images(rng: np.random.Generator, count: int) -> tuple[Floats, Ints]:
    """Return images with a horizontal bar (0), a vertical bar (1) or a square (2) somewhere."""
    x = 0.3 * rng.standard_normal((count, 10, 10), dtype=np.float32)
    labels = rng.integers(0, 3, count)
    for image, label in zip(x, labels, strict=True):
        height, width = ((1, 6), (6, 1), (3, 3))[label]
        row, column = rng.integers(0, 11 - height), rng.integers(0, 11 - width)
        image[row : row + height, column : column + width] += 1.0
    return x, labels


def forward(net: Net, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the patches, the filters' answers after the ReLU, their means, and the probabilities."""
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2)).reshape(-1, 64, 9)
    answers = np.maximum(patches @ net["conv"]["w"] + net["conv"]["b"], 0.0)
    means = answers.mean(axis=1)
    logits = means @ net["dense"]["w"] + net["dense"]["b"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return patches, answers, means, odds / odds.sum(axis=1, keepdims=True)


def gradients(net: Net, x: Floats, labels: Ints) -> dict[str, dict[str, Array]]:
    patches, answers, means, error = forward(net, x)
    error[np.arange(len(x)), labels] -= 1.0
    error /= len(x)
    back = (error @ net["dense"]["w"].T)[:, None, :] * (answers > 0) / answers.shape[1]
    return {
        "conv": {"w": np.tensordot(patches, back, ((0, 1), (0, 1))), "b": back.sum(axis=(0, 1))},
        "dense": {"w": means.T @ error, "b": error.sum(axis=0)},
    }


def main() -> None:
    rng = np.random.default_rng(0)
    net: Net = {
        "conv": {
            "w": 0.3 * rng.standard_normal((9, 12), dtype=np.float32),
            "b": np.zeros(12, np.float32),
        },
        "dense": {"w": np.zeros((12, 3), np.float32), "b": np.zeros(3, np.float32)},
    }
    lr = schedules.Warmup(schedules.CosineDecay(0.03, steps=280), steps=20)
    opt = instep.AdamW(net, lr=lr, weight_decay=1e-3, clip_norm=5.0, ema_decay=0.95)
    for _ in range(300):
        x, labels = images(rng, 32)
        opt.step(gradients(net, x, labels))
    x, labels = images(rng, 500)
    print("accuracy:", np.mean(forward(net, x)[-1].argmax(axis=1) == labels))
    with opt.averaged():
        print("of the averages:", np.mean(forward(net, x)[-1].argmax(axis=1) == labels))


if __name__ == "__main__":
    main()
