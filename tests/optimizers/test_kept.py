"""What optimizers keep in 8 and 16 bits: arrays, bytes, remainders; copies and loads go on to the bit."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, numbers
from reference import assert_same_bits
from resumed import WAYS, resumed
from snapshots import bits

import instep
from instep.storage import bytes_per_parameter

F = np.float32
SIZES = {"large": 5000, "small": 100, "none": 0}


def params(dtype: Any = F) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {name: numbers(rng, size, dtype) for name, size in SIZES.items()}
    return {**found, "one": numbers(rng, (), dtype), "matrix": numbers(rng, (3, 2000), dtype)}


def grads(k: int) -> dict[str, Any]:
    rng = np.random.default_rng(10 + k)
    return {name: numbers(rng, p.shape, F) for name, p in params().items()}


FORMATS: dict[str, dict[str, Any]] = {
    "8bit": {"state_dtype": "8bit", "seed": 3},
    "8bit, all": {"state_dtype": "8bit", "min_8bit_size": 0, "seed": 2**64 - 1},
    "8bit, nearest": {"state_dtype": "8bit", "rounding": "nearest"},
    "mixed": {"state_dtype": {"exp_avg": "8bit", "exp_avg_sq": BFLOAT16}},
    "float16": {"state_dtype": "f2", "seed": 1},
    "bfloat16": {"state_dtype": BFLOAT16, "param_rounding": "stochastic", "seed": 5},
    "24": {"master_bits": 24, "state_dtype": "8bit"},
    "24 at random": {"master_bits": 24, "param_rounding": "stochastic", "seed": 9},
    "32": {"master_bits": 32, "ema_decay": 0.5},
}
every_format = pytest.mark.parametrize("more", FORMATS.values(), ids=FORMATS)


def made(more: dict[str, Any], rule: Any = instep.Adam) -> Any:
    dtype = BFLOAT16 if {"master_bits", "param_rounding"} & more.keys() else F
    return rule(params(dtype), lr=0.01, **more)


# --- the arrays


def test_arrays_of_eight_bits() -> None:
    optimizer = made({"state_dtype": "8bit"}, instep.AdamW)
    assert list(optimizer.state["large"]) == [
        *("exp_avg", "exp_avg_unit"),
        *("exp_avg_sq", "exp_avg_sq_unit"),
    ]
    for name, p in optimizer.params.items():
        states = optimizer.state[name]
        if p.size < 4096:
            assert {a.dtype for a in states.values()} == {np.dtype(F)}, name
            assert len(states) == 2
            continue
        for key, dtype in (("exp_avg", np.int8), ("exp_avg_sq", np.uint8)):
            codes, units = states[key], states[f"{key}_unit"]
            assert (codes.dtype, codes.shape, codes.flags.c_contiguous) == (dtype, p.shape, True)
            assert (units.dtype, units.shape) == (F, (-(-p.size // 64),))


def test_all_parameters_in_eight_bits() -> None:
    optimizer = made({"state_dtype": "8bit", "min_8bit_size": 0})
    shapes = {name: states["exp_avg_unit"].shape for name, states in optimizer.state.items()}
    assert shapes == {"large": (79,), "small": (2,), "none": (0,), "one": (1,), "matrix": (94,)}
    assert optimizer.state["one"]["exp_avg"].shape == ()


@pytest.mark.parametrize(("bits_", "dtype"), [(24, np.int8), (32, np.int16)])
def test_remainders(bits_: int, dtype: Any) -> None:
    mixed = {**params(BFLOAT16), "wide": np.ones(5, F)}
    optimizer = instep.SGD(mixed, master_bits=bits_, momentum=0.9)
    for name, p in optimizer.params.items():
        states = optimizer.state[name]
        if p.dtype != BFLOAT16:
            assert "remainder" not in states
            continue
        assert list(states)[-1] == "remainder"
        assert (states["remainder"].dtype, states["remainder"].shape) == (dtype, p.shape)
        assert not states["remainder"].any()


def test_a_master_of_32_bits_trains_as_float32_does() -> None:
    w = np.linspace(-1, 1, 300, dtype=F).astype(BFLOAT16)
    wide = w.astype(F)
    narrow = instep.AdamW({"w": w}, lr=0.001, master_bits=32)
    twin = instep.AdamW({"w": wide}, lr=0.001)
    for k in range(5):
        g = np.random.default_rng(k).standard_normal(300).astype(F)
        narrow.step({"w": g})
        twin.step({"w": g})
    joined = (w.view(np.uint16).astype(np.int32) << 16) + narrow.state["w"]["remainder"]
    assert_same_bits(joined.view(F), wide, "the master")


def test_remainders_are_reset() -> None:
    optimizer = made({"master_bits": 32})
    optimizer.step(grads(0))
    assert optimizer.state["large"]["remainder"].any()
    optimizer.reset_remainders()
    assert not any(states["remainder"].any() for states in optimizer.state.values())
    both = instep.Combined(optimizer, instep.SGD({"v": np.ones(2)}))
    optimizer.step(grads(1))
    both.reset_remainders()
    assert not optimizer.state["large"]["remainder"].any()
    instep.SGD(np.zeros(2)).reset_remainders()  # there are none


def test_remainders_are_not_reset_where_averages_are_shown() -> None:
    optimizer = made({"master_bits": 32, "ema_decay": 0.5})
    optimizer.step(grads(0))
    before = bits(optimizer)
    with (
        optimizer.averaged(),
        pytest.raises(
            RuntimeError, match=r"^reset_remainders must come after the block of averaged"
        ),
    ):
        optimizer.reset_remainders()
    assert bits(optimizer) == before


# --- bytes


def test_bytes() -> None:
    large = np.zeros(64_000, BFLOAT16)
    optimizer = instep.Adam(
        {"w": large, "v": np.zeros(100, F)},
        **{"state_dtype": "8bit", "master_bits": 24, "ema_decay": 0.5},
        copy_to={"w": None, "v": np.zeros(100, BFLOAT16)},
    )
    expected = {
        "parameters": 128_000 + 400,
        "states": 2 * (64_000 + 4_000) + 2 * 400,
        "remainders": 64_000,
        "averages": 4 * 64_100,
        "copies": 200,
        "accumulated": 0,
    }
    kept = sum(expected.values())
    assert optimizer.memory() == {**expected, "total": kept}
    assert bytes_per_parameter(optimizer) == kept / 64_100
    optimizer.accumulate({"w": large.copy(), "v": None})
    assert optimizer.memory()["accumulated"] == 4 * 64_000
    assert optimizer.memory()["total"] == kept + 4 * 64_000
    assert bytes_per_parameter(optimizer) == kept / 64_100
    other = instep.SGD({"u": np.zeros(3)})
    both = instep.Combined(optimizer, other)
    assert both.memory()["parameters"] == 128_400 + 24
    assert bytes_per_parameter(both) == (kept + 24) / 64_103
    with pytest.raises(AttributeError, match=r"no attribute 'seed'; .*optimizers\[0\]\.seed"):
        _ = both.seed  # type: ignore[attr-defined]


def test_bytes_of_states_that_parameters_share_and_of_no_elements() -> None:
    optimizer = instep.Prodigy([np.zeros(10, F), np.zeros(10, F)])
    assert optimizer.memory()["states"] < 2 * 10 * 4 * 4 + 2 * 5 * 8
    assert bytes_per_parameter(instep.SGD(np.zeros((0, 3)))) == 0.0
    with pytest.raises(TypeError, match="optimizer must be an Optimizer of instep, got an ndarray"):
        bytes_per_parameter(np.zeros(3))  # type: ignore[arg-type]


def test_bytes_of_states_in_files(tmp_path: Path) -> None:
    more = {"state_dtype": "8bit", "master_bits": 24}
    plain, stored = made(more), made({**more, "state_storage": tmp_path / "states"})
    assert stored.memory() == plain.memory()


# --- going on


@every_format
@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_to_the_bit(way: str, more: dict[str, Any], tmp_path: Path) -> None:
    whole, first, fresh = made(more), made(more), made({**more, "seed": 77})
    for k in range(3):
        whole.step(grads(k))
    first.step(grads(0))
    for name, p in first.params.items():  # a checkpoint brings its own
        fresh.params[name][...] = p
    second = resumed(way, first, fresh, tmp_path)
    assert second.seed == more.get("seed", 0)
    for k in (1, 2):
        second.step(grads(k))
    assert bits(second) == bits(whole)


def test_other_seeds_round_otherwise() -> None:
    found = set()
    for seed in (0, 1, 0):
        optimizer = made({"state_dtype": "8bit", "seed": seed})
        optimizer.step(grads(0))
        found.add(optimizer.state["large"]["exp_avg"].tobytes())
    assert len(found) == 2
    nearest = []
    for seed in (0, 1):
        optimizer = made({"state_dtype": "8bit", "seed": seed, "rounding": "nearest"})
        optimizer.step(grads(0))
        nearest.append(optimizer.state["large"]["exp_avg"].tobytes())
    assert nearest[0] == nearest[1]


def test_a_copy_has_the_seed_that_was_loaded() -> None:
    optimizer = made({"state_dtype": "8bit", "seed": 4})
    optimizer.load_state_dict(made({"state_dtype": "8bit", "seed": 9}).state_dict())
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (again.seed, "seed=9" in repr(again)) == (9, True)
        again.step(grads(0))
    optimizer.step(grads(0))
    assert bits(again) == bits(optimizer)


def test_each_of_a_combined_has_its_own(tmp_path: Path) -> None:
    def both(seed: int) -> instep.Combined:
        a = instep.Adam({"a": params()["large"]}, state_dtype="8bit", seed=seed)
        b = instep.SGD(
            {"b": params(BFLOAT16)["small"]}, momentum=0.9, master_bits=24, seed=seed + 1
        )
        return instep.Combined(a, b)

    def step(combined: instep.Combined, k: int) -> None:
        combined.step({"a": grads(k)["large"], "b": grads(k)["small"]})

    def all_bits(combined: instep.Combined) -> Any:
        return [bits(optimizer) for optimizer in combined.optimizers], combined.step_count

    for way in WAYS:
        first, second = both(5), both(50)
        step(first, 0)
        for name, p in first.params.items():
            second.params[name][...] = p
        again = resumed(way, first, second, tmp_path)
        assert [o.seed for o in again.optimizers] == [5, 6]
        step(first, 1)
        step(again, 1)
        assert all_bits(again) == all_bits(first), way


def test_a_state_without_a_seed_or_remainders_leaves_them(tmp_path: Path) -> None:
    """Of a run without them: the seed stays the optimizer's own, remainders become 0."""
    plain = instep.Momentum(params(BFLOAT16), lr=0.01)
    plain.step(grads(0))
    state = plain.state_dict()
    fresh = made({"master_bits": 32, "seed": 8}, instep.Momentum)
    fresh.step(grads(1))
    assert fresh.state["large"]["remainder"].any()
    fresh.load_state_dict({k: v for k, v in state.items() if k != "seed"} | {"schema": 1})
    assert fresh.seed == 8
    assert not any(states["remainder"].any() for states in fresh.state.values())
    assert_same_bits(
        fresh.state["large"]["momentum_buffer"], plain.state["large"]["momentum_buffer"], "m"
    )
    fresh.step(grads(1))
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    instep.checkpoint.save(tmp_path / "run", plain)
    instep.checkpoint.load(tmp_path / "run", fresh)
    assert fresh.seed == 0
    assert not fresh.state["large"]["remainder"].any()


# --- another format

OTHERS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"state_dtype": "f2"},
    "bfloat16": {"state_dtype": BFLOAT16},
    "8bit": {"state_dtype": "8bit"},
}


@pytest.mark.parametrize(("mine", "theirs"), list(itertools.permutations(OTHERS, 2)))
def test_a_state_in_another_format_is_refused_by_name(mine: str, theirs: str) -> None:
    optimizer, other = made(OTHERS[mine]), made(OTHERS[theirs])
    other.step(grads(0))
    before = bits(optimizer)
    names = [
        n for n, p in optimizer.params.items() if "8bit" not in (mine, theirs) or p.size > 4095
    ]
    how = None if theirs == "float32" else theirs
    size = " and the same min_8bit_size" if "8bit" in (mine, theirs) else ""
    message = (
        f"state 'exp_avg' of {names[0]!r} must be stored as {mine}, got {theirs}; make the optimizer "
        f"with state_dtype={how!r} for it{size}, or convert the state_dict() of such an optimizer by "
        "instep.storage.convert(state_dict, optimizer)"
    )
    with pytest.raises(ValueError, match="must be stored as") as caught:
        optimizer.load_state_dict(other.state_dict())
    assert str(caught.value) == message
    assert bits(optimizer) == before


@pytest.mark.parametrize("wide", [True, False])
def test_a_state_of_the_other_arithmetic_is_refused_by_name(wide: bool) -> None:
    """The error doesn't advise a format that the parameter can't have."""
    dtypes = ("f8", "f4") if wide else ("f4", "f8")
    mine, theirs = (
        instep.Adam(np.ones(5000, dtype), state_dtype="8bit" if dtype == "f4" else None)
        for dtype in dtypes
    )
    formats = "float64, got 8bit" if wide else "8bit, got float64"
    with pytest.raises(ValueError, match="must be stored as") as caught:
        mine.load_state_dict(theirs.state_dict())
    assert str(caught.value) == (
        f"state 'exp_avg' of '0' must be stored as {formats}; convert the state_dict() of "
        "such an optimizer by instep.storage.convert(state_dict, optimizer)"
    )
    mine.load_state_dict(instep.storage.convert(theirs.state_dict(), mine))


def test_remainders_that_do_not_fit() -> None:
    of_8, of_16, none = made({"master_bits": 24}), made({"master_bits": 32}), made({"seed": 1})
    bare = instep.Adam(params(BFLOAT16))
    for optimizer, other, message in (
        (
            of_8,
            of_16,
            "'remainder' of 'large' must be int8, of 24 bits with the parameter, got int16; ",
        ),
        (of_16, of_8, "got int8; make the optimizer with master_bits=24, or convert the "),
        (
            bare,
            of_8,
            "of 'large' must be of a parameter without a remainder, got one with it; .*=24, or",
        ),
        (
            none,
            of_16,
            "of 'large' must be of a parameter without a remainder, .*master_bits=32, or",
        ),
    ):
        before = bits(optimizer)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(other.state_dict())
        assert bits(optimizer) == before


def test_units_of_another_shape() -> None:
    optimizer = made({"state_dtype": "8bit"})
    state = optimizer.state_dict()
    state["state"]["large"]["exp_avg_unit"] = np.zeros(78, F)
    with pytest.raises(ValueError, match=r"'exp_avg_unit' of 'large' must have shape \(79,\)"):
        optimizer.load_state_dict(state)
    del state["state"]["large"]["exp_avg_unit"]
    with pytest.raises(ValueError, match=r"^state\['large'\] must .* missing: 'exp_avg_unit'"):
        optimizer.load_state_dict(state)


# --- the first version of states


@pytest.mark.parametrize("dtype", ["f8", "f4", BFLOAT16])
def test_float16_moments_of_the_first_version_become_roots(dtype: Any, tmp_path: Path) -> None:
    optimizer = instep.Adam({"w": np.ones(2000, dtype)}, amsgrad=True, state_dtype="f2")
    state = optimizer.state_dict()
    values = np.random.default_rng(0).uniform(0, 1, 2000).astype(np.float16)
    values[:4] = 0.0, 6e-8, 65504.0, np.inf
    for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        state["state"]["w"][key] = values.copy()
    del state["seed"]
    optimizer.load_state_dict({**state, "schema": 1})
    T = np.float64 if dtype == "f8" else F
    roots = np.sqrt(values.astype(T)).astype(np.float16)
    for key, wanted in (("exp_avg", values), ("exp_avg_sq", roots), ("max_exp_avg_sq", roots)):
        assert_same_bits(optimizer.state["w"][key], wanted, key)
    again = instep.Adam({"w": np.ones(2000, dtype)}, amsgrad=True, state_dtype="f2")
    again.load_state_dict(optimizer.state_dict())
    assert_same_bits(again.state["w"]["exp_avg_sq"], roots, "not once more")
