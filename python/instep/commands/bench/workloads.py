"""The workloads: shapes of real models and of extreme cases, and numbers for the arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WORKLOADS", "Shape", "elements", "filled", "shapes_of"]

Shape = tuple[int, ...]


def _perceptron(*sizes: int) -> list[Shape]:
    return [shape for n, m in pairwise(sizes) for shape in ((n, m), (m,))]


def _resnet50() -> list[Shape]:
    """He et al. 2016, as torchvision builds it: every convolution is followed by a scale and a shift."""

    def convolution(outputs: int, inputs: int, width: int) -> list[Shape]:
        return [(outputs, inputs, width, width), (outputs,), (outputs,)]

    shapes = convolution(64, 3, 7)
    inputs = 64
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        outputs = 4 * inner
        for block in range(blocks):
            shapes += convolution(inner, inputs, 1) + convolution(inner, inner, 3)
            shapes += convolution(outputs, inner, 1)
            if block == 0:  # the shortcut that changes the width
                shapes += convolution(outputs, inputs, 1)
            inputs = outputs
    return [*shapes, (1000, inputs), (1000,)]


def _gpt2() -> list[Shape]:
    """Radford et al. 2019, the smallest model; the output layer is the embedding."""
    width = 768
    norm: list[Shape] = [(width,), (width,)]
    block = [
        *norm,
        *((width, 3 * width), (3 * width,), (width, width), (width,)),
        *norm,
        *((width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    ]
    return [(50257, width), (1024, width), *(block * 12), *norm]


WORKLOADS: dict[str, list[Shape]] = {
    "tiny": [(64, 32), (32,), (32, 10), (10,)],
    "mlp": _perceptron(784, 256, 128, 10),
    "many": [(100,)] * 1000,
    "one1M": [(1_000_000,)],
    "resnet50": _resnet50(),
    "gpt2": _gpt2(),
    "one100M": [(100_000_000,)],
}


def shapes_of(workload: str) -> list[Shape]:
    """Return the shapes of a workload, by its name or, for one tensor, its number of elements."""
    return [(int(workload),)] if workload.isdecimal() else WORKLOADS[workload]


def elements(shapes: Iterable[Shape]) -> int:
    """Return the number of elements in arrays of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def filled(shapes: Iterable[Shape], dtype: npt.DTypeLike, seed: int) -> list[npt.NDArray[Any]]:
    """Return arrays of normal numbers; large arrays repeat the same numbers."""
    block = np.random.default_rng(seed).standard_normal(1 << 16).astype(dtype)
    arrays = []
    for shape in shapes:
        array = np.empty(math.prod(shape), dtype)
        for start in range(0, array.size, block.size):
            array[start : start + block.size] = block[: array.size - start]
        arrays.append(array.reshape(shape))
    return arrays
