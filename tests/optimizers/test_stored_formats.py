"""The options of stored formats: what is taken, what is refused in one line, and what is shown of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS, BFLOAT16, one_element, takes
from snapshots import bits

import instep

A_DTYPE = "must be a floating-point dtype, 'bfloat16' or '8bit', got"
A_SEED = r"^seed must be an int from 0 to 2\*\*64 - 1, got"
A_SIZE = "^min_8bit_size must be an int of at least 0, got"
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[
        (
            {"state_dtype": found},
            TypeError,
            f"^state_dtype {A_DTYPE} .*; did you mean '{meant}'\\?$",
        )
        for found, meant in [
            ("8 bit", "8bit"),
            ("8-bit", "8bit"),  # NumPy's own error is a ValueError
            (8, "8bit"),
            (np.int8, "8bit"),
            (np.dtype("u1"), "8bit"),
            ("bf16", "bfloat16"),
            ("FP16", "float16"),
            ("fp32", "float32"),
        ]
    ],
    ({"state_dtype": "i4"}, TypeError, f"^state_dtype {A_DTYPE} 'i4'$"),
    ({"state_dtype": [("a", "f4")]}, TypeError, rf"^state_dtype {A_DTYPE} \[.*\]$"),
    ({"state_dtype": {"exp_avg": "no"}}, TypeError, rf"^state_dtype\['exp_avg'\] {A_DTYPE} 'no'$"),
    ({"state_dtype": "\ud800"}, TypeError, f"^state_dtype {A_DTYPE} "),  # no text
    ({"state_dtype": "f4,,"}, TypeError, f"^state_dtype {A_DTYPE} 'f4,,'"),
    ({"state_dtype": "a" * 9999}, TypeError, f"^state_dtype {A_DTYPE} a str$"),
    (
        {"state_dtype": {"exp_avg": {"a": "f4"}}},
        TypeError,
        rf"^state_dtype\['exp_avg'\] {A_DTYPE} {{'a': 'f4'}}$",
    ),
    (
        {"state_dtype": {1: "f2"}},
        TypeError,
        "^a key of state_dtype must be the name of a state, got 1",
    ),
    (
        {"state_dtype": {"momentum_buffer": "8bit"}},
        ValueError,
        "^a state in state_dtype must be one of exp_avg, exp_avg_sq, got 'momentum_buffer'$",
    ),
    ({"state_dtype": {"max_exp_avg_sq": None}}, ValueError, "of exp_avg, exp_avg_sq, got 'max_"),
    ({"rounding": "up"}, ValueError, "^rounding must be one of stochastic, nearest, got 'up'"),
    ({"rounding": None}, ValueError, "^rounding must be one of stochastic, nearest, got None"),
    ({"param_rounding": True}, ValueError, "^param_rounding must be one of .*, got True"),
    ({"seed": True}, TypeError, f"{A_SEED} True"),
    ({"seed": 1.0}, TypeError, f"{A_SEED} 1.0"),
    ({"seed": None}, TypeError, f"{A_SEED} None"),
    ({"seed": -1}, ValueError, f"{A_SEED} -1"),
    ({"seed": 2**64}, ValueError, f"{A_SEED} {2**64}"),
    ({"min_8bit_size": -1}, ValueError, f"{A_SIZE} -1"),
    ({"min_8bit_size": 1.5}, TypeError, f"{A_SIZE} 1.5"),
    ({"min_8bit_size": False}, TypeError, f"{A_SIZE} False"),
    ({"master_bits": 16}, ValueError, "^master_bits must be None, 24 or 32, got 16"),
    ({"master_bits": 24.0}, ValueError, r"^master_bits must be None, 24 or 32, got 24\.0"),
    ({"master_bits": True}, ValueError, "^master_bits must be None, 24 or 32, got True"),
    (
        {"master_bits": 32, "param_rounding": "stochastic"},
        ValueError,
        "^param_rounding must be 'nearest' with master_bits=32, which rounds nothing, got 'stochastic'",
    ),
    (
        {"master_bits": 24},
        ValueError,
        "^master_bits must be None for an optimizer without a bfloat16 parameter, got 24 for "
        "parameters of float32$",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        instep.Adam(np.zeros(3, "f4"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ALL_OPTIMIZERS, ids=lambda rule: rule.__name__)
def test_every_rule_takes_them(rule: Any) -> None:
    more = {"rounding": "nearest", "param_rounding": "stochastic", "seed": 7, "min_8bit_size": 0}
    optimizer = rule(one_element(rule, np.float32), **more)
    assert optimizer.seed == 7
    for name, value in more.items():
        assert f"{name}={value!r}" in repr(optimizer)
    assert takes(rule, seed=7)


def test_a_least_size_beyond_all_parameters() -> None:
    w = np.zeros(5000, "f4")
    optimizer = instep.Adam(w, state_dtype="8bit", min_8bit_size=2**70)
    assert optimizer.state["0"]["exp_avg"].dtype == np.float32


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.uint64(2**64 - 1), np.int8(3)])
def test_seeds(seed: Any) -> None:
    optimizer = instep.SGD(np.zeros(1), seed=seed)
    assert (optimizer.seed, type(optimizer.seed)) == (int(seed), int)
    with pytest.raises(AttributeError):
        optimizer.seed = 1  # type: ignore[misc]


def test_what_differs_from_the_default_is_shown() -> None:
    w = np.zeros(3, "f4")
    assert "rounding" not in repr(instep.Adam(w))
    assert "seed" not in repr(instep.Adam(w))
    shown = repr(instep.Adam(w, state_dtype={"exp_avg": "bfloat16", "exp_avg_sq": None}))
    assert "state_dtype={'exp_avg': 'bfloat16', 'exp_avg_sq': None}" in shown
    groups = [{"params": w, "state_dtype": "f2"}, {"params": w.copy()}]
    optimizer = instep.Adam(groups, state_dtype=BFLOAT16)
    assert "state_dtype=['float16', 'bfloat16']" in repr(optimizer)
    assert "state_dtype='float16'" in repr(optimizer.param_groups[0])
    assert "state_dtype" not in repr(optimizer.param_groups[1])


# --- groups


def test_a_group_has_formats_of_its_own() -> None:
    """Also None, which is the arithmetic's type, and dicts: they replace the optimizer's."""
    w = [np.zeros(5, "f4") for _ in range(4)]
    groups: list[Any] = [
        {"params": {"a": w[0]}},
        {"params": {"b": w[1]}, "state_dtype": None},
        {"params": {"c": w[2]}, "state_dtype": {"exp_avg_sq": BFLOAT16}},
    ]
    optimizer = instep.Adam(groups, state_dtype={"exp_avg": BFLOAT16})
    optimizer.add_param_group({"params": {"d": w[3]}, "state_dtype": "f2"})
    found = {
        name: {key: array.dtype.name for key, array in states.items()}
        for name, states in optimizer.state.items()
    }
    assert found == {
        "a": {"exp_avg": "bfloat16", "exp_avg_sq": "float32"},
        "b": {"exp_avg": "float32", "exp_avg_sq": "float32"},
        "c": {"exp_avg": "float32", "exp_avg_sq": "bfloat16"},
        "d": {"exp_avg": "float16", "exp_avg_sq": "float16"},
    }
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert bits(again) == bits(optimizer)
        assert repr(again) == repr(optimizer)


def test_a_groups_format_is_fixed() -> None:
    w = np.zeros(2, "f4")
    optimizer = instep.Adam([{"params": w, "state_dtype": "f2"}, {"params": w.copy()}])
    first, second = optimizer.param_groups
    assert first["state_dtype"] == np.float16
    assert "state_dtype" not in second
    assert dict(first)["state_dtype"] == copy.copy(first)["state_dtype"] == np.float16
    for group in (first, second):
        with pytest.raises(
            TypeError, match=r"^state_dtype can't be changed, got 'f4', since .* a new"
        ):
            group["state_dtype"] = "f4"
    with pytest.raises(TypeError, match=r"got 'seed'; give seed to the optimizer, for all groups"):
        first["seed"] = 1
    again = instep.Adam([dict(group) for group in optimizer.param_groups])
    assert again.state["0"]["exp_avg"].dtype == np.float16


OF_GROUPS: dict[str, tuple[Any, type[Exception], str]] = {
    "no dtype": ("no", TypeError, f"^state_dtype of group 1 {A_DTYPE} 'no'$"),
    "no state": (
        {"m": None},
        ValueError,
        "^a state in state_dtype of a group must be one of exp_avg",
    ),
    "a state of other options": (
        {"max_exp_avg_sq": "f2"},
        ValueError,
        "must be one of exp_avg, exp_avg_sq, got 'max_exp_avg_sq'",
    ),
}


@pytest.mark.parametrize(("value", "error", "message"), OF_GROUPS.values(), ids=OF_GROUPS)
def test_what_is_refused_of_a_group(value: Any, error: type[Exception], message: str) -> None:
    first, second = {"params": np.zeros(2, "f4"), "amsgrad": True}, {"params": np.zeros(2, "f4")}
    wrong = {**second, "state_dtype": value}
    with pytest.raises(error, match=message):
        instep.Adam([first, wrong])
    optimizer = instep.Adam([first])
    before = bits(optimizer)
    with pytest.raises(error, match=message):
        optimizer.add_param_group(wrong)
    assert bits(optimizer) == before


def test_a_name_that_one_of_the_rules_in_use_has() -> None:
    """The optimizer's dict is for all groups: some of them need not have the state, also later ones."""
    groups = [{"params": np.zeros(2, "f4"), "amsgrad": True}, {"params": np.zeros(2, "f4")}]
    optimizer = instep.Adam(groups, state_dtype={"max_exp_avg_sq": "f2"})
    optimizer.add_param_group({"params": np.zeros(2, "f4")})
    assert [len(states) for states in optimizer.state.values()] == [3, 2, 2]


def test_the_callers_dict_may_change() -> None:
    formats: dict[str, Any] = {"exp_avg": "f2"}
    optimizer = instep.Adam(np.zeros(2, "f4"), state_dtype=formats)
    formats["exp_avg"] = formats["no"] = "no"
    optimizer.add_param_group({"params": np.zeros(2, "f4")})
    assert optimizer.state["1"]["exp_avg"].dtype == np.float16


# --- what the core refuses


@pytest.mark.parametrize(
    ("rule", "state_dtype", "dtype"),
    [
        ("Adam", "8bit", "f8"),
        ("Adam", {"exp_avg": "8bit"}, "f8"),
        ("ASGD", {"ax": BFLOAT16}, "f4"),
        ("FTRL", {"linear": "8bit"}, "f4"),
        ("Prodigy", {"exp_avg": np.float16}, "f4"),
        ("Prodigy", {"p0": BFLOAT16}, "f4"),
        ("Rprop", np.float16, "f4"),
    ],
)
def test_a_format_that_can_not_hold_a_state(rule: str, state_dtype: Any, dtype: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^state_dtype must .*'w'") as caught:
        getattr(instep, rule)(
            {"w": np.zeros(5000, dtype)}, state_dtype=state_dtype, min_8bit_size=0
        )
    assert "\n" not in str(caught.value)


def test_a_float64_parameter_beside_others_is_named() -> None:
    params = {"w": np.zeros(5000, "f4"), "v": np.zeros(5000)}
    with pytest.raises((TypeError, ValueError), match=r"^state_dtype must .*'v'"):
        instep.Adam(params, state_dtype="8bit")
    groups = [{"params": {"w": params["w"]}}, {"params": {"v": params["v"]}, "state_dtype": None}]
    assert instep.Adam(groups, state_dtype="8bit").state["v"]["exp_avg"].dtype == np.float64
