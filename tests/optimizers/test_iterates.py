"""Rules that average the weights themselves, and states that are one number."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, rng_for
from reference import Reference, assert_follows, assert_same_bits, compute_type, load, store

import instep
from instep import checkpoint

ITERATES = [
    (instep.ASGD, {"lr": 0.1, "lambd": 0.01, "t0": 2.0}),
    (instep.ScheduleFreeSGD, {"lr": 0.1, "weight_decay": 0.05, "r": 1.0}),
    (instep.ScheduleFreeAdamW, {"lr": 0.1, "betas": (0.7, 0.9)}),
]
NUMBERS = {
    instep.NAdam: {"mu_product"},
    instep.ASGD: {"eta", "mu"},
    instep.ScheduleFreeSGD: {"lr_max", "weight_sum"},
    instep.ScheduleFreeAdamW: {"lr_max", "weight_sum"},
}


def both(
    rule: type[instep.Optimizer], dtype: Any, options: dict[str, Any], copied: Any = None
) -> tuple[Any, dict[str, np.ndarray], Reference, dict[str, np.ndarray]]:
    rng = rng_for(rule, dtype)
    params = {"w": rng.standard_normal((5, 7)).astype(dtype), "late": np.ones(3, dtype)}
    params["w"] = np.asfortranarray(params["w"])
    reference = Reference(rule.__name__, params, copy_dtype=copied, **options)
    copies = {k: np.zeros(p.shape, copied) for k, p in params.items()} if copied else None
    optimizer: Any = rule(params, copy_to=copies, **options)
    return optimizer, params, reference, copies or {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rule", "options"), ITERATES)
def test_averaged_shows_the_rules_own_average(
    rule: type[instep.Optimizer], options: dict[str, Any], dtype: Any
) -> None:
    copied = None if dtype.itemsize == 2 else np.float16
    optimizer, params, reference, copies = both(rule, dtype, options, copied)
    rng = rng_for("gradients", rule)
    T = compute_type(dtype)
    for _ in range(5):
        grads = {"w": rng.standard_normal((5, 7)).astype(dtype), "late": None}
        optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, params, reference)
        before = {name: p.copy() for name, p in params.items()}
        h = SimpleNamespace(**reference.options["w"])
        s = {key: load(value, T) for key, value in reference.state["w"].items()}
        average = reference.rule.average
        assert average is not None
        shown = average(load(before["w"], T), s, h, T)
        with optimizer.averaged():
            assert_same_bits(params["w"], store(shown, dtype))
            assert_same_bits(params["late"], before["late"])  # not stepped: as it is
            if copied:
                assert_same_bits(copies["w"], store(shown, copied))
            with pytest.raises(RuntimeError, match="averaged"):
                optimizer.step(grads)
        for name, p in params.items():
            assert_same_bits(p, before[name])
        if copied:
            assert_same_bits(copies["w"], store(before["w"], copied))
    assert dict(optimizer.averages) == {}


@pytest.mark.parametrize(("rule", "options"), ITERATES)
def test_shown_right_after_loading(rule: type[instep.Optimizer], options: dict[str, Any]) -> None:
    """Before the first step of this optimizer, whose numbers the core has not seen yet."""
    optimizer, params, _, _ = both(rule, np.dtype(np.float64), options)
    grads = {"w": np.ones((5, 7)), "late": np.ones(3)}
    for _ in range(3):
        optimizer.step(grads)
    with optimizer.averaged():
        shown = params["w"].copy()
    twin = copy.deepcopy(optimizer)
    with twin.averaged():
        assert_same_bits(twin.params["w"], shown)


@pytest.mark.parametrize("rule", [rule for rule, _ in ITERATES])
def test_there_is_no_other_average(rule: type[instep.Optimizer]) -> None:
    with pytest.raises(ValueError, match=rf"ema_decay must be None for {rule.__name__}, got 0.9"):
        rule(np.ones(2), ema_decay=0.9)
    optimizer = rule(np.ones(2))
    with pytest.raises(ValueError, match=r"ema_decay must be None for .*, got 0\.9"):
        optimizer.ema_decay = 0.9


@pytest.mark.parametrize("rule", [instep.ScheduleFreeSGD, instep.ScheduleFreeAdamW])
def test_the_share_of_the_average_is_a_constant(rule: Any) -> None:
    name = "momentum" if rule is instep.ScheduleFreeSGD else "betas"
    schedule: Any = lambda step: 0.9  # noqa: E731
    with pytest.raises(TypeError, match=rf"{name}.* must be a number in \(0, 1\), got a function"):
        rule(np.ones(2), **{name: schedule if name == "momentum" else (schedule, 0.9)})
    optimizer = rule(np.ones(2))
    other = 0.8 if name == "momentum" else (0.8, 0.999)
    with pytest.raises(ValueError, match=rf"{name} must stay .*, got .*; make a new optimizer"):
        setattr(optimizer, name, other)
    with pytest.raises(ValueError, match=rf"{name} must stay"):
        rule(np.ones(2), **{name: other}).load_state_dict(optimizer.state_dict())
    if name == "betas":
        optimizer.betas = (0.9, lambda step: 0.99)  # only the first is fixed
    with pytest.raises(ValueError, match="decoupled_l1 must be False"):
        rule(np.ones(2), decoupled_l1=True)


@pytest.mark.parametrize("rule", NUMBERS)
def test_numbers_are_states(rule: type[instep.Optimizer], tmp_path: Path) -> None:
    """Arrays without axes, of float64 also for narrow states; stored, loaded and copied like the others."""
    w = np.ones(4, np.float32)
    optimizer = rule(w, state_dtype=BFLOAT16, nonfinite="skip")
    for _ in range(3):
        optimizer.step(np.ones(4))
    states = optimizer.state["0"]
    numbers = {name: s for name, s in states.items() if s.ndim == 0}
    assert numbers.keys() == NUMBERS[rule]
    assert {s.dtype for s in numbers.values()} == {np.dtype(np.float64)}
    before = {name: float(s) for name, s in numbers.items()}
    optimizer.step(np.full(4, np.nan))  # skipped
    assert before == {name: float(s) for name, s in numbers.items()}
    checkpoint.save(tmp_path / "w", optimizer)
    loaded = rule(np.zeros(4, np.float32), state_dtype=BFLOAT16)
    checkpoint.load(tmp_path / "w", loaded)
    for twin in (loaded, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert before == {name: float(twin.state["0"][name]) for name in before}
        again = copy.deepcopy(optimizer)
        for one in (twin, again):
            one.step(np.full(4, 0.5))
        assert_same_bits(twin.params["0"], again.params["0"])
    state = optimizer.state_dict()
    name = next(iter(before))
    state["state"]["0"][name] = np.zeros(1)
    with pytest.raises(ValueError, match=rf"state '{name}' of '0' must have shape \(\)"):
        optimizer.load_state_dict(state)
    assert before == {name: float(s) for name, s in numbers.items()}


def test_numbers_keep_parameters_apart() -> None:
    """Two parameters of a group at the same step, whose numbers differ."""
    params = [np.zeros(2), np.zeros(2)]
    optimizer = instep.NAdam(params)
    optimizer.step([np.ones(2), np.ones(2)])
    optimizer.state[1]["mu_product"][...] = 0.25
    optimizer.step([np.ones(2), np.ones(2)])
    assert not np.array_equal(*params)
    assert optimizer.state[0]["mu_product"] != optimizer.state[1]["mu_product"]


def test_a_host_binds_numbers() -> None:
    steps = instep.Steps()
    steps.add_group("nadam", ["momentum_decay"])
    steps.append(1)
    w, states = np.zeros(2), {"exp_avg": np.zeros(2), "exp_avg_sq": np.zeros(2)}
    with pytest.raises(ValueError, match=r"state .mu_product. of .* must be among the states"):
        steps.bind(0, w, states=states)
    with pytest.raises(ValueError, match=r"must have shape \(\), got \(1,\)"):
        steps.bind(0, w, states={**states, "mu_product": np.zeros(1)})
    with pytest.raises(ValueError, match="must have dtype float64, got float32"):
        steps.bind(0, w, states={**states, "mu_product": np.zeros((), np.float32)})
    product = np.zeros(())
    steps.bind(0, w, states={**states, "mu_product": product})
    numbers = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "momentum_decay": 4e-3}
    steps.step([np.ones(2)], [numbers])
    assert 0 < product < 1
    assert (w < 0).all()
