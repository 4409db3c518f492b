"""Schedules drive any hyperparameter: each alone, all at once, equal to the reference to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMBERS, OPTIMIZERS, VARIANTS, numbers
from reference import Reference, assert_follows, assert_same_bits

import instep
from instep import schedules
from instep.schedules import OneCycle, Schedule

STEPS = 6

# Of each rule the choice with the most options on, in which every number matters.
FULL = {v.rule: v for v in VARIANTS if v.label.endswith("all-terms")}


def moving(value: float) -> Schedule:
    """A schedule that is another number at every step, near value."""
    return schedules.Linear(value, 0.8 * value, STEPS) * schedules.Cyclic(1.0, 0.9, up=2)


def scheduled(
    rule: type[instep.Optimizer], options: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    changed = dict(options)
    for name in names:
        value = options[name]
        if isinstance(value, tuple):
            fixed = rule._hyperparameters[name].fixed(value)  # the first, or None
            changed[name] = tuple(part if part == fixed else moving(part) for part in value)
        else:
            changed[name] = moving(value)
    return changed


def numeric(rule: type[instep.Optimizer]) -> list[str]:
    """The hyperparameters that may be schedules."""
    options = FULL[rule].options
    return [
        name
        for name, kind in rule._hyperparameters.items()
        if name in NUMBERS
        and options.get(name) is not None
        and kind.fixed(options[name]) != options[name]
    ]


# Numbers of a parameter's first step alone, where these schedules have their first value; numbers that act on the
# average; limits that are not reached here, and numbers of an option that is off.
UNFELT = {"initial_accumulator_value", "initial_square_avg", "t0"}
UNFELT_BY = {
    (instep.Rprop, "lr"),
    (instep.Rprop, "clip_value"),
    (instep.ADOPT, "eps"),
}


CASES = [(rule, [name]) for rule in OPTIMIZERS for name in numeric(rule)]
CASES += [(rule, numeric(rule)) for rule in OPTIMIZERS]


@pytest.mark.parametrize(
    ("rule", "names"), CASES, ids=lambda x: "-".join(x) if isinstance(x, list) else x.__name__
)
def test_equals_the_reference(rule: type[instep.Optimizer], names: list[str]) -> None:
    options = scheduled(rule, FULL[rule].options, names)
    rng = np.random.default_rng(50)
    start = {"w": numbers(rng, 300, "f4"), "b": numbers(rng, 5, "f8")}
    params = {name: p.copy() for name, p in start.items()}
    optimizer: Any = rule(params, **options)
    reference = Reference(rule.__name__, start, **options)
    constant: Any = rule({name: p.copy() for name, p in start.items()}, **FULL[rule].options)
    for _ in range(STEPS):
        grads = {name: numbers(rng, p.shape, p.dtype) for name, p in start.items()}
        for one in (optimizer, reference, constant):
            one.step(grads)
        assert_follows(optimizer, params, reference)
    if set(names) <= UNFELT or (rule, names[0]) in UNFELT_BY:
        return
    assert not np.array_equal(params["w"], constant.params["w"]), "the schedule changes the run"


def test_every_number_of_every_rule_is_here() -> None:
    for rule in OPTIMIZERS:
        flags = {n for n, value in instep_defaults(rule).items() if isinstance(value, bool)}
        left_out = {"dampening"} if issubclass(rule, (instep.SGD, instep.LARS)) else set()  # below
        left_out |= {"momentum"} if rule is instep.ScheduleFreeSGD else set()  # a constant
        assert set(numeric(rule)) == set(rule._hyperparameters) - flags - left_out


def instep_defaults(rule: type[instep.Optimizer]) -> dict[str, Any]:
    return dict(rule(np.ones(1)).param_groups[0])


def test_momentum_against_one_cycle() -> None:
    """The classic pair: the momentum falls while the learning rate rises. And dampening, as a schedule."""
    lr = OneCycle(0.1, steps=STEPS, warmup_fraction=0.5)
    momentum = OneCycle(0.85, STEPS, warmup_fraction=0.5, init_div=0.85 / 0.95, end_div=1.0)
    options = {"lr": lr, "momentum": momentum, "dampening": moving(0.3)}
    start = {"w": np.linspace(-1.0, 1.0, 50)}
    optimizer = instep.SGD({"w": start["w"].copy()}, **options)
    reference = Reference("SGD", start, **options)
    for step in range(STEPS):
        for one in (optimizer, reference):
            one.step({"w": np.cos(start["w"] + step)})
    assert_same_bits(optimizer.params["w"], reference.params["w"])
    assert momentum(0) == 0.95 > momentum(2) == 0.85
