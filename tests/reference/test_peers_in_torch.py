"""The reference against rules that others wrote for PyTorch: schedulefree, pytorch_optimizer, timm, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from peer_loops import LR, OfTorch, assert_close, module_of_timm, package, run

import instep
from instep import schedules

pytestmark = pytest.mark.usefixtures("torch_in_double")

OURS = {"lr": LR, "betas": (0.8, 0.95)}
THEIRS = {"lr": LR, "betas": (0.8, 0.95)}
THREE = {"lr": LR, "betas": (0.8, 0.95, 0.9)}
DECAY = {"weight_decay": 0.1}
DECOUPLED = DECAY | {"decoupled_weight_decay": True}
FTRL = {"lr": 0.3, "beta": 0.7}
HEAVY = {"lr": 5.0, "momentum": 0.8, "dampening": 0.3}

# The rule of the reference, its options, and the optimizer of pytorch_optimizer. A comment names where the package
# differs: there the options are such that both agree.
PYTORCH_OPTIMIZER = {
    "AdaBelief": (
        "AdaBelief",
        OURS | DECOUPLED | {"eps": 0.01},
        lambda m, p: m.AdaBelief(p, **THEIRS, **DECAY, eps=0.01),
    ),
    "AdaMax": (
        "Adamax",
        OURS | DECAY | {"eps": 0.01},
        lambda m, p: m.AdaMax(p, **THEIRS, **DECAY, eps=0.01),
    ),
    # the power is that of t, and not of t - 1; decoupled decay moves the parameters at the first step, too
    "ADOPT": (
        "ADOPT",
        OURS | DECAY | {"eps": 0.01, "clip_exponent": 0.4},
        lambda m, p: m.ADOPT(p, **THEIRS, **DECAY, eps=0.01, clip_lambda=lambda t: (t - 1) ** 0.4),
    ),
    # by default the decay is not decoupled
    "AdEMAMix": (
        "AdEMAMix",
        THREE | DECAY | {"alpha": 3.0, "eps": 0.01},
        lambda m, p: m.AdEMAMix(p, **THREE, **DECAY, weight_decouple=True, alpha=3.0, eps=0.01),
    ),
    # the built-in warm-up counts from 1
    "AdEMAMix, warm-up": (
        "AdEMAMix",
        {
            "lr": LR,
            "betas": (0.8, 0.95, schedules.Shifted(schedules.HalfLife(0.8, 0.99, 40), 1)),
            "alpha": schedules.Shifted(schedules.Linear(0.0, 3.0, 40), 1),
            "eps": 0.01,
        },
        lambda m, p: m.AdEMAMix(
            p, lr=LR, betas=(0.8, 0.95, 0.99), alpha=3.0, t_alpha_beta3=40, eps=0.01
        ),
    ),
    "Adan": (
        "Adan",
        THREE | DECAY | {"eps": 0.01},
        lambda m, p: m.Adan(p, **THREE, **DECAY, eps=0.01),
    ),
    "FTRL": (
        "FTRL",
        FTRL | DECAY | {"l1": 0.4},
        lambda m, p: m.FTRL(p, **FTRL, lambda_1=0.4, lambda_2=0.1),
    ),
    # one-dimensional parameters have neither ratio nor decay; no eps; with dampening the first buffer is damped, too
    "LARS": (
        "LARS",
        HEAVY | DECAY | {"dampening": 0.0, "trust_coefficient": 0.02, "eps": 0.0},
        lambda m, p: m.LARS(p, lr=5.0, momentum=0.8, **DECAY, trust_coefficient=0.02),
    ),
    "Lion": ("Lion", OURS | DECAY, lambda m, p: m.Lion(p, **THEIRS, **DECAY)),
    "ScheduleFreeAdamW": (
        "ScheduleFreeAdamW",
        OURS | DECAY | {"eps": 0.01, "r": 0.5},
        lambda m, p: training(m.ScheduleFreeAdamW(p, **THEIRS, **DECAY, eps=0.01, r=0.5)),
    ),
    "ScheduleFreeSGD": (
        "ScheduleFreeSGD",
        DECAY | {"lr": LR, "momentum": 0.8},
        lambda m, p: training(m.ScheduleFreeSGD(p, lr=LR, momentum=0.8, **DECAY)),
    ),
    "SignSGD": (
        "Signum",
        DECAY | {"lr": LR, "momentum": 0.8},
        lambda m, p: m.SignSGD(p, lr=LR, momentum=0.8, **DECAY),
    ),
    "SignSGD, no momentum": (
        "Signum",
        DECAY | {"lr": LR, "momentum": 0.0},
        lambda m, p: m.SignSGD(p, lr=LR, momentum=0.0, **DECAY),
    ),
    "StableAdamW": (
        "AdamW",
        OURS | DECAY | {"eps": 0.01, "clip_update": 1.0},
        lambda m, p: m.StableAdamW(p, **THEIRS, **DECAY, eps=0.01),
    ),
    "Yogi": (
        "Yogi",
        OURS | DECAY | {"eps": 0.01, "initial_accumulator_value": 0.2},
        lambda m, p: m.Yogi(
            p, **THEIRS, **DECAY, weight_decouple=False, eps=0.01, initial_accumulator=0.2
        ),
    ),
}


def training(optimizer):
    """In the mode in which it takes steps."""
    optimizer.train()
    return optimizer


@pytest.mark.parametrize("name", PYTORCH_OPTIMIZER)
def test_equals_pytorch_optimizer(name):
    module = package("pytorch_optimizer")
    rule, options, make = PYTORCH_OPTIMIZER[name]
    shapes = {"w": (4, 3), "v": (2, 5)} if name == "LARS" else {"w": (4, 3), "b": (5,), "c": ()}
    ours, theirs = run(rule, options, OfTorch(lambda p: make(module, p)), shapes)
    assert_close(ours.params, theirs)


# The same for files of timm.optim.
TIMM = {
    "adabelief": (
        "AdaBelief",
        OURS | DECOUPLED | {"eps": 0.01},
        lambda m, p: m.AdaBelief(p, **THEIRS, **DECAY, eps=0.01, rectify=False),
    ),
    "adan": (
        "Adan",
        THREE | DECAY | {"eps": 0.01},
        lambda m, p: m.Adan(p, **THREE, **DECAY, eps=0.01),
    ),
    "adopt": (
        "ADOPT",
        OURS | DECOUPLED | {"eps": 0.01, "clip_exponent": 0.4},
        lambda m, p: m.Adopt(p, **THEIRS, **DECAY, eps=0.01, clip_exp=0.4, decoupled=True),
    ),
    # by default gradients are clipped to the norm 1, and parameters without decay have no ratio
    "lamb": (
        "LAMB",
        OURS | DECAY | {"eps": 0.01},
        lambda m, p: m.Lamb(p, **THEIRS, **DECAY, eps=0.01, max_grad_norm=None),
    ),
    "lamb, clipped": (
        "LAMB",
        OURS | {"eps": 0.01, "weight_decay": 0.0, "trust_clip": 1.0, "clip_norm": 1.0},
        lambda m, p: m.Lamb(
            p, **THEIRS, eps=0.01, weight_decay=0.0, trust_clip=True, always_adapt=True
        ),
    ),
    "lars": (
        "LARS",
        HEAVY | DECAY | {"trust_coefficient": 0.02, "eps": 0.01},
        lambda m, p: m.Lars(p, **HEAVY, **DECAY, trust_coeff=0.02, eps=0.01),
    ),
    "lars, nesterov": (
        "LARS",
        HEAVY | {"dampening": 0.0, "nesterov": True, "trust_coefficient": 0.02, "eps": 0.01},
        lambda m, p: m.Lars(
            p,
            lr=5.0,
            momentum=0.8,
            nesterov=True,
            trust_coeff=0.02,
            eps=0.01,
            always_adapt=True,
        ),
    ),
    "lion": ("Lion", OURS | DECAY, lambda m, p: m.Lion(p, **THEIRS, **DECAY)),
    "nadamw": (
        "NAdam",
        OURS | DECOUPLED | {"eps": 0.01, "momentum_decay": None},
        lambda m, p: m.NAdamW(p, **THEIRS, **DECAY, eps=0.01),
    ),
    "rmsprop_tf": (
        "RMSprop",
        DECOUPLED
        | {"lr": LR, "alpha": 0.8, "momentum": 0.7, "eps": 0.01, "centered": True}
        | {"eps_inside_sqrt": True, "lr_in_velocity": True, "initial_square_avg": 1.0},
        lambda m, p: m.RMSpropTF(
            p,
            lr=LR,
            alpha=0.8,
            momentum=0.7,
            eps=0.01,
            centered=True,
            **DECAY,
            decoupled_decay=True,
        ),
    ),
    "sgdw": (
        "SGD",
        DECOUPLED | {"lr": LR, "momentum": 0.8, "nesterov": True},
        lambda m, p: m.SGDW(p, lr=LR, momentum=0.8, nesterov=True, **DECAY),
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm(name):
    module = module_of_timm(name.partition(",")[0])
    rule, options, make = TIMM[name]
    ours, theirs = run(rule, options, OfTorch(lambda p: make(module, p)))
    assert_close(ours.params, theirs)


# ---- schedulefree: the rules' authors ------------------------------------------------------------

WEIGHTS = {"r": 0.7, "weight_lr_power": 1.5}
FREE = {
    "SGD": (
        "ScheduleFreeSGD",
        DECAY | WEIGHTS | {"momentum": 0.8},
        lambda m, p: m.SGDScheduleFree(p, lr=LR, momentum=0.8, warmup_steps=20, **DECAY, **WEIGHTS),
    ),
    "AdamW": (
        "ScheduleFreeAdamW",
        DECAY | WEIGHTS | {"betas": (0.8, 0.95), "eps": 0.01},
        lambda m, p: m.AdamWScheduleFree(
            p, **THEIRS, eps=0.01, warmup_steps=20, **DECAY, **WEIGHTS
        ),
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_equals_schedulefree(name):
    """In training, in evaluation, and back; their warm-up is a schedule here."""
    module = package("schedulefree")
    rule, options, make = FREE[name]
    warm = {"lr": lambda step: LR * min(1.0, (step + 1) / 20)}
    peer = OfTorch(lambda p: training(make(module, p)))
    ours, y = run(rule, options | warm, peer)
    assert_close(ours.params, y)
    peer.optimizer.eval()
    assert_close(ours.shown(), peer.values())
    assert not np.allclose(peer.values()["w"], y["w"], rtol=0.001)
    peer.optimizer.train()
    assert_close(ours.params, peer.values())


@pytest.mark.parametrize("name", FREE)
def test_evaluation_in_schedulefree_loses_bits_and_averaged_loses_none(name):
    torch = package("torch")
    module = package("schedulefree")
    rng = np.random.default_rng(0)
    start, grad = rng.standard_normal(1000), rng.standard_normal(1000)
    rule, options, make = FREE[name]
    p = torch.tensor(start, requires_grad=True)
    theirs = training(make(module, [p]))
    w = start.copy()
    ours = getattr(instep, rule)(w, lr=LR, **options)
    for _ in range(3):
        p.grad = torch.tensor(grad)
        theirs.step()
        ours.step(grad)
    before, mine = p.detach().numpy().copy(), w.copy()
    theirs.eval()
    theirs.train()
    with ours.averaged():
        assert not np.array_equal(w, mine)
    assert not np.array_equal(p.detach().numpy(), before)
    np.testing.assert_array_equal(w, mine)
