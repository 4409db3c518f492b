"""`instep.Steps` over states in 8 and 16 bits and over remainders that somebody else keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from hosts import ADAM
from reference import assert_same_bits

import instep

F = np.float32
ROUNDINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "nearest": {"rounding": "nearest"},
    "parameters at random": {"param_rounding": "stochastic", "seed": 2**64 - 1},
    "another seed": {"seed": 12},
}


@pytest.mark.parametrize("rounding", ROUNDINGS.values(), ids=ROUNDINGS)
@pytest.mark.parametrize("state_dtype", ["8bit", BFLOAT16, np.float16])
@pytest.mark.parametrize("bits", [None, 24])
def test_the_bits_are_those_of_an_optimizer(
    bits: int | None, state_dtype: Any, rounding: dict[str, Any]
) -> None:
    """The place's number is the parameter's number; a place is empty in between."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(BFLOAT16) for shape in (300, (5, 70), 3)]
    params = [w.copy() for w in start]
    optimizer = instep.Adam(
        params,
        lr=0.1,
        weight_decay=0.01,
        state_dtype=state_dtype,
        master_bits=bits,  # type: ignore[arg-type]
        min_8bit_size=0,
        **rounding,
    )
    steps = instep.Steps(**rounding)
    group = steps.add_group("adam")
    steps.append(3)
    mine = [w.copy() for w in start]
    states: list[dict[str, np.ndarray]] = []
    for i, w in enumerate(mine):
        states.append({k: np.zeros_like(a) for k, a in optimizer.state[str(i)].items()})
        steps.bind(i, w, group=group, states=states[i])
    for k in range(4):
        grads: list[Any] = [rng.standard_normal(w.shape) for w in mine]
        if k == 1:
            grads[1] = None
        optimizer.step(grads)
        steps.step(grads, [{**ADAM, "lr": 0.1, "weight_decay": 0.01}])
        if k == 2:  # the random numbers go on with the place's count
            t = steps.t(2)
            steps.unbind(2)
            steps.bind(2, mine[2], group=group, states=states[2], t=t)
    for i, w in enumerate(mine):
        assert_same_bits(w, params[i], str(i))
        for key, array in states[i].items():
            assert_same_bits(array, optimizer.state[str(i)][key], f"{key} of {i}")


def test_rules_say_how_states_may_be_stored() -> None:
    kinds = instep.Steps.rules()["adam"]["kinds"]
    assert set(kinds) == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    first, second = kinds["exp_avg"], kinds["exp_avg_sq"]
    assert (first["signed"], first["eight_bits"], first["root"]) == (True, True, False)
    assert (second["signed"], second["eight_bits"], second["root"]) == (False, True, True)
    assert "mu_product" not in instep.Steps.rules()["nadam"]["kinds"]
    assert instep.Steps.states("adam") == ("exp_avg", "exp_avg_sq")


def bound(**changed: Any) -> instep.Steps:
    """One place with states in 8 bits, of which some are other arrays, or absent if None."""
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append()
    states: dict[str, Any] = {
        "exp_avg": np.zeros(100, np.int8),
        "exp_avg_unit": np.zeros(2, F),
        "exp_avg_sq": np.zeros(100, np.uint8),
        "exp_avg_sq_unit": np.zeros(2, F),
    }
    parameter = changed.pop("parameter", np.ones(100, F))
    states = {key: array for key, array in (states | changed).items() if array is not None}
    steps.bind(0, parameter, states=states)
    return steps


WRONG: dict[str, dict[str, Any]] = {
    "no units": {"exp_avg_unit": None},
    "units without codes": {"exp_avg": np.zeros(100, F)},
    "units of another shape": {"exp_avg_unit": np.zeros(3, F)},
    "units of another dtype": {"exp_avg_unit": np.zeros(2)},
    "units that are read-only": {"exp_avg_unit": np.broadcast_to(np.zeros((), F), (2,))},
    "codes of the other sign": {"exp_avg": np.zeros(100, np.uint8)},
    "codes that are strided": {"exp_avg": np.zeros(200, np.int8)[::2]},
    "codes of another shape": {"exp_avg_sq": np.zeros(99, np.uint8)},
    "a wide parameter": {"parameter": np.ones(100)},
    "a remainder of float32": {"remainder": np.zeros(100, np.int16)},
    "a remainder of another dtype": {
        "parameter": np.ones(100, BFLOAT16),
        "remainder": np.zeros(100, np.int32),
    },
    "a remainder of another shape": {
        "parameter": np.ones(100, BFLOAT16),
        "remainder": np.zeros(99, np.int8),
    },
}


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_codes_without_elements(shape: tuple[int, ...]) -> None:
    """Strides between no elements mean nothing."""
    bound(
        parameter=np.ones(shape, F),
        exp_avg=np.zeros(shape, np.int8),
        exp_avg_unit=np.zeros(0, F),
        exp_avg_sq=np.zeros(shape, np.uint8),
        exp_avg_sq_unit=np.zeros(2, F)[2:],
    ).step([np.ones(shape)], [ADAM])


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"exp_avg_unit": np.zeros(2)}, "'exp_avg_unit' of '0' must have dtype float32, got float64"),
    ({"exp_avg_unit": np.zeros(4, F)[::2]}, "'exp_avg_unit' of '0' must be C-contiguous, got an"),
    (
        {"exp_avg": np.zeros(100, bool)},
        "'exp_avg' of '0' must have .* or int8 or uint8 for codes, got",
    ),
    (
        {"parameter": np.ones(100, BFLOAT16), "remainder": np.zeros(100, np.int32)},
        "'remainder' of '0' must have dtype int8 or int16, got int32",
    ),
]


@pytest.mark.parametrize(("changed", "message"), WORDS)
def test_which_dtype_and_layout_is_expected(changed: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^state {message}"):
        bound(**changed)


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_what_is_refused(changed: dict[str, Any]) -> None:
    assert bound().is_bound(0)
    with pytest.raises((TypeError, ValueError)) as caught:
        bound(**changed)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in ("exp_avg", "remainder"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "up"}, "rounding must be one of stochastic, nearest, got 'up'"),
        ({"param_rounding": 1}, "param_rounding must be one of stochastic, nearest, got 1"),
        ({"seed": -1}, r"seed must be an int from 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 0.5}, r"seed must be an int from 0 to 2\*\*64 - 1, got 0\.5"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        instep.Steps(**options)


def test_one_nan_takes_its_block_of_a_state() -> None:
    """And nothing else; with nonfinite="skip" it never gets there."""
    g = np.ones(200, F)
    g[70] = np.nan
    for nonfinite, expected in (("propagate", 64), ("skip", 0)):
        w = np.ones(200, F)
        optimizer = instep.Adam(w, state_dtype="8bit", min_8bit_size=0, nonfinite=nonfinite)  # type: ignore[arg-type]
        optimizer.step(np.ones(200))
        optimizer.step(g)
        optimizer.step(np.ones(200))
        assert np.isnan(w).sum() == expected
        assert not np.isnan(w[:64]).any()
