"""What the tables of docs/semantics.md say of rules in optax, PyTorch, pytorch_optimizer, timm and thinc.

Prodigy and Muon are in `test_peers_of_prodigy` and `test_peers_of_muon`; where averages of schedulefree lose bits, in
`test_peers_in_torch`.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from peer_loops import LR, OfTorch, assert_close, module_of_timm, of_optax, package, run

import instep

OURS = {"lr": LR, "betas": (0.8, 0.95)}


@pytest.fixture
def pytorch_optimizer(torch_in_double):
    return package("pytorch_optimizer")


def first_step(make, w, g, steps=1):
    """What an optimizer for PyTorch adds to one array in a step, by default its first."""
    peer = OfTorch(make)
    for _ in range(steps):
        before = peer.values().get("w", w)
        after = peer({"w": before}, {"w": g})["w"]
    return after - before


# ---- optax ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("jax_in_double")
def test_nadam_of_optax_corrects_each_part_by_its_own_step():
    optax = package("optax")
    theirs = of_optax(optax, optax.nadam(LR, b1=0.8, b2=0.95, eps=0.01))
    options = OURS | {"eps": 0.01, "momentum_decay": None}
    ours, found = run("NAdam", options, theirs)
    state, t = {}, 0

    def plain(params, grads):
        nonlocal t
        t += 1
        after = {}
        for name, g in grads.items():
            m, v = state.get(name, (0, 0))
            state[name] = m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            rise = 0.8 * m / (1 - 0.8 ** (t + 1)) + 0.2 * g / (1 - 0.8**t)
            after[name] = params[name] - LR * rise / (np.sqrt(v / (1 - 0.95**t)) + 0.01)
        return after

    _, wanted = run("NAdam", options, plain)
    assert_close(found, wanted)
    assert not np.allclose(ours.params["w"], found["w"], rtol=1e-3)


@pytest.mark.usefixtures("jax_in_double")
@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_of_optax_has_lr_and_decay_elsewhere(nesterov):
    """The ratio has the norm of gradient and decay together; lr is in the velocity."""
    optax = package("optax")
    p, g = {"w": np.array([3.0, 4.0])}, {"w": np.array([-0.3, 0.1])}
    rates = [0.5, 0.05]
    theirs = of_optax(
        optax,
        optax.lars(
            lambda step: 0.5 * 0.1**step,
            weight_decay=0.1,
            trust_coefficient=0.2,
            nesterov=nesterov,
        ),
    )
    opt = instep.LARS(
        {"w": p["w"].copy()},
        lr=lambda step: rates[step],
        weight_decay=0.1,
        trust_coefficient=0.2,
        eps=0.0,
        nesterov=nesterov,
    )
    w, mine, b, velocity = p["w"], p["w"].copy(), 0.0, 0.0
    for rate in rates:
        h = g["w"] + 0.1 * w
        h = h * 0.2 * np.linalg.norm(w) / np.linalg.norm(h) * rate
        velocity = 0.9 * velocity + h
        w = w - (h + 0.9 * velocity if nesterov else velocity)
        p = theirs(p, g)
        h = g["w"] + 0.1 * mine
        norms = np.linalg.norm(g["w"]) + 0.1 * np.linalg.norm(mine)
        h = h * 0.2 * np.linalg.norm(mine) / norms
        b = 0.9 * b + h
        mine = mine - rate * (h + 0.9 * b if nesterov else b)
        opt.step(g)
        assert_close({"w": w}, {"w": np.asarray(p["w"])})
        assert_close({"w": mine}, opt.params)
    assert not np.allclose(w, mine, rtol=0.01)


@pytest.mark.usefixtures("jax_in_double")
def test_averages_of_optax_have_the_rate_of_the_next_step():
    """In schedule_free, which counts from 1 where the rule itself counts from 0."""
    optax = package("optax")

    def rate(step):
        return 0.1 + 0.1 * step

    theirs = of_optax(optax, optax.contrib.schedule_free(optax.sgd(rate), rate, b1=0.8))
    p, z, x, total = {"w": np.zeros(1)}, np.zeros(1), np.zeros(1), 0.0
    for t in range(3):
        g = np.array([1.0 + t])
        p = theirs(p, {"w": g})
        z = z - rate(t) * g
        total += rate(t + 1) ** 2
        x = x + rate(t + 1) ** 2 / total * (z - x)
        assert_close({"w": 0.8 * x + 0.2 * z}, {"w": np.asarray(p["w"])})
    w = np.zeros(1)
    opt = instep.ScheduleFreeSGD(w, lr=rate, momentum=0.8)
    for t in range(3):
        opt.step(np.array([1.0 + t]))
    assert abs(w[0] - float(p["w"][0])) > 0.001


# ---- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "names"), [("NAdam", ["mu_product"]), ("ASGD", ["eta", "mu"])])
def test_scalar_states_of_torch_have_its_default_dtype(rule, names):
    torch = package("torch")
    w, p = np.ones(3), torch.ones(3, dtype=torch.float64, requires_grad=True)
    ours, theirs = getattr(instep, rule)({"w": w}), getattr(torch.optim, rule)([p])
    p.grad = torch.ones_like(p)
    ours.step({"w": np.ones(3)})
    theirs.step()
    for name in names:
        assert theirs.state[p][name].dtype == torch.get_default_dtype() == torch.float32
        assert ours.state["w"][name].dtype == np.float64


# ---- pytorch_optimizer ---------------------------------------------------------------------------


def test_asgd_of_pytorch_optimizer_is_another_rule(pytorch_optimizer):
    """Its rate follows norms; nothing is averaged."""
    step = first_step(lambda p: pytorch_optimizer.ASGD(p, lr=0.1), np.ones(3), np.ones(3), 2)
    assert not np.allclose(step, -0.1, rtol=1e-3)


def test_adopt_of_pytorch_optimizer_decays_at_its_first_step(pytorch_optimizer):
    w = np.array([1.0])
    step = first_step(
        lambda p: pytorch_optimizer.ADOPT(p, lr=0.1, weight_decay=0.1, weight_decouple=True), w, w
    )
    opt = instep.ADOPT(w, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True)
    opt.step(np.ones(1))
    assert step[0] == pytest.approx(-0.01)
    assert w[0] == 1.0


def test_lamb_of_pytorch_optimizer_corrects_the_step_and_not_the_mean(pytorch_optimizer):
    """So that its first step is 1/(1-beta1) times as long; and no norm of parameters exceeds 10."""
    w, g = np.array([3.0, 4.0]), np.array([1.0, 2.0])
    lengths = [
        np.linalg.norm(first_step(lambda p: pytorch_optimizer.Lamb(p, lr=0.01), scale * w, g))
        for scale in (1, 10)
    ]
    assert lengths == pytest.approx([0.1 * 5, 0.1 * 10], 1e-5)
    mine = w.copy()
    instep.LAMB(mine, lr=0.01, weight_decay=0.0).step(g)
    assert np.linalg.norm(mine - w) == pytest.approx(0.01 * 5)


def test_lars_of_pytorch_optimizer_leaves_vectors_alone(pytorch_optimizer):
    step = first_step(
        lambda p: pytorch_optimizer.LARS(p, lr=0.1, weight_decay=0.5), np.ones(3), np.ones(3)
    )
    np.testing.assert_allclose(step, -0.1)


def test_pytorch_optimizer_counts_the_steps_of_a_group(pytorch_optimizer):
    """A parameter with a late first gradient has the correction of a later step."""
    peer = OfTorch(lambda p: pytorch_optimizer.Adan(p, lr=0.1, betas=(0.9, 0.5, 0.5)))
    params = {"a": np.zeros(1), "b": np.zeros(1)}
    opt = instep.Adan({name: p.copy() for name, p in params.items()}, lr=0.1, betas=(0.9, 0.5, 0.5))
    for b in (None, np.ones(1)):
        grads = {"a": np.ones(1), "b": b}
        found = peer(params, grads)
        opt.step(grads)
    assert opt.params["b"][0] == pytest.approx(-0.1)
    share = (1 - 0.9) / (1 - 0.9**2) / math.sqrt(0.5 / (1 - 0.5**2))
    assert found["b"][0] == pytest.approx(-0.1 * share)


def test_adopt_of_pytorch_optimizer_limits_by_the_next_step(pytorch_optimizer):
    """With beta1 = 0 the second step is the limit. timm's power differs from the third step on."""
    theirs = {
        2**0.25: lambda p: pytorch_optimizer.ADOPT(p, lr=1.0, betas=(0.0, 0.9)),
        1.0: lambda p: module_of_timm("adopt").Adopt(p, lr=1.0, betas=(0.0, 0.9)),
    }
    for limit, make in theirs.items():
        peer = OfTorch(make)
        peer({"w": np.zeros(1)}, {"w": np.ones(1)})
        assert peer({}, {"w": np.full(1, 9.0)})["w"][0] == pytest.approx(-limit)
    w = np.zeros(1)
    opt = instep.ADOPT(w, lr=1.0, betas=(0.0, 0.9))
    opt.step(np.ones(1))
    opt.step(np.full(1, 9.0))
    assert w[0] == -1.0


def default_of(function, name):
    return inspect.signature(function).parameters[name].default


def test_defaults(pytorch_optimizer):
    assert default_of(instep.AdEMAMix, "alpha") == 2
    assert default_of(pytorch_optimizer.AdEMAMix, "alpha") == 5
    assert not default_of(pytorch_optimizer.AdEMAMix, "weight_decouple")
    assert default_of(instep.ADOPT, "clip_exponent") == 0.25
    assert default_of(module_of_timm("adopt").Adopt, "clip_exp") == 0.333
    for lion in (instep.Lion, pytorch_optimizer.Lion, module_of_timm("lion").Lion):
        assert (default_of(lion, "lr"), default_of(lion, "weight_decay")) == (1e-4, 0)


def test_defaults_of_optax():
    optax = package("optax")
    assert default_of(optax.contrib.ademamix, "alpha") == 5
    assert default_of(optax.lion, "weight_decay") == 1e-3
    assert default_of(optax.lion, "learning_rate") is inspect.Parameter.empty


# ---- timm ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("torch_in_double")
@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_timm_has_no_trust_ratio_without_decay(name):
    module = module_of_timm(name)
    if name == "lamb":
        rule, options = "LAMB", OURS | {"weight_decay": 0.0}
        peer = OfTorch(lambda p: module.Lamb(p, **options, max_grad_norm=None))
    else:
        rule, options = "LARS", {"lr": LR, "momentum": 0.9}
        peer = OfTorch(lambda p: module.Lars(p, **options))
    alone, found = run(rule, options | {"trust_ratio": False}, peer)
    assert_close(alone.params, found)


@pytest.mark.usefixtures("torch_in_double")
def test_lamb_of_timm_clips_gradients():
    """To the norm 1, unless max_grad_norm is None."""
    module = module_of_timm("lamb")
    options = OURS | {"weight_decay": 0.1}
    clipped, found = run("LAMB", options, OfTorch(lambda p: module.Lamb(p, **options)))
    assert not np.allclose(clipped.params["w"], found["w"], rtol=1e-3)
    again, found = run(
        "LAMB", options | {"clip_norm": 1.0}, OfTorch(lambda p: module.Lamb(p, **options))
    )
    assert_close(again.params, found)


# ---- thinc ---------------------------------------------------------------------------------------


def test_radam_of_thinc_counts_one_ahead():
    """Its corrections are those of t = 2 at the first step. It computes in float32."""
    thinc = package("thinc.api")
    rng = np.random.default_rng(0)
    w = rng.standard_normal(8).astype(np.float32)
    theirs = thinc.RAdam(0.03, beta1=0.8, beta2=0.95, eps=0.01, L2=0.0, grad_clip=0.0)
    ours = {"w": w.copy()}
    opt = instep.RAdam(ours, lr=0.03, betas=(0.8, 0.95), eps=0.01)
    found, plain = w.copy(), w.astype(np.float64)
    m = v = np.zeros(8)
    longest = 2 / (1 - 0.95) - 1
    for t in range(1, 61):
        g = rng.standard_normal(8).astype(np.float32)
        opt.step({"w": g})
        found, _ = theirs((0, "w"), found, g.copy())
        m, v, late = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g.astype(np.float64) ** 2, t + 1
        correction = 1 - 0.95**late
        length = longest - 2 * late * 0.95**late / correction
        size = 0.03 / (1 - 0.8**late)
        if length >= 5:
            rise = (length - 4) * (length - 2) * longest
            rise /= (longest - 4) * (longest - 2) * length
            plain = plain - size * np.sqrt(rise * correction) * m / (np.sqrt(v) + 0.01)
        else:
            plain = plain - size * m
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-5)
    assert np.abs(ours["w"] - found).max() > 0.01


def test_adam_of_thinc_has_epsilon_hat():
    thinc = package("thinc.api")
    rng = np.random.default_rng(0)
    w = rng.standard_normal(8).astype(np.float32)
    theirs = thinc.Adam(0.03, beta1=0.8, beta2=0.95, eps=0.5, L2=0.0, grad_clip=0.0)
    arrays = {hat: w.copy() for hat in (True, False)}
    opts = [
        instep.Adam(a, lr=0.03, betas=(0.8, 0.95), eps=0.5, eps_hat=h) for h, a in arrays.items()
    ]
    found = w.copy()
    for _ in range(60):
        g = rng.standard_normal(8).astype(np.float32)
        for opt in opts:
            opt.step(g)
        found, _ = theirs((0, "w"), found, g.copy())
    np.testing.assert_allclose(arrays[True], found, rtol=0, atol=1e-5)
    assert np.abs(arrays[False] - found).max() > 1e-3
