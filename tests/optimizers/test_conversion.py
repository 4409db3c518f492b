"""`instep.storage.convert`: a state in the formats of another optimizer, rounded once, to nearest."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, numbers
from reference import assert_same_bits, store

import instep
from instep.storage import convert, decode, encode

F = np.float32
FORMATS: dict[str, Any] = {
    "float32": None,
    "float16": np.float16,
    "bfloat16": BFLOAT16,
    "8bit": "8bit",
    "mixed": {"exp_avg": BFLOAT16, "exp_avg_sq": "8bit"},
}


def made(state_dtype: Any = None, dtype: Any = F, **more: Any) -> Any:
    params = {"w": np.linspace(-1, 1, 5000).astype(dtype), "b": np.ones((2, 3), dtype)}
    return instep.Adam(params, lr=0.01, amsgrad=True, state_dtype=state_dtype, **more)


def stepped(optimizer: Any, count: int = 2) -> Any:
    rng = np.random.default_rng(4)
    for _ in range(count):
        optimizer.step({name: numbers(rng, p.shape, F) for name, p in optimizer.params.items()})
    return optimizer


def value(states: Any, key: str) -> np.ndarray:
    """A state's numbers, whatever it is stored in."""
    array = states[key]
    if f"{key}_unit" in states:
        return decode(array, states[f"{key}_unit"])
    wide = array.astype(np.float64 if array.dtype == np.float64 else F)
    return wide * wide if array.dtype == np.float16 and key != "exp_avg" else wide


@pytest.mark.parametrize(("one", "other"), list(itertools.product(FORMATS, FORMATS)))
def test_from_each_format_to_each(one: str, other: str) -> None:
    source, target = stepped(made(FORMATS[one], seed=6)), made(FORMATS[other], seed=7)
    state = source.state_dict()
    found = convert(state, target)
    target.load_state_dict(found)
    assert (target.seed, target.step_count) == (6, 2)
    for name, states in target.state.items():
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            exact, array = value(source.state[name], key), states[key]
            if f"{key}_unit" in states:
                codes, units = encode(exact, signed=key == "exp_avg")
                if f"{key}_unit" not in source.state[name]:
                    assert_same_bits(states[f"{key}_unit"], units, key)
                    assert_same_bits(array, codes, key)
            elif array.dtype == np.float16 and key != "exp_avg":
                assert_same_bits(array, np.sqrt(exact).astype(np.float16), key)
            else:
                assert_same_bits(array, store(exact, array.dtype), key)
            if one == other:
                assert_same_bits(array, source.state[name][key], key)
    stepped(target, 1)


@pytest.mark.parametrize("state_dtype", [F, np.float16, BFLOAT16])
def test_float64_is_rounded_once(state_dtype: Any) -> None:
    source, target = made(None, np.float64), made(state_dtype, np.float64)
    rng = np.random.default_rng(5)
    # Just off the middle between two numbers of the format, which a float32 in between would hide.
    digits = {F: 24, np.float16: 11, BFLOAT16: 8}[state_dtype]
    middles = 1.0 + 2.0**-digits + rng.integers(-3, 4, 5000) * 2.0**-50
    source.state["w"]["exp_avg"][...] = middles * 2.0 ** rng.integers(-9, 9, 5000)
    source.state["w"]["exp_avg_sq"][...] = source.state["w"]["exp_avg"] ** 2
    target.load_state_dict(convert(source.state_dict(), target))
    exact = source.state["w"]
    assert_same_bits(target.state["w"]["exp_avg"], store(exact["exp_avg"], state_dtype), "m")
    second = np.sqrt(exact["exp_avg_sq"]) if state_dtype == np.float16 else exact["exp_avg_sq"]
    assert_same_bits(target.state["w"]["exp_avg_sq"], store(second, state_dtype), "v")


def test_remainders() -> None:
    def of(bits: int | None) -> Any:
        return made(None, BFLOAT16, master_bits=bits)

    source = stepped(of(32))
    found = convert(source.state_dict(), of(24))
    exact = source.state["w"]["remainder"]
    short = found["state"]["w"]["remainder"]
    assert short.dtype == np.int8
    assert (np.abs(short * 256.0 - exact) <= np.where(exact > 127 * 256, 255, 128)).all()
    assert convert(found, of(24))["state"]["w"]["remainder"] is short
    longer = convert(found, of(32))["state"]["w"]["remainder"]
    assert_same_bits(longer, short.astype(np.int16) * np.int16(256), "16 bits")
    assert "remainder" not in convert(found, of(None))["state"]["w"]
    for bits in (24, 32, None):
        target = of(bits)
        for state in (source.state_dict(), found, of(None).state_dict()):
            target.load_state_dict(convert(state, target))


def test_the_ends_of_remainders() -> None:
    target, source = made(None, BFLOAT16, master_bits=24), made(None, BFLOAT16, master_bits=32)
    source.state["b"]["remainder"][...] = [[-32768, 32767, -128], [128, 384, -32641]]
    found = convert(source.state_dict(), target)["state"]["b"]["remainder"]
    assert found.tolist() == [[-128, 127, 0], [0, 2, -128]]


def test_the_first_version() -> None:
    source = stepped(made(np.float16))
    state = source.state_dict()
    del state["seed"]
    for states in state["state"].values():
        for key in ("exp_avg_sq", "max_exp_avg_sq"):
            states[key] = np.square(states[key].astype(F)).astype(np.float16)
    target = made(None, seed=4)
    target.load_state_dict(convert({**state, "schema": 1}, target))
    assert target.seed == 4
    roots = np.sqrt(state["state"]["w"]["exp_avg_sq"].astype(F)).astype(np.float16).astype(F)
    assert_same_bits(target.state["w"]["exp_avg_sq"], roots * roots, "v")


def test_several_optimizers() -> None:
    def both(state_dtype: Any) -> instep.Combined:
        first = instep.Adam({"a": np.ones(5000, F)}, state_dtype=state_dtype)
        return instep.Combined(first, instep.Lion({"b": np.ones(5000, F)}, state_dtype=state_dtype))

    source, target = both(None), both("8bit")
    source.step({"a": np.ones(5000), "b": np.ones(5000)})
    target.load_state_dict(convert(source.state_dict(), target))
    assert target.step_count == 1
    assert target.state["b"]["exp_avg"].dtype == np.int8
    state = source.state_dict()
    state["optimizers"][1]["state"]["b"]["exp_avg"] = None
    with pytest.raises(
        TypeError, match=r"^optimizers\[1\]: state 'exp_avg' of 'b' must be a NumPy"
    ):
        convert(state, target)


def test_scalar_states_stay() -> None:
    source, target = instep.NAdam(np.ones(3, F)), instep.NAdam(np.ones(3, F), state_dtype=BFLOAT16)
    source.step(np.ones(3, F))
    target.load_state_dict(convert(source.state_dict(), target))
    assert target.state["0"]["mu_product"] == source.state["0"]["mu_product"] != 0


def test_what_does_not_fit() -> None:
    target = made("8bit")
    state = stepped(made()).state_dict()
    for wrong, error, message in (
        (
            instep.SGD(np.ones(2)).state_dict(),
            ValueError,
            "rule of the state must be 'Adam', got 'SGD'",
        ),
        ({**state, "state": {"w": {}}}, ValueError, "missing: 'b'"),
        ({**state, "state": {**state["state"], "w": 3}}, TypeError, r"state\['w'\] must be a dict"),
        ({**state, "schema": 3}, ValueError, "schema of the state must be 1 to 2, got 3"),
    ):
        with pytest.raises(error, match=message):
            convert(wrong, target)
    state["state"]["w"]["exp_avg"] = state["state"]["w"]["exp_avg"][:7]
    with pytest.raises(ValueError, match=r"^state 'exp_avg' of 'w' must have shape \(5000,\), got"):
        convert(state, target)
    with pytest.raises(TypeError, match="optimizer must be an Optimizer of instep, got a dict"):
        convert(target, state)  # type: ignore[arg-type]


NO_NUMBERS: list[tuple[dict[Any, Any], str]] = [
    (
        {"exp_avg_unit": None},
        "'exp_avg' of 'w' must have .* codes with their units in 'exp_avg_unit'",
    ),
    (
        {"exp_avg": np.zeros(5000, np.uint8)},
        r"'exp_avg' of 'w' must have .* dtype int8, got .*uint8",
    ),
    (
        {"exp_avg_sq": np.zeros(5000, np.int8)},
        "'exp_avg_sq' of 'w' must have .* uint8, got .* int8",
    ),
    (
        {"exp_avg": np.zeros(5000, np.int16)},
        "'exp_avg' of 'w' must have .* dtype int8, got .*int16",
    ),
    ({"exp_avg_unit": np.zeros(3, F)}, r"'exp_avg_unit' of 'w' must have shape \(79,\) and dtype"),
    (
        {"exp_avg_unit": np.zeros(79)},
        "'exp_avg_unit' of 'w' must have shape .*float32, got .*float64",
    ),
    ({1: np.zeros(3)}, r"must be the name of a state, got 1"),
]


@pytest.mark.parametrize(("changed", "message"), NO_NUMBERS)
def test_codes_that_are_no_numbers(changed: dict[Any, Any], message: str) -> None:
    """Codes without units, of the other sign or beside other units would be other numbers."""
    state = stepped(made("8bit")).state_dict()
    wrong = {**state["state"]["w"], **changed}
    state["state"]["w"] = {key: array for key, array in wrong.items() if array is not None}
    for target in (made(), made(BFLOAT16)):
        with pytest.raises((TypeError, ValueError), match=f"^(state|a key of .*) {message}"):
            convert(state, target)


@pytest.mark.parametrize("state_dtype", [np.float16, "8bit"])
def test_numbers_beyond_the_range(state_dtype: Any) -> None:
    if state_dtype == "8bit":
        source, target = made(), made("8bit")
        source.state["w"]["exp_avg_sq"][3] = -1.0
        message = "^state 'exp_avg_sq' of 'w' must have numbers of at least 0, got negative ones"
    else:
        source, target = made(), made(np.float16)
        source.state["w"]["exp_avg"][3] = 1e6
        message = "^state 'exp_avg' of 'w' must have numbers in the range of float16, .* a wider"
    with pytest.raises(ValueError, match=message):
        convert(source.state_dict(), target)
    source.state["w"]["exp_avg"][3], source.state["w"]["exp_avg_sq"][3] = np.nan, np.inf
    convert(source.state_dict(), target)
