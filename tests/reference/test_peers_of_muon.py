"""Muon against the algorithms of PyTorch, timm and optax, in float64."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from peer_loops import OfTorch, assert_close, beside, module_of_timm, of_optax, package

import instep

pytestmark = pytest.mark.usefixtures("torch_in_double")

MATRICES = {"w": (4, 3), "v": (3, 5), "u": (4, 4), "t": (1, 6)}
CUBIC = (1.5, -0.5, 0.0)  # Newton and Schulz's own

MUON = {
    "defaults": {},
    "no nesterov": {"nesterov": False, "weight_decay": 0.0},
    "other numbers": {
        "lr": 0.05,
        "momentum": 0.7,
        "ns_steps": 7,
        "ns_coefficients": CUBIC,
        "eps": 0.5,
    },
}


@pytest.fixture
def bfloat16_is_float64(monkeypatch):
    """The algorithms of PyTorch and pytorch_optimizer, but not in bfloat16."""
    torch = package("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.double().clone())


@pytest.mark.usefixtures("bfloat16_is_float64")
@pytest.mark.parametrize("adjust_lr", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("name", MUON)
def test_muon_equals_torchs_algorithm(name, adjust_lr):
    torch = pytest.importorskip("torch", minversion="2.9")
    options = MUON[name]
    peer = OfTorch(lambda p: torch.optim.Muon(p, adjust_lr_fn=adjust_lr, **options))
    opt, ours, theirs = beside(
        lambda p: instep.Muon(p, adjust_lr=adjust_lr, **options), peer, MATRICES
    )
    assert_close(ours, theirs)
    for key, tensor in peer.tensors.items():
        buffer = peer.optimizer.state[tensor]["momentum_buffer"].numpy()
        assert_close({"b": opt.state[key]["momentum_buffer"]}, {"b": buffer})


def test_muon_of_torch_computes_in_bfloat16():
    torch = pytest.importorskip("torch", minversion="2.9")
    peer = OfTorch(lambda p: torch.optim.Muon(p, adjust_lr_fn="match_rms_adamw"))
    _, ours, theirs = beside(instep.Muon, peer, MATRICES)
    for name, p in ours.items():
        np.testing.assert_allclose(theirs[name], p, rtol=0, atol=0.05 * np.abs(p).max())
        assert not np.allclose(theirs[name], p, rtol=1e-6)


def test_muon_of_torch_divides_a_bfloat16_buffer_by_its_norm():
    """Without nesterov the matrix in bfloat16 is the buffer itself, and not a copy."""
    torch = pytest.importorskip("torch", minversion="2.9")
    norms = {}
    for dtype in (torch.float32, torch.bfloat16):
        p = torch.zeros((2, 3), dtype=dtype, requires_grad=True)
        theirs = torch.optim.Muon([p], momentum=0.5, nesterov=False)
        p.grad = torch.full_like(p, 8.0)
        theirs.step()
        norms[dtype] = float(theirs.state[p]["momentum_buffer"].double().norm())
    assert norms[torch.float32] == pytest.approx(4 * math.sqrt(6), 1e-6)
    assert norms[torch.bfloat16] == pytest.approx(1.0, 0.01)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    w = np.zeros((2, 3), dtype=bfloat16)
    opt = instep.Muon({"w": w}, momentum=0.5, nesterov=False)
    opt.step({"w": np.full((2, 3), 8.0)})
    kept = opt.state["w"]["momentum_buffer"].astype(np.float64)
    np.testing.assert_array_equal(kept, np.full((2, 3), 4.0))


@pytest.mark.parametrize("adjust_lr", ["match_rms_adamw", "original"])
def test_muon_equals_timms_algorithm(adjust_lr, monkeypatch):
    module, torch = module_of_timm("muon"), package("torch")
    exact = functools.partial(module.zeropower_via_newtonschulz, dtype=torch.float64)
    monkeypatch.setattr(module, "zeropower_via_newtonschulz", exact)
    options = {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2}
    coefficients = [(3.4445, -4.775, 2.0315)]
    peer = OfTorch(
        lambda p: module.Muon(p, adjust_lr_fn=adjust_lr, ns_coefficients=coefficients, **options)
    )
    shapes = {"w": (5, 4), "v": (4, 6), "u": (4, 4)}  # below 4 rows or columns AdamW takes over
    _, ours, theirs = beside(lambda p: instep.Muon(p, adjust_lr=adjust_lr, **options), peer, shapes)
    assert_close(ours, theirs)


@pytest.mark.usefixtures("jax_in_double")
@pytest.mark.parametrize("adjust_lr", ["match_rms_adamw", "original"])
def test_muon_equals_optax_without_nesterov(adjust_lr):
    """The scale of the mean doesn't matter, only eps; "original" has the shape of the transposed matrix there."""
    optax = package("optax")
    options = {"lr": 0.05, "weight_decay": 0.2, "nesterov": False}
    rms = 0.2 if adjust_lr == "match_rms_adamw" else None
    muon = optax.contrib.muon(0.05, weight_decay=0.2, nesterov=False, eps=1e-30, consistent_rms=rms)
    peer = of_optax(optax, muon)

    def transposed(params, grads):
        found = peer(
            {name: p.T for name, p in params.items()}, {name: g.T for name, g in grads.items()}
        )
        return {name: np.asarray(p).T for name, p in found.items()}

    make = functools.partial(instep.Muon, adjust_lr=adjust_lr, **options)
    _, ours, theirs = beside(make, transposed, MATRICES)
    assert_close(ours, theirs)


@pytest.mark.usefixtures("jax_in_double")
def test_muon_of_optax_corrects_the_mean_before_nesterov():
    """Which changes the direction of the first steps."""
    optax = package("optax")
    muon = optax.contrib.muon(1.0, eps=1e-30, consistent_rms=0.2)
    theirs = of_optax(optax, muon)
    rng = np.random.default_rng(0)
    w, grads = np.zeros((3, 4)), [rng.standard_normal((3, 4)) for _ in range(2)]
    opt = instep.Muon({"w": w}, lr=1.0, weight_decay=0.0)
    found = {"w": w.copy()}
    for g in grads:
        before, theirs_before = w.copy(), np.asarray(found["w"])
        opt.step({"w": g})
        found = theirs(found, {"w": g})
    assert not np.allclose(w - before, np.asarray(found["w"]) - theirs_before, rtol=1e-3)
