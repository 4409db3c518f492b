"""Prodigy: sums over all parameters, scalar states that they share, and groups that must agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CHUNK, rng_for
from reference import Reference, assert_follows
from resumed import WAYS, resumed
from snapshots import snapshot

import instep
from instep import _core, schedules

SIZES = {"a": 3, "b": 2 * CHUNK + 5, "none": 0, "c": CHUNK, "d": 1}
NUMBERS: dict[str, Any] = {"d0": 0.01, "d_coef": 1e5}  # with which d grows within a few steps


def arrays(seed: object, dtype: Any = "f4") -> dict[str, np.ndarray]:
    rng = rng_for("prodigy", seed)
    return {name: rng.standard_normal(size).astype(dtype) for name, size in SIZES.items()}


def some(seed: object, *absent: str) -> dict[str, Any]:
    """Gradients, of which some are absent."""
    return {name: None if name in absent else g for name, g in arrays(seed).items()}


def d_of(optimizer: Any) -> float:
    return float(next(iter(optimizer.state.values()))["d"])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("eager_threads")
def test_sums_are_over_all_parameters_with_a_gradient(threads: int) -> None:
    instep.set_num_threads(threads)
    start = arrays("start")
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.Prodigy(params, **NUMBERS)
    reference = Reference("Prodigy", start, **NUMBERS)
    absents = [("d",), (), ("a", "c"), ("b",), tuple(SIZES), ()]
    for step, absent in enumerate(absents):
        grads = some(step, *absent)
        optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, params, reference, f"at step {step}")
    assert d_of(optimizer) > NUMBERS["d0"]
    assert float(optimizer.state["a"]["k"]) == 5  # a step without any gradient doesn't count
    assert optimizer.step_count == 6


def test_all_parameters_show_the_same_arrays() -> None:
    optimizer = instep.Prodigy([{"params": np.ones(3)}, {"params": np.ones(2)}])
    optimizer.add_param_group({"params": np.ones(4)})
    first, *others = optimizer.state.values()
    for state in others:
        assert all(state[name] is first[name] for name in ("d", "d_max", "d_numerator", "k"))
        assert state["s"] is not first["s"]


def test_a_group_with_rate_0_takes_no_part() -> None:
    start = arrays("start")
    params = {name: p.copy() for name, p in start.items()}
    own = {"a": {"lr": 0.0}, "c": {"lr": 0.0}}
    optimizer = instep.Prodigy(
        [{"params": {name: params[name]}, **own.get(name, {})} for name in SIZES], **NUMBERS
    )
    reference = Reference("Prodigy", start, groups=own, **NUMBERS)
    for step in range(4):
        grads = arrays(step)
        optimizer.step([{name: grads[name]} for name in SIZES])
        reference.step(grads)
    assert_follows(optimizer, params, reference)
    assert np.array_equal(params["a"], start["a"])
    assert np.array_equal(optimizer.state["a"]["p0"], start["a"])
    assert not optimizer.state["a"]["exp_avg"].any()
    # Without the group the estimate is the same.
    alone = instep.Prodigy({n: p.copy() for n, p in start.items() if n not in own}, **NUMBERS)
    for step in range(4):
        alone.step({n: g for n, g in arrays(step).items() if n not in own})
    assert d_of(alone) == d_of(optimizer) > NUMBERS["d0"]


def test_only_parameters_that_take_no_part_have_a_gradient() -> None:
    frozen, w = np.ones(2), np.ones(3)
    optimizer = instep.Prodigy([{"params": frozen, "lr": 0.0}, {"params": w}])
    optimizer.step([np.ones(2), None])
    state = optimizer.state["1"]
    assert (float(state["k"]), d_of(optimizer)) == (1.0, 1e-6)
    assert (frozen == 1).all()
    assert (w == 1).all()
    optimizer.step([None, np.ones(3)])
    assert float(state["k"]) == 2.0
    assert (w < 1).all()


def test_a_group_is_thawed() -> None:
    """From the step on at which its rate is that of the others; p0 is as at its first gradient."""
    w, frozen = np.ones(3), np.ones(3)
    optimizer = instep.Prodigy([{"params": w}, {"params": frozen, "lr": 0.0}])
    for _ in range(3):
        optimizer.step([w.copy(), frozen.copy()])
    optimizer.param_groups[1]["lr"] = 1.0
    optimizer.step([w.copy(), frozen.copy()])
    assert (frozen < 1).all()


def test_at_a_step_with_rate_0_only_counts_move() -> None:
    start, lr = arrays("start"), schedules.PiecewiseLinear([0.0, 0.0, 1.0], [1, 2])
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.Prodigy(params, lr=lr, decoupled_l1=True, l1=0.1, **NUMBERS)
    reference = Reference("Prodigy", start, lr=lr, decoupled_l1=True, l1=0.1, **NUMBERS)
    for step in range(4):
        optimizer.step(arrays(step))
        reference.step(arrays(step))
        assert_follows(optimizer, params, reference, f"at step {step}")
        if step < 2:
            assert all(np.array_equal(params[name], start[name]) for name in SIZES)
            assert not any(optimizer.state[n][key].any() for n in SIZES for key in ("s", "exp_avg"))
            assert float(optimizer.state["a"]["k"]) == step + 1


def test_without_any_gradient_other_than_0_nothing_moves_but_counts() -> None:
    w = np.array([1.0, -0.0])
    optimizer = instep.Prodigy(w, decoupled_l1=True, l1=0.5, weight_decay=0.5)
    optimizer.step(np.zeros(2))
    assert w.tolist() == [1.0, -0.0]
    assert np.signbit(w[1])
    assert {k: float(v) for k, v in optimizer.state["0"].items() if v.ndim == 0} == {
        "d": 1e-6,
        "d_max": 1e-6,
        "d_numerator": 0.0,
        "k": 1.0,
    }


def test_nan_ends_the_growth() -> None:
    w = np.ones(2)
    optimizer = instep.Prodigy(w)
    optimizer.step(np.ones(2))
    optimizer.step(np.array([np.nan, 1.0]))
    assert d_of(optimizer) == 1e-6
    assert np.isnan(optimizer.state["0"]["d_numerator"])
    skipping = instep.Prodigy(np.ones(2), nonfinite="skip")
    skipping.step(np.array([np.nan, 1.0]))
    assert float(skipping.state["0"]["k"]) == 0.0


def filled(optimizer: Any, steps: int = 3) -> Any:
    for step in range(steps):
        optimizer.step(arrays(step))
    return optimizer


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_has_the_same_bits(way: str, tmp_path: Any) -> None:
    first = filled(instep.Prodigy(arrays("start"), **NUMBERS))
    fresh = instep.Prodigy({n: p.copy() for n, p in first.params.items()})
    second = resumed(way, first, fresh, tmp_path)
    assert second.state["a"]["d"] is second.state["b"]["d"]
    assert second.state["a"]["d"] is not first.state["a"]["d"]
    for optimizer in (first, second):
        filled(optimizer)
    assert snapshot(first) == snapshot(second)
    assert d_of(first) > NUMBERS["d0"]


def test_a_state_whose_numbers_differ_is_refused() -> None:
    optimizer = filled(instep.Prodigy(arrays("start")))
    state = optimizer.state_dict()
    state["state"]["c"]["d"][...] = 2.0
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="one for all parameters") as caught:
        optimizer.load_state_dict(state)
    assert str(caught.value) == (
        "state 'd' of 'c' must equal state 'd' of 'a', as the rule has one for all parameters, got 2.0"
    )
    assert snapshot(optimizer) == before


OTHERS = {"betas": (0.5, 0.5), "beta3": 0.5, "d0": 1e-3, "d_coef": 2.0, "growth_rate": 2.0}
OTHERS |= {"use_bias_correction": True, "safeguard_warmup": True, "lr": 0.5}


@pytest.mark.parametrize("name", OTHERS)
def test_groups_must_agree(name: str) -> None:
    other = {"params": np.ones(2), name: OTHERS[name]}
    with pytest.raises(ValueError, match=f"{name} must be the same in all groups of Prodigy"):
        instep.Prodigy([{"params": np.ones(1)}, other])
    optimizer = instep.Prodigy([{"params": np.ones(1)}, {"params": np.ones(2)}])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=f"{name} must be the same in all groups of Prodigy"):
        optimizer.add_param_group(other)
    with pytest.raises(ValueError, match=f"{name} must "):
        optimizer.param_groups[1][name] = OTHERS[name]
    state = optimizer.state_dict()
    state["param_groups"][1][name] = OTHERS[name]
    with pytest.raises(ValueError, match=f"{name} must "):
        optimizer.load_state_dict(state)
    assert snapshot(optimizer) == before


def test_numbers_are_set_for_all_groups_together() -> None:
    optimizer = instep.Prodigy([{"params": np.ones(1)}, {"params": np.ones(2), "eps": 0.1}])
    optimizer.betas = (0.5, 0.9)
    optimizer.lr = half = schedules.Constant(0.5)
    assert optimizer.betas == (0.5, 0.9)
    assert [group["lr"] for group in optimizer.param_groups] == [half, half]
    with pytest.raises(ValueError, match="must be the same in all groups") as caught:
        optimizer.param_groups[0]["lr"] = 0.25
    assert str(caught.value) == (
        "lr must be the same in all groups of Prodigy, or 0, got 0.25 and Constant(value=0.5); "
        "set it for all together, as in optimizer.lr = ..."
    )


# ---- places of a host --------------------------------------------------------------------------------------------


def states_of(w: np.ndarray, joint: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: np.zeros_like(w) for n in ("exp_avg", "exp_avg_sq", "s", "p0")} | joint


def host(groups: int = 1) -> tuple[instep.Steps, dict[str, np.ndarray]]:
    steps = instep.Steps()
    for _ in range(groups):
        steps.add_group("prodigy")
    steps.append(2)
    return steps, {name: np.zeros(()) for name in steps.rules()["prodigy"]["joint_states"]}


NUMBERS_OF_HOST = {"lr": 1.0, "beta1": 0.9, "beta2": 0.999, "beta3": None, "eps": 1e-8}
NUMBERS_OF_HOST |= {"d0": 1e-6, "d_coef": 1.0, "growth_rate": np.inf, "weight_decay": 0.0}


def test_the_places_of_a_host_share_the_arrays() -> None:
    a, b = np.ones(3), np.ones(2)
    optimizer = instep.Prodigy([a.copy(), b.copy()])
    steps, joint = host()
    for place, w in enumerate((a, b)):
        steps.bind(place, w, states=states_of(w, joint))
    for _ in range(3):
        grads = [a.copy(), b.copy()]
        optimizer.step(grads)
        steps.step(grads, [NUMBERS_OF_HOST])
    assert np.array_equal(optimizer.params["0"], a)
    assert float(joint["k"]) == 3.0
    steps.unbind(0)
    steps.bind(0, a, states=states_of(a, joint))
    steps.step([a.copy(), None], [NUMBERS_OF_HOST])
    with pytest.raises(ValueError, match="one for all parameters"):
        steps.bind(0, a, states=states_of(a, {name: np.zeros(()) for name in joint}))
    steps.bind(0, joint["d"], states=states_of(joint["d"], joint))
    with pytest.raises(ValueError, match="shares memory with"):
        steps.step([np.ones(()), None], [NUMBERS_OF_HOST])


def test_the_numbers_of_a_host_must_agree() -> None:
    steps, joint = host(groups=2)
    for place, w in enumerate((np.ones(3), np.ones(2))):
        steps.bind(place, w, group=place, states=states_of(w, joint))
    grads = [np.ones(3), np.ones(2)]
    message = (
        r"^beta1 must be the same in all groups of Prodigy, got 0\.9 and 0\.5; "
        "give the same to all, also to groups without places$"
    )
    with pytest.raises(ValueError, match=message):
        steps.step(grads, [NUMBERS_OF_HOST, {**NUMBERS_OF_HOST, "beta1": 0.5}])
    steps.step(grads, [NUMBERS_OF_HOST, {**NUMBERS_OF_HOST, "lr": 0.0}])
    assert float(joint["k"]) == 1.0


def test_groups_of_another_rule_have_numbers_of_their_own() -> None:
    steps, joint = host()
    steps.add_group("lion")
    a, b = np.ones(3), np.ones(3)
    steps.bind(0, a, states=states_of(a, joint))
    steps.bind(1, b, group=1, states={"exp_avg": np.zeros(3)})
    of_lion = {"lr": 0.5, "beta1": 0.5, "beta2": 0.5, "weight_decay": 0.0}
    steps.step([np.ones(3), np.ones(3)], [NUMBERS_OF_HOST, of_lion])
    assert float(joint["k"]) == 1.0
    assert b.tolist() == [0.5] * 3


def test_other_rules_share_nothing() -> None:
    rules = _core.rules()
    assert [name for name, rule in rules.items() if rule["joint_states"]] == ["prodigy"]
