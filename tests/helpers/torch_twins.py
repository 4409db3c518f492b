"""Parameters of PyTorch in equal sets, gradients for them, and what an optimizer of PyTorch holds.

Import this module after ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

import instep.torch

REASON = "PyTorch is not installed: pip install torch==2.13.0"
SHAPES = ((5, 4), (7,), (2, 3, 2))
#: The classes that torch.optim has, too.
IN_TORCH = [name for name in instep.torch.__all__ if hasattr(torch.optim, name)]
#: Arguments with which a class has all its states.
FULL = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"amsgrad": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
}
CLASSES = [getattr(instep.torch, name) for name in instep.torch.__all__]


def shapes_for(name: str) -> tuple[tuple[int, ...], ...]:
    """Shapes that a class takes: Muon is for matrices."""
    return ((5, 4), (3, 7)) if name == "Muon" else SHAPES


def parameters(shapes: Any = SHAPES, dtype: Any = torch.float32, seed: int = 1) -> list[Any]:
    """Parameters without gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in shapes
    ]


def one(*shape: int, dtype: Any = torch.float32) -> Any:
    """A parameter with a gradient."""
    (parameter,) = parameters([shape or (3,)], dtype)
    give([parameter])
    return parameter


def twins(originals: Sequence[Any]) -> list[Any]:
    """Equal parameters in memory of their own, with the same strides and without gradients."""
    return [torch.nn.Parameter(p.detach().clone()) for p in originals]


def give(*sets: Sequence[Any], seed: int = 0) -> None:
    """Give equal new gradients to sets of equal parameters."""
    generator = torch.Generator().manual_seed(seed)
    for alike in zip(*sets, strict=True):
        gradient = torch.randn(alike[0].shape, generator=generator, dtype=torch.float64)
        for parameter in alike:
            parameter.grad = gradient.to(parameter.dtype, copy=True)


def train(
    *runs: tuple[Any, Sequence[Any]], steps: int = 3, seed: int = 10, before: Any = None
) -> None:
    """Take steps with several optimizers over sets of equal parameters."""
    for step in range(steps):
        give(*(params for _, params in runs), seed=seed + step)
        for optimizer, _ in runs:
            if before is not None:
                before(step, optimizer)
            optimizer.step()


def furthest(mine: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference, as a part of the largest number of its tensor."""
    return max(
        ((a - b).abs().max() / b.abs().max()).item()
        for a, b in zip(mine, theirs, strict=True)
        if a.numel()
    )


def bits(tensor: Any) -> tuple[Any, ...]:
    """A tensor's dtype, shape and bytes."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), bytes(flat.tolist())


def held(optimizer: Any) -> Any:
    """Everything that a step may change, to compare before and after."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [
        {key: bits(value) for key, value in optimizer.state[p].items()}
        if p in optimizer.state
        else None
        for p in params
    ]
    groups = [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return [bits(p) for p in params], states, groups


def same(mine: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether all tensors have the same bits."""
    return [bits(p) for p in mine] == [bits(p) for p in theirs]


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Torch's default dtype inside a ``with`` block: that of numbers of steps."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
