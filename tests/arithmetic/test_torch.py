"""Every rule against torch.optim, in float64, to 1e-12 over 50 steps."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from cases import IN_TORCH, OPTIMIZERS, Variant, labels, torch_options

import instep

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

pytestmark = pytest.mark.usefixtures("torch_in_double")
STEPS = 50


@pytest.mark.parametrize("rule", OPTIMIZERS, ids=lambda rule: rule.__name__)
def test_defaults_are_torchs(rule: Any) -> None:
    if vars(rule).get("_torch") is None:
        return
    ours = inspect.signature(rule).parameters
    theirs = inspect.signature(getattr(torch.optim, rule._torch.name)).parameters
    names = set(rule._torch.hyperparameters) - ({"momentum"} if rule is instep.Momentum else set())
    assert {n: ours[n].default for n in names} == {n: theirs[n].default for n in names}


@pytest.mark.parametrize("clip_norm", [None, 3.0])
@pytest.mark.parametrize("variant", IN_TORCH, ids=labels)
def test_agrees(variant: Variant, clip_norm: float | None) -> None:
    rng = np.random.default_rng(15)
    start = [rng.standard_normal(shape) for shape in [(4, 3), (3,), ()]]
    params = [p.copy() for p in start]
    optimizer = variant.make(params, clip_norm=clip_norm)
    tensors = [torch.tensor(p, requires_grad=True) for p in start]
    theirs = getattr(torch.optim, variant.rule._torch.name)
    other = theirs(tensors, foreach=False, **torch_options(variant))
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
