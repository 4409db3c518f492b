"""Prodigy against its authors' package, pytorch_optimizer and optax, in float64."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from peer_loops import SHAPES, OfTorch, assert_close, beside, of_optax, package

import instep

pytestmark = pytest.mark.usefixtures("torch_in_double")

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
    return package("prodigyopt")


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
    module = package("pytorch_optimizer")
    options = {"d0": 1e-3, "weight_decay": 0.05, "eps": 0.01}
    peer = OfTorch(lambda p: module.Prodigy(p, **options))
    opt, ours, theirs = beside(lambda p: instep.Prodigy(p, **options), peer)
    assert_close(ours, theirs)
    assert_same_estimate(opt, peer)


@pytest.mark.usefixtures("jax_in_double")
def test_prodigy_equals_optax():
    """Which always corrects the bias, and has no growth_rate."""
    optax = package("optax")
    theirs = optax.contrib.prodigy(eps=0.01, weight_decay=0.05, estim_lr0=1e-3, estim_lr_coef=1.5)
    options = {"eps": 0.01, "weight_decay": 0.05, "d0": 1e-3, "d_coef": 1.5}
    make = functools.partial(instep.Prodigy, use_bias_correction=True, **options)
    _, ours, found = beside(make, of_optax(optax, theirs))
    assert_close(ours, {name: np.asarray(p) for name, p in found.items()})


def test_prodigyopt_counts_no_step_without_progress(prodigyopt):
    """So its next bias correction is that of a first step; here the correction is that of the third."""
    w, options = np.zeros(2), {"d0": 1e-3, "use_bias_correction": True}
    peer = OfTorch(lambda p: prodigyopt.Prodigy(p, **options))
    opt = instep.Prodigy({"w": w}, **options)
    for g, lr in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        if peer.optimizer:
            peer.optimizer.param_groups[0]["lr"] = opt.lr = lr
        found = peer({"w": np.zeros(2)}, {"w": np.full(2, g)})["w"]
        opt.step({"w": np.full(2, g)})
    (group,) = peer.optimizer.param_groups
    assert (group["k"], float(opt.state["w"]["k"])) == (1, 3)
    corrections = [math.sqrt(1 - 0.999**k) / (1 - 0.9**k) for k in (1, 3)]
    assert w[0] / found[0] == pytest.approx(corrections[1] / corrections[0], 1e-9)


def test_prodigyopt_decays_a_group_whose_lr_is_zero(prodigyopt):
    own = {"lr": 0.0, "weight_decay": 0.1}
    peer = OfTorch(lambda p: prodigyopt.Prodigy([{"params": [p[0]]}, {"params": [p[1]], **own}]))
    params = {"w": np.ones(2), "b": np.ones(2)}
    opt = instep.Prodigy(
        [{"params": {"w": params["w"].copy()}}, {"params": {"b": params["b"].copy()}, **own}]
    )
    grads = {"w": np.ones(2), "b": np.ones(2)}
    for _ in range(30):
        found = peer(params, grads)
        opt.step([{name: g} for name, g in grads.items()])
    assert_close({"w": opt.params["w"]}, {"w": found["w"]})
    np.testing.assert_array_equal(opt.params["b"], params["b"])
    assert (found["b"] < params["b"]).all()


def test_prodigyopt_without_momentum_takes_the_new_estimate(prodigyopt):
    """With beta1 = 0 its step is g times the new d; here m, as with any other beta1, has the old one."""
    w, options = np.zeros(2), {"betas": (0.0, 0.999), "d0": 1e-3}
    peer = OfTorch(lambda p: prodigyopt.Prodigy(p, **options))
    opt = instep.Prodigy({"w": w}, **options)
    for _ in range(2):
        before, theirs_before = w.copy(), peer.values().get("w", w.copy())
        d = float(opt.state["w"]["d"]) or options["d0"]
        found = peer({"w": np.zeros(2)}, {"w": np.ones(2)})["w"]
        opt.step({"w": np.ones(2)})
    growth = float(opt.state["w"]["d"]) / d
    assert growth > 2
    step, theirs = (w - before)[0], (found - theirs_before)[0]
    assert theirs / step == pytest.approx(growth, rel=1e-6)


@pytest.mark.usefixtures("jax_in_double")
def test_prodigy_of_optax_divides_zero_by_zero():
    """While no gradient has been other than 0. Its numbers have the dtype of the parameters."""
    optax = package("optax")
    peer = of_optax(optax, optax.contrib.prodigy())
    found = peer({"w": np.ones(2)}, {"w": np.zeros(2)})
    assert np.isnan(found["w"]).all()
    state = optax.contrib.prodigy().init({"w": np.ones(2, dtype=np.float32)})
    assert state.estim_lr.dtype == np.float32
    w = np.ones(2, dtype=np.float32)
    opt = instep.Prodigy({"w": w})
    opt.step({"w": np.zeros(2)})
    assert (w == 1).all()
    assert opt.state["w"]["d"].dtype == np.float64
