"""Every rule against torch.optim, in float64, to 1e-12 over 50 steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import instep

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

STEPS = 50
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("SGD", {}, "SGD", {}),
    ("SGD", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}, "SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
    (
        "SGD",
        {"weight_decay": 0.1, "maximize": True},
        "SGD",
        {"weight_decay": 0.1, "maximize": True},
    ),
    ("Momentum", {"weight_decay": 0.1}, "SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {}, "RMSprop", {}),
    ("RMSprop", {"centered": True}, "RMSprop", {"centered": True}),
    ("RMSprop", {"momentum": 0.8}, "RMSprop", {"momentum": 0.8}),
    (
        "RMSprop",
        {"centered": True, "momentum": 0.8, "weight_decay": 0.1, "maximize": True},
        "RMSprop",
        {"centered": True, "momentum": 0.8, "weight_decay": 0.1, "maximize": True},
    ),
    ("Adam", {}, "Adam", {}),
    (
        "Adam",
        {"amsgrad": True, "betas": (0.8, 0.9)},
        "Adam",
        {"amsgrad": True, "betas": (0.8, 0.9)},
    ),
    (
        "Adam",
        {"weight_decay": 0.1, "maximize": True},
        "Adam",
        {"weight_decay": 0.1, "maximize": True},
    ),
    ("AdamW", {}, "AdamW", {}),
    (
        "AdamW",
        {"amsgrad": True, "weight_decay": 0.3},
        "AdamW",
        {"amsgrad": True, "weight_decay": 0.3},
    ),
    ("AdamW", {"maximize": True, "eps": 1e-3}, "AdamW", {"maximize": True, "eps": 1e-3}),
]


@pytest.mark.parametrize("clip_norm", [None, 3.0])
@pytest.mark.parametrize(("rule", "ours", "name", "theirs"), CASES, ids=str)
def test_agrees(rule: str, ours: Any, name: str, theirs: Any, clip_norm: float | None) -> None:
    rng = np.random.default_rng(15)
    start = [rng.standard_normal(shape) for shape in [(4, 3), (3,), ()]]
    params = [p.copy() for p in start]
    optimizer = getattr(instep, rule)(params, lr=0.05, clip_norm=clip_norm, **ours)
    tensors = [torch.tensor(p, requires_grad=True) for p in start]
    other = getattr(torch.optim, name)(tensors, lr=0.05, foreach=False, **theirs)
    for step in range(STEPS):
        grads: list[Any] = [rng.standard_normal(p.shape) + 0.1 * p for p in start]
        if step % 7 == 3:
            grads[1] = None
        optimizer.step(grads)
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = None if grad is None else torch.tensor(np.asarray(grad))
        if clip_norm is not None:
            # torch divides by norm + 1e-6; take that back, or it alone would be off by 1e-7
            present = [t.grad for t in tensors if t.grad is not None]
            norm = float(torch.sqrt(sum((g * g).sum() for g in present)))
            for g in present:
                g.mul_(min(1.0, clip_norm / norm))
            assert optimizer.grad_norm == pytest.approx(norm, rel=1e-14)
        other.step()
    for p, tensor in zip(params, tensors, strict=True):
        np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-12, atol=1e-12)
