"""Parameters of PyTorch in equal sets, gradients for them, and what an optimizer of PyTorch holds.

Import this module after ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import torch

import instep
import instep.torch

REASON = "PyTorch is not installed: pip install torch==2.13.0"
SHAPES = ((5, 4), (7,), (2, 3, 2))
#: The names of all classes, and of those that torch.optim has, too.
RULES = [name for name in instep.torch.__all__ if name != "decoded"]
IN_TORCH = [name for name in RULES if hasattr(torch.optim, name)]
#: Arguments with which a class has all its states.
FULL = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"amsgrad": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
}
CLASSES = [getattr(instep.torch, name) for name in RULES]


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


def array_of(tensor: Any) -> Any:
    """A NumPy array of a tensor's numbers, in memory of its own."""
    flat = tensor.detach().contiguous()
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return flat.numpy().copy()


def options_in_instep(name: str, optimizer: Any) -> dict[str, Any]:
    """The options of the class in instep that a class of torch's name stands for, whose other defaults win."""
    if name not in IN_TORCH:
        return {}
    of, found = getattr(instep, name), {}
    for key, value in optimizer.param_groups[0].items():
        inner = next((k for k in of._hyperparameters if of._torch.name_of(k) == key), None)
        if inner is not None:
            found[inner] = of._torch.none_is.get(inner) if value is None else value
    return found | of._torch.absent


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
