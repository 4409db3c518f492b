"""Over many steps narrow states do what float32 does, on average; and where rounding to nearest fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import Reference, assert_follows
from storage_cases import BY_LABEL

import instep

SIZE = 4096  # elements, over which roundings average out


def run(gradients: Any, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """The parameters after these steps of Adam, from 0, in steps of the learning rate; and the second moments."""
    w = {"w": np.zeros(SIZE, "f4")}
    optimizer = instep.Adam(w, lr=1.0, eps=1e-12, **more)
    for g in gradients:
        optimizer.step({"w": np.full(SIZE, g, "f4")})
    kept = Reference("Adam", w, **more).kept_states["w"]["exp_avg_sq"]
    return -w["w"], kept.read(optimizer.state["w"])


FORMATS = ["codes", "bfloat16", "float16"]


@pytest.mark.parametrize("g", [1e-3, 1.0, 8094.0, 65504.0])
@pytest.mark.parametrize("label", FORMATS)
def test_constant_gradients(label: str, g: float) -> None:
    """Each step is one learning rate long, also for float16's largest number, whose square float16 does not have."""
    lengths = run([g] * 300, **BY_LABEL[label].options)[0] / 300
    assert abs(lengths.mean() - 1) < 1e-3
    assert (np.abs(lengths - 1) < 0.05).all()


@pytest.mark.parametrize("label", FORMATS)
def test_tiny_gradients_survive_in_float16(label: str) -> None:
    """Their first moments are subnormal, and their second moments would be zero without the root."""
    for g in (1e-7, 1e-5):
        lengths = run([g] * 300, **BY_LABEL[label].options)[0] / 300
        assert 0.6 < lengths.mean() < 1.01


@pytest.mark.parametrize("label", [*FORMATS, "codes-nearest"])
def test_second_moments_fall_when_gradients_do(label: str) -> None:
    wanted = run([1.0] * 50 + [1e-3] * 2500)[1].mean()
    found = run([1.0] * 50 + [1e-3] * 2500, **BY_LABEL[label].options)[1]
    assert abs(found.mean() / wanted - 1) < 0.02
    assert (np.abs(found / wanted - 1) < 0.5).all()


def test_to_nearest_bfloat16_does_not_fall() -> None:
    """A step changes it by a thousandth, which is less than half of a last place: why this is not the default."""
    wanted = run([1.0] * 50 + [1e-3] * 2500)[1].mean()
    found = run([1.0] * 50 + [1e-3] * 2500, **BY_LABEL["bfloat16-nearest"].options)[1]
    assert (found / wanted > 5).all()


def test_parameters_in_bfloat16_move_by_less_than_a_last_place() -> None:
    """Rounded at random, or with a remainder that has all of them; to nearest they stay."""
    for more, moves in (
        ({"param_rounding": "stochastic"}, True),
        ({"master_bits": 24, "param_rounding": "stochastic"}, True),
        ({"master_bits": 32}, True),
        ({}, False),
    ):
        w = {"w": np.ones(SIZE, BY_LABEL["master-24"].dtype)}
        optimizer = instep.SGD(w, lr=1e-5, **more)
        for _ in range(1000):
            optimizer.step({"w": np.ones(SIZE, "f4")})
        moved = 1 - w["w"].astype("f4").mean()
        assert (abs(moved - 0.01) < 2e-3) if moves else moved == 0


def test_parameters_that_are_added_later_have_the_next_numbers() -> None:
    rng = np.random.default_rng(8)
    first, later = np.ones((2, 5000), "f4")
    params = {"first": first, "later": later}
    storing = BY_LABEL["codes"].options
    reference = Reference("Adam", params, **storing)
    optimizer = instep.Adam({"first": first}, **storing)
    for step in range(3):
        g = {name: rng.standard_normal(5000).astype("f4") for name in params}
        if step == 1:
            optimizer.add_param_group({"params": {"later": later}})
        optimizer.step({"first": g["first"]} if step == 0 else [{n: g[n]} for n in params])
        reference.step(g | ({"later": None} if step == 0 else {}))
    assert_follows(optimizer, params, reference)
