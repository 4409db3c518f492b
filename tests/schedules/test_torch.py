"""The schedules against PyTorch's, over 1,000 steps of an optimizer."""

import math
import random

import numpy as np
import pytest

from instep.schedules import (
    Constant,
    CosineDecay,
    CosineRestarts,
    Cyclic,
    ExponentialDecay,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PolynomialDecay,
    ReduceOnPlateau,
    Sequential,
    Warmup,
)

torch = pytest.importorskip("torch")
theirs = torch.optim.lr_scheduler

STEPS = 1000


def sgd():
    weights = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    return torch.optim.SGD([weights], lr=0.1, momentum=0.9)


def trajectory(make, what="lr"):
    """What PyTorch's scheduler sets at each of the steps, from a learning rate of 0.1."""
    optimizer = sgd()
    scheduler = make(optimizer)
    values = []
    for step in range(STEPS):
        values.append(float(optimizer.param_groups[0][what]))
        optimizer.step()
        if step < STEPS - 1:
            scheduler.step()
    return values


def in_sequence(optimizer):
    return theirs.SequentialLR(
        optimizer,
        [
            theirs.LinearLR(optimizer, 0.01, 1.0, 100),
            theirs.CosineAnnealingLR(optimizer, 500, eta_min=0.001),
            theirs.ExponentialLR(optimizer, 0.99),
        ],
        milestones=[100, 600],
    )


def cyclic(mode, momentum):
    return lambda o: theirs.CyclicLR(
        o, 0.01, 0.1, 37, 63, mode, gamma=0.999, cycle_momentum=momentum
    )


def one_cycle(anneal, momentum=False, **more):
    return lambda o: theirs.OneCycleLR(
        o, 0.1, total_steps=STEPS, anneal_strategy=anneal, cycle_momentum=momentum, **more
    )


# (schedule, PyTorch's, what this sets unless it is the learning rate)
COUNTERPARTS = {
    "StepLR": (
        ExponentialDecay(0.1, 0.7, steps=30, staircase=True),
        lambda o: theirs.StepLR(o, 30, gamma=0.7),
    ),
    "MultiStepLR": (
        PiecewiseConstant([0.1, 0.01, 0.001, 0.0001], [100, 150, 777]),
        lambda o: theirs.MultiStepLR(o, [100, 150, 777], gamma=0.1),
    ),
    "ConstantLR": (
        PiecewiseConstant([0.03, 0.1], [120]),
        lambda o: theirs.ConstantLR(o, 0.3, 120),
    ),
    "LinearLR": (
        Linear(0.001, 0.1, steps=700),
        lambda o: theirs.LinearLR(o, 0.01, 1.0, 700),
    ),
    "LinearLR as warmup": (
        Warmup(Constant(0.1), steps=300, init=0.02),
        lambda o: theirs.LinearLR(o, 0.2, 1.0, 300),
    ),
    "ExponentialLR": (
        ExponentialDecay(0.1, 0.99),
        lambda o: theirs.ExponentialLR(o, 0.99),
    ),
    "PolynomialLR": (
        PolynomialDecay(0.1, steps=800, power=1.7),
        lambda o: theirs.PolynomialLR(o, 800, power=1.7),
    ),
    "PolynomialLR of power 1": (
        PolynomialDecay(0.1, steps=STEPS),
        lambda o: theirs.PolynomialLR(o, STEPS),
    ),
    "CosineAnnealingLR": (
        CosineDecay(0.1, steps=STEPS),
        lambda o: theirs.CosineAnnealingLR(o, STEPS),
    ),
    "CosineAnnealingLR with eta_min": (
        CosineDecay(0.1, steps=1500, end=0.001),
        lambda o: theirs.CosineAnnealingLR(o, 1500, eta_min=0.001),
    ),
    "CosineAnnealingWarmRestarts": (
        CosineRestarts(0.1, period=70, end=0.001),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 70, eta_min=0.001),
    ),
    "CosineAnnealingWarmRestarts with T_mult 2": (
        CosineRestarts(0.1, period=10, period_mult=2),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 10, T_mult=2),
    ),
    "CosineAnnealingWarmRestarts with T_mult 3": (
        CosineRestarts(0.1, period=7, end=0.01, period_mult=3),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 7, T_mult=3, eta_min=0.01),
    ),
    **{
        f"CyclicLR {mode}": (
            Cyclic(0.01, 0.1, up=37, down=63, mode=mode, gamma=0.999),
            cyclic(mode, momentum=False),
        )
        for mode in ("triangular", "triangular2", "exp_range")
    },
    "CyclicLR of momentum": (
        Cyclic(0.9, 0.8, up=37, down=63),
        cyclic("triangular", momentum=True),
        "momentum",
    ),
    "OneCycleLR cos": (OneCycle(0.1, steps=STEPS), one_cycle("cos")),
    "OneCycleLR linear": (
        OneCycle(0.1, steps=STEPS, end_div=10.0, anneal="linear"),
        one_cycle("linear", final_div_factor=10.0),
    ),
    "OneCycleLR with other arguments": (
        OneCycle(2.0, STEPS, warmup_fraction=0.123, init_div=3.0, end_div=70.0),
        lambda o: theirs.OneCycleLR(
            o,
            2.0,
            total_steps=STEPS,
            pct_start=0.123,
            div_factor=3.0,
            final_div_factor=70.0,
            cycle_momentum=False,
        ),
    ),
    **{
        f"OneCycleLR {theirs_name} of three phases, {fraction}": (
            OneCycle(0.1, STEPS, fraction, anneal=anneal, three_phase=True),
            one_cycle(theirs_name, pct_start=fraction, three_phase=True),
        )
        for theirs_name, anneal in (("cos", "cosine"), ("linear", "linear"))
        for fraction in (0.3, 0.1234, 0.0, 0.0005)
    },
    "OneCycleLR of three phases, the last of one step": (
        OneCycle(0.1, STEPS, 0.5, three_phase=True),
        one_cycle("cos", pct_start=0.5, three_phase=True),
    ),
    "OneCycleLR of three phases of momentum": (
        OneCycle(0.85, STEPS, init_div=0.85 / 0.95, end_div=1.0, three_phase=True),
        one_cycle("cos", momentum=True, three_phase=True),
        "momentum",
    ),
    "OneCycleLR without warmup": (
        OneCycle(0.1, STEPS, warmup_fraction=0.0),
        lambda o: theirs.OneCycleLR(o, 0.1, total_steps=STEPS, pct_start=0.0, cycle_momentum=False),
    ),
    **{
        f"OneCycleLR {theirs_name} of momentum": (
            OneCycle(0.85, STEPS, init_div=0.85 / 0.95, end_div=1.0, anneal=anneal),
            one_cycle(theirs_name, momentum=True),
            "momentum",
        )
        for theirs_name, anneal in (("cos", "cosine"), ("linear", "linear"))
    },
    "SequentialLR": (
        Sequential(
            [
                Linear(0.001, 0.1, steps=100),
                CosineDecay(0.1, steps=500, end=0.001),
                ExponentialDecay(0.1, 0.99),
            ],
            [100, 600],
        ),
        in_sequence,
    ),
    "LambdaLR": (
        Linear(0.1, 0.0, steps=STEPS) * (lambda t: 1 + t % 3),
        lambda o: theirs.LambdaLR(o, lambda t: (1 - t / STEPS) * (1 + t % 3)),
    ),
}


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_equals_its_counterpart(name):
    schedule, *counterpart = COUNTERPARTS[name]
    expected = trajectory(*counterpart)
    assert len(set(expected)) > 1
    np.testing.assert_allclose(schedule(np.arange(STEPS)), expected, rtol=1e-12, atol=0)
    assert [schedule(t) for t in range(STEPS)] == schedule(np.arange(STEPS)).tolist()


def test_one_cycle_of_lines_ends_exactly():
    """PyTorch's last value is a difference of larger ones, so it alone is off by 1e-10."""
    ours = OneCycle(0.1, STEPS, anneal="linear")(np.arange(STEPS))
    expected = trajectory(one_cycle("linear"))
    np.testing.assert_allclose(ours[:-1], expected[:-1], rtol=1e-12, atol=0)
    np.testing.assert_allclose(ours[-1], expected[-1], rtol=1e-9, atol=0)
    assert ours[-1] == 0.1 / 25 / 1e4


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 5])
@pytest.mark.parametrize("end", [0.0, 0.01])
@pytest.mark.parametrize(
    ("threshold", "threshold_mode"), [(1e-4, "rel"), (0.05, "rel"), (1e-4, "abs"), (0.03, "abs")]
)
def test_plateau_equals_its_counterpart(mode, cooldown, end, threshold, threshold_mode):
    arguments = {"mode": mode, "threshold": threshold, "cooldown": cooldown, "patience": 10}
    arguments |= {"threshold_mode": threshold_mode, "factor": 0.8}
    noise = random.Random(3)
    sign = 1 if mode == "min" else -1
    metrics = [
        (1 + 200 / (step + 20)) ** sign * noise.uniform(0.9, 1.1)
        if step % 97 != 50
        else float("nan")
        for step in range(STEPS)
    ]
    assert compared_on_a_plateau(metrics, end, **arguments) > 5


def test_absolute_thresholds_over_random_sequences():
    """Also where metrics are negative or zero, and on the threshold itself, which is no improvement."""
    rng, reductions = random.Random(5), 0
    for _ in range(300):
        arguments = {
            "mode": rng.choice(["min", "max"]),
            "threshold": rng.choice([0.0, 0.25, 1.0, 1e-3, rng.random()]),
            "threshold_mode": "abs",
            "patience": rng.randrange(4),
            "cooldown": rng.randrange(3),
            "factor": 0.5,
        }
        metrics = [rng.choice([rng.randrange(-8, 9) / 4, rng.gauss(0, 1)]) for _ in range(60)]
        reductions += compared_on_a_plateau(metrics, 0.0, **arguments)
    assert reductions > 1000


def compared_on_a_plateau(metrics, end, **arguments):
    """Compare values and states after each metric, and return how many values there were."""
    optimizer = sgd()
    optimizer.step()
    scheduler = theirs.ReduceLROnPlateau(optimizer, min_lr=end, eps=0.0, **arguments)
    schedule = ReduceOnPlateau(0.1, end=end, **arguments)
    ours, expected = [], []
    for step, metric in enumerate(metrics):
        ours.append(schedule(step))
        expected.append(optimizer.param_groups[0]["lr"])
        schedule.observe(metric)
        scheduler.step(metric)
        state = scheduler.state_dict()
        best = None if math.isinf(state["best"]) else state["best"]
        assert schedule.state_dict()["best"] == best
        assert schedule.state_dict()["bad"] == state["num_bad_epochs"]
        assert schedule.state_dict()["cooldown"] == state["cooldown_counter"]
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=0)
    return len(set(expected))


def test_drives_a_hyperparameter_of_their_optimizer():
    """A schedule is a plain callable: PyTorch's LambdaLR takes it as it is."""
    schedule = Warmup(CosineDecay(1.0, 900), 100)
    values = trajectory(lambda o: theirs.LambdaLR(o, schedule))
    np.testing.assert_allclose(values, 0.1 * schedule(np.arange(STEPS)), rtol=1e-12, atol=0)
