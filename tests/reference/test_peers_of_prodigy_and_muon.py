"""Prodigy against its authors' package and others, Muon against PyTorch's algorithm and others, in float64."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from cases import rng_for
from peer_loops import STEPS, OfTorch, assert_close, module_of_timm, of_optax

import instep

# Until both classes are there. Then this and the mark below go.
THERE = hasattr(instep, "Prodigy") and hasattr(instep, "Muon")

pytestmark = [
    pytest.mark.usefixtures("torch_in_double"),
    pytest.mark.skipif(not THERE, reason="instep has no Prodigy and no Muon yet"),
]

SHAPES = {"w": (4, 3), "b": (5,), "c": ()}


def beside(make, update, shapes=SHAPES, groups=None, absent=()):
    """Step an optimizer of instep and a peer; return the optimizer and the parameters of both.

    The gradients, for both, are those of a noisy quadratic at the parameters of instep. `absent` has pairs of a step
    and the name of a parameter that has no gradient in it.
    """
    rng = rng_for("prodigy and muon", sorted(shapes))
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    theirs = {name: p.copy() for name, p in params.items()}
    goal = {name: 3 * rng.standard_normal(shape) for name, shape in shapes.items()}
    opt = make(*([{name: params[name] for name in g} for g in groups or [list(shapes)]]))
    for step in range(STEPS):
        grads = {n: p - goal[n] + 0.3 * rng.standard_normal(p.shape) for n, p in params.items()}
        grads |= {name: None for at, name in absent if at == step}
        opt.step([{n: grads[n] for n in g} for g in groups] if groups else grads)
        theirs = update(theirs, grads)
    assert not np.allclose(params["w"], goal["w"], atol=0.01)
    return opt, params, theirs


# ---- Prodigy -------------------------------------------------------------------------------------

PRODIGY = {
    "defaults": {},
    "large d0": {"d0": 0.01},
    "all options": {
        "lr": 0.7,
        "betas": (0.8, 0.97),
        "beta3": 0.9,
        "eps": 0.01,
        "weight_decay": 0.05,
        "use_bias_correction": True,
        "safeguard_warmup": True,
        "d0": 1e-3,
        "d_coef": 1.5,
        "growth_rate": 1.3,
    },
}


@pytest.fixture
def prodigyopt():
    return pytest.importorskip("prodigyopt")


def assert_same_estimate(opt, peer):
    """One d for all parameters, and the peer's."""
    (d,) = {float(state["d"]) for state in opt.state.values()}
    assert d == pytest.approx(peer.optimizer.param_groups[0]["d"], rel=1e-12)
    assert d > 0.02, "it has grown"


@pytest.mark.parametrize("name", PRODIGY)
def test_prodigy_equals_prodigyopt(name, prodigyopt):
    options = PRODIGY[name]
    peer = OfTorch(lambda p: prodigyopt.Prodigy(p, **options))
    opt, ours, theirs = beside(lambda p: instep.Prodigy(p, **options), peer)
    assert_close(ours, theirs)
    assert_same_estimate(opt, peer)


GROUPS = [["w"], ["b", "c"]]


def in_groups(prodigyopt, mine, theirs, absent=(), **options):
    """With two groups; `mine` and `theirs` are what the second has of its own."""
    peer = OfTorch(
        lambda w, b: prodigyopt.Prodigy([{"params": w}, {"params": b, **theirs}], **options), GROUPS
    )
    opt, ours, found = beside(
        lambda w, b: instep.Prodigy([{"params": w}, {"params": b, **mine}], **options),
        peer,
        groups=GROUPS,
        absent=absent,
    )
    return opt, ours, found, peer


@pytest.mark.parametrize(
    "own", [{}, {"weight_decay": 0.1, "eps": 0.01}, {"lr": 0.0}], ids=["equal", "own", "lr 0"]
)
def test_prodigy_equals_prodigyopt_in_two_groups(own, prodigyopt):
    options = {"d0": 1e-3, "use_bias_correction": True}
    opt, ours, theirs, peer = in_groups(prodigyopt, own, own, **options)
    assert_close(ours, theirs)
    assert_same_estimate(opt, peer)
    alone = OfTorch(lambda p: prodigyopt.Prodigy(p, **options), [["w"]])
    _, _, apart = beside(lambda p: instep.Prodigy(p, **options), alone, {"w": SHAPES["w"]})
    assert not np.allclose(theirs["w"], apart["w"], rtol=1e-3), "d is not that of w alone"


def test_prodigy_equals_prodigyopt_where_gradients_are_missing(prodigyopt):
    """A parameter's p0 is its value at its first gradient."""
    absent = [(step, "b") for step in (0, 1, 2, 9, 10)] + [(7, "w"), (7, "b"), (8, "w")]
    opt, ours, theirs, peer = in_groups(prodigyopt, {}, {}, absent, d0=1e-3)
    assert_close(ours, theirs)
    assert_same_estimate(opt, peer)


def test_prodigy_equals_pytorch_optimizer():
    """Only without bias correction, which is another one there."""
    module = pytest.importorskip("pytorch_optimizer")
    options = {"d0": 1e-3, "weight_decay": 0.05, "eps": 0.01}
    peer = OfTorch(lambda p: module.Prodigy(p, **options))
    opt, ours, theirs = beside(lambda p: instep.Prodigy(p, **options), peer)
    assert_close(ours, theirs)
    assert_same_estimate(opt, peer)


@pytest.mark.usefixtures("jax_in_double")
def test_prodigy_equals_optax():
    """Which always corrects the bias, and has no growth_rate."""
    optax = pytest.importorskip("optax")
    theirs = optax.contrib.prodigy(eps=0.01, weight_decay=0.05, estim_lr0=1e-3, estim_lr_coef=1.5)
    options = {"eps": 0.01, "weight_decay": 0.05, "d0": 1e-3, "d_coef": 1.5}
    make = functools.partial(instep.Prodigy, use_bias_correction=True, **options)
    _, ours, found = beside(make, of_optax(optax, theirs))
    assert_close(ours, {name: np.asarray(p) for name, p in found.items()})


def test_prodigyopt_counts_no_step_without_progress(prodigyopt):
    """So its next bias correction is that of a first step; here the correction is that of the second."""
    w, options = np.zeros(2), {"d0": 1e-3, "use_bias_correction": True}
    peer = OfTorch(lambda p: prodigyopt.Prodigy(p, **options))
    opt = instep.Prodigy({"w": w}, **options)
    for g in (np.zeros(2), np.ones(2)):
        found = peer({"w": np.zeros(2)}, {"w": g})["w"]
        opt.step({"w": g})
    (group,) = peer.optimizer.param_groups
    assert (group["k"], float(opt.state["w"]["k"])) == (1, 2)
    corrections = [math.sqrt(1 - 0.999**k) / (1 - 0.9**k) for k in (1, 2)]
    assert w[0] / found[0] == pytest.approx(corrections[1] / corrections[0], 1e-9)


def test_prodigyopt_decays_a_group_whose_lr_is_zero(prodigyopt):
    own = {"lr": 0.0, "weight_decay": 0.1}
    _, ours, theirs, _ = in_groups(prodigyopt, own, own, d0=1e-3)
    still = rng_for("prodigy and muon", sorted(SHAPES))
    start = {name: still.standard_normal(shape) for name, shape in SHAPES.items()}
    np.testing.assert_array_equal(ours["b"], start["b"])
    assert (np.abs(theirs["b"]) < np.abs(start["b"])).all()
    assert_close({"w": ours["w"]}, {"w": theirs["w"]})


# ---- Muon ----------------------------------------------------------------------------------------

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
    torch = pytest.importorskip("torch")
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
    module, torch = module_of_timm("muon"), pytest.importorskip("torch")
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
    optax = pytest.importorskip("optax")
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
    optax = pytest.importorskip("optax")
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
