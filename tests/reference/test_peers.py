"""The reference against optax, scikit-learn and a paper, in float64; mistakes of optax are not made here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import rng_for
from peer_loops import LR, SHAPES, STEPS, assert_close, of_optax, package, run
from reference import Reference, assert_same_bits

import instep

# ---- optax ---------------------------------------------------------------------------------------

BETAS = {"b1": 0.8, "b2": 0.95}
OURS = {"lr": LR, "betas": (0.8, 0.95)}


def scaled(optax, update):
    return optax.chain(update, optax.scale_by_learning_rate(LR))


# The rule of the reference, its options, and the optimizer of optax. A comment names where optax differs: there the
# numbers are such that both agree.
OPTAX = {
    "adamax": ("Adamax", OURS | {"eps": 0.01}, lambda o: o.adamax(LR, **BETAS, eps=0.01)),
    # eps is added to the corrected root
    "radam": ("RAdam", OURS | {"eps": 0.0}, lambda o: o.radam(LR, **BETAS, eps=0.0)),
    "adabelief": (
        "AdaBelief",
        OURS | {"eps": 0.01},
        lambda o: o.adabelief(LR, **BETAS, eps=0.01, eps_root=0.01),
    ),
    # a second eps lies inside the root
    "yogi": (
        "Yogi",
        OURS | {"eps": 0.01, "initial_accumulator_value": 0.2},
        lambda o: scaled(
            o, o.scale_by_yogi(**BETAS, eps=0.01, eps_root=0, initial_accumulator_value=0.2)
        ),
    ),
    # weight decay moves the parameters at the first step, too
    "adopt": (
        "ADOPT",
        OURS | {"eps": 0.01, "clip_exponent": 0.4},
        lambda o: scaled(
            o, o.contrib.scale_by_adopt(**BETAS, eps=0.01, clip_value_fn=lambda t: t**0.4)
        ),
    ),
    "ademamix": (
        "AdEMAMix",
        {"lr": LR, "betas": (0.8, 0.95, 0.9), "alpha": 3.0, "eps": 0.01, "weight_decay": 0.1},
        lambda o: o.contrib.ademamix(LR, **BETAS, b3=0.9, alpha=3.0, eps=0.01, weight_decay=0.1),
    ),
    "lion": (
        "Lion",
        OURS | {"weight_decay": 0.1},
        lambda o: o.lion(LR, **BETAS, weight_decay=0.1),
    ),
    "signum": ("Signum", {"lr": LR, "momentum": 0.8}, lambda o: o.signum(LR, beta=0.8)),
    "sign_sgd": ("Signum", {"lr": LR, "momentum": 0.0}, lambda o: o.sign_sgd(LR)),
    # eps is inside the root
    "adagrad": (
        "Adagrad",
        {"lr": LR, "eps": 0.01, "initial_accumulator_value": 0.2, "eps_inside_sqrt": True},
        lambda o: o.adagrad(LR, initial_accumulator_value=0.2, eps=0.01),
    ),
    "adadelta": (
        "Adadelta",
        {"lr": 2.0, "rho": 0.8, "eps": 0.01},
        lambda o: o.adadelta(2.0, rho=0.8, eps=0.01),
    ),
    # differences have the weight 1 - b2 (see below)
    "adan": (
        "Adan",
        {"lr": LR, "betas": (0.8, 0.5, 0.95), "eps": 0.01},
        lambda o: o.adan(LR, b1=0.8, b2=0.5, b3=0.95, eps=0.01, eps_root=0.0),
    ),
    "lamb": (
        "LAMB",
        OURS | {"eps": 0.01, "weight_decay": 0.1},
        lambda o: o.lamb(LR, **BETAS, eps=0.01, weight_decay=0.1),
    ),
    # the norm is that of gradient and decay together, and lr is in the velocity
    "lars": (
        "LARS",
        {"lr": 5.0, "momentum": 0.8, "trust_coefficient": 0.02, "eps": 0.01, "nesterov": True},
        lambda o: o.lars(5.0, trust_coefficient=0.02, eps=0.01, momentum=0.8, nesterov=True),
    ),
    "schedule_free_sgd": (
        "ScheduleFreeSGD",
        {"lr": LR, "momentum": 0.8, "weight_decay": 0.1, "weight_lr_power": 1.5},
        lambda o: o.contrib.schedule_free_sgd(LR, b1=0.8, weight_decay=0.1, weight_lr_power=1.5),
    ),
    "schedule_free_adamw": (
        "ScheduleFreeAdamW",
        OURS | {"eps": 0.01, "weight_decay": 0.1},
        lambda o: o.contrib.schedule_free_adamw(LR, **BETAS, eps=0.01, weight_decay=0.1),
    ),
}


@pytest.mark.usefixtures("jax_in_double")
@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax(name):
    optax = package("optax")
    rule, options, make = OPTAX[name]
    ours, theirs = run(rule, options, of_optax(optax, make(optax)))
    assert_close(ours.params, theirs)


@pytest.mark.usefixtures("jax_in_double")
def test_optaxs_adan_weighs_differences_by_one_minus_beta2():
    """The paper's beta is 1 minus its authors' betas; optax has taken one for the other in two of three places."""
    optax = package("optax")
    beta2 = 0.8
    options = {"lr": LR, "betas": (0.8, beta2, 0.95), "eps": 0.01}
    theirs = of_optax(optax, optax.adan(LR, b1=0.8, b2=beta2, b3=0.95, eps=0.01, eps_root=0.0))
    ours, found = run("Adan", options, theirs)
    assert not np.allclose(ours.params["w"], found["w"], rtol=0.01)
    for weight, wanted in ((beta2, ours.params), (1 - beta2, found)):
        _, plain = run("Adan", options, adan(weight, beta2))
        assert_close(wanted, plain)


def adan(weight, beta2):
    """Algorithm 1 of Xie et al. 2022 in their code's betas, without decay; `weight` is that of differences."""
    state, t = {}, 0

    def step(params, grads):
        nonlocal t
        t += 1
        after = {}
        for name, g in grads.items():
            m, v, n, before = state.get(name, (0, 0, 0, g))
            m, v = 0.8 * m + 0.2 * g, beta2 * v + (1 - beta2) * (g - before)
            n = 0.95 * n + 0.05 * (g + weight * (g - before)) ** 2
            state[name] = m, v, n, g
            root = np.sqrt(n / (1 - 0.95**t)) + 0.01
            rise = m / (1 - 0.8**t) + weight * v / (1 - beta2**t)
            after[name] = params[name] - LR * rise / root
        return after

    return step


@pytest.mark.usefixtures("jax_in_double")
def test_optaxs_rprop_is_a_step_late():
    optax = package("optax")
    theirs = of_optax(optax, optax.rprop(0.25, eta_minus=0.5, eta_plus=2.0))
    p = {"w": np.zeros(1)}
    ours = Reference("Rprop", p, lr=0.25, etas=(0.5, 2.0))
    mine, others = [], []
    for g in (1.0, 1.0, 1.0, 1.0):
        ours.step({"w": np.array([g])})
        p = theirs(p, {"w": np.array([g])})
        mine.append(float(ours.params["w"][0]))
        others.append(float(p["w"][0]))
    assert mine == [-0.25, -0.75, -1.75, -3.75]
    assert others == [0.0, -0.25, -0.75, -1.75]


# ---- scikit-learn --------------------------------------------------------------------------------


def test_eps_hat_has_scikit_learns_bits():
    module = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    rng = rng_for("eps_hat")
    start = [rng.standard_normal(shape) for shape in SHAPES.values() if shape]
    theirs, params = [p.copy() for p in start], [p.copy() for p in start]
    other = module.AdamOptimizer(theirs, 0.03, beta_1=0.8, beta_2=0.95, epsilon=0.01)
    options = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 0.01, "eps_hat": True}
    ours = Reference("Adam", {str(k): p for k, p in enumerate(start)}, **options)
    optimizer = instep.Adam(params, **options)
    for _ in range(STEPS):
        grads = [rng.standard_normal(p.shape) for p in start]
        ours.step({str(k): g for k, g in enumerate(grads)})
        optimizer.step(grads)
        other.update_params(theirs, grads)
    for k, p in enumerate(theirs):
        assert_same_bits(ours.params[str(k)], p)
        assert_same_bits(params[k], p)


# ---- the paper of FTRL ---------------------------------------------------------------------------


def test_ftrl_is_the_papers_loop():
    """Algorithm 1 of McMahan et al. 2013, one coordinate after another: logistic regression with sparse features."""
    rng = rng_for("ftrl")
    alpha, beta, l1, l2 = 0.3, 0.7, 0.4, 0.2
    n, z = [0.0] * 12, [0.0] * 12
    options = {"lr": alpha, "beta": beta, "l1": l1, "weight_decay": l2}
    ours = Reference("FTRL", {"w": np.zeros(12)}, **options)
    truth = np.where(np.arange(12) % 2, rng.standard_normal(12), 0.0)
    zeros = 0
    for _ in range(STEPS):
        x = rng.standard_normal(12) * (rng.random(12) < 0.6)
        y = float(x @ truth > 0)
        w = [0.0] * 12
        for i in range(12):
            if abs(z[i]) > l1:
                rate = (beta + math.sqrt(n[i])) / alpha + l2
                w[i] = -1 / rate * (z[i] - math.copysign(l1, z[i]))
        np.testing.assert_allclose(ours.params["w"], w, rtol=0, atol=4e-14)
        assert ((ours.params["w"] == 0) == (np.array(w) == 0)).all()
        zeros += w.count(0.0)
        chance = 1 / (1 + math.exp(-sum(a * b for a, b in zip(x, w, strict=True))))
        for i in range(12):
            g = (chance - y) * float(x[i])
            sigma = (math.sqrt(n[i] + g * g) - math.sqrt(n[i])) / alpha
            z[i] += g - sigma * w[i]
            n[i] += g * g
        ours.step({"w": (1 / (1 + math.exp(-float(x @ ours.params["w"]))) - y) * x})
    assert 12 < zeros < 12 * (STEPS - 10), "some weights are zero, and some are not"
