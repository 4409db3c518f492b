"""Numbers of every kind through the core's formats: codes, 16 bits at random, remainders, at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, LEVELS, rng_for, use_level
from codes import encode, uniform
from random_numbers import Draws
from reference import Reference, assert_follows, assert_same_bits
from rounding import split, stochastic, store

import instep

STRIDE = 4093  # of all 2**32 float32 numbers


def floats(stride: int = STRIDE) -> np.ndarray:
    return np.arange(0, 2**32, stride, dtype=np.uint32).view(np.float32)


@np.errstate(invalid="ignore")  # signalling NaNs
def without_minus_zero(x: np.ndarray) -> np.ndarray:
    """What steps from 0 can reach: 0 - 0 is 0."""
    return x + np.float32(0)


def blocks() -> np.ndarray:
    """Blocks of similar numbers, of numbers of any size, with many zeros, of subnormals; a short one last."""
    rng = rng_for("blocks")
    x = rng.standard_normal((3000, 64)) * np.ldexp(1.0, rng.integers(-60, 60, (3000, 1)))
    x[1000:2000] *= np.ldexp(1.0, rng.integers(-40, 1, (1000, 64)))
    x[2000:2200][rng.random((200, 64)) < 0.5] = 0
    x[2200:2300] *= 1e-40
    return np.concatenate([x.astype("f4").ravel(), floats(2**32 // 4099)])


def in_one_step(w: np.ndarray, x: np.ndarray, **more: Any) -> Any:
    """An optimizer after a step from 0 by x: with zeros for w, the parameter is x."""
    optimizer = instep.SGD({"w": w}, lr=1.0, **more)
    optimizer.step({"w": -x})
    return optimizer


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("master_bits", "param_rounding"), [(32, "nearest"), (24, "nearest"), (24, "stochastic")]
)
def test_remainders(master_bits: int, param_rounding: str, level: str) -> None:
    """Numbers are split as the reference splits them, and joined: a step by 0 leaves all bits."""
    use_level(level)
    x = without_minus_zero(floats())
    w = np.zeros(x.size, BFLOAT16)
    more = {"master_bits": master_bits, "param_rounding": param_rounding, "seed": 11}
    optimizer = in_one_step(w, x, **more)
    words = Draws(11, 0, 1).words(x.size) if param_rounding == "stochastic" else None
    p, remainder = split(x, master_bits, words)
    for _ in range(2):
        assert_same_bits(w, p)
        assert_same_bits(optimizer.state["w"]["remainder"], remainder)
        optimizer.step({"w": np.zeros(x.size, "f4")})


def test_all_numbers_of_24_bits() -> None:
    x = (np.arange(2**24, dtype=np.uint32) << np.uint32(8)).view(np.float32)
    x = without_minus_zero(x)
    w = np.zeros(x.size, BFLOAT16)
    optimizer = in_one_step(w, x, master_bits=24)
    p, remainder = split(x, 24)
    assert_same_bits(w, p)
    assert_same_bits(optimizer.state["w"]["remainder"], remainder)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("state_of", ["f4", "f8"])
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype("f2")], ids=str)
def test_16_bits(dtype: np.dtype, state_of: str, level: str) -> None:
    """A state: the momentum buffer of a first step is the gradient; and a parameter."""
    use_level(level)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        x = floats().astype(state_of)
    if state_of == "f8":
        x = x * (1 + 2.0**-40)  # which goes through float32
    optimizer = instep.Momentum({"w": np.zeros(x.size, state_of)}, state_dtype=dtype, seed=12)
    optimizer.step({"w": x})
    with np.errstate(all="ignore"):
        single = x.astype("f4")
    wanted = stochastic(single, dtype, Draws(12, 0, 1).halves(0, x.size))
    assert_same_bits(optimizer.state["w"]["momentum_buffer"], wanted)
    if state_of == "f4":
        w = np.zeros(x.size, dtype)
        in_one_step(w, x, param_rounding="stochastic", seed=13)
        words = Draws(13, 0, 1).words(x.size) >> np.uint32(16)
        assert_same_bits(w, stochastic(without_minus_zero(x), dtype, words))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_roots_in_float16(rounding: str, level: str) -> None:
    """The mean square is the square of the gradient, rounded in float32; its root is kept."""
    use_level(level)
    x = floats()
    optimizer = instep.RMSprop(
        {"w": np.zeros(x.size, "f4")}, alpha=0.0, state_dtype="f2", rounding=rounding
    )
    optimizer.step({"w": x})
    with np.errstate(all="ignore"):
        root = np.sqrt(x * x)
    r = Draws(0, 0, 1).halves(0, x.size)
    wanted = stochastic(root, np.dtype("f2"), r) if rounding == "stochastic" else store(root, "f2")
    assert_same_bits(optimizer.state["w"]["square_avg"], wanted)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_codes(rounding: str, level: str) -> None:
    """Adamax with these numbers keeps the gradient and its magnitude."""
    use_level(level)
    x = blocks()
    optimizer = instep.Adamax(
        {"other": np.zeros(3, "f4"), "w": np.zeros(x.size, "f4")},
        betas=(0.0, 0.0),
        eps=0.0,
        state_dtype="8bit",
        rounding=rounding,
        seed=14,
    )
    optimizer.step({"other": None, "w": x})
    for number, name in enumerate(("exp_avg", "exp_inf")):
        u = uniform(Draws(14, 1, 1).bytes(number, x.size))
        values = without_minus_zero(np.abs(x) if number else x)
        given = (u,) if rounding == "stochastic" else ()
        codes, units = encode(values, number == 0, *given)
        assert_same_bits(optimizer.state["w"][name], codes, name)
        assert_same_bits(optimizer.state["w"][f"{name}_unit"], units, f"unit of {name}")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_codes_that_a_caller_has_written(rounding: str, level: str) -> None:
    """Any bits: units that are negative, infinite or NaN, codes of -128; remainders that no step leaves."""
    use_level(level)
    rng = rng_for("written", rounding)
    w = {str(n): np.ones(n, BFLOAT16) for n in (70, 64 * 64)}
    more: dict[str, Any] = {"state_dtype": "8bit", "min_8bit_size": 1, "rounding": rounding}
    optimizer = instep.Adam({n: p.copy() for n, p in w.items()}, master_bits=24, **more)
    reference = Reference("Adam", w, master_bits=24, **more)
    for _ in range(3):
        for name, arrays in reference.state.items():
            for key, array in arrays.items():
                array.view(np.uint8)[...] = rng.integers(0, 256, array.nbytes, np.uint8)
                if key.endswith("_unit"):
                    array[::3] = rng.choice([-0.25, np.inf, np.nan, 0.0, -0.0], array[::3].size)
                optimizer.state[name][key][...] = array
        grads = {n: rng.standard_normal(p.size).astype("f4") for n, p in w.items()}
        optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, optimizer.params, reference)


def test_the_memory_that_a_host_brings() -> None:
    """`Steps` over codes, units and remainders of the host; the place is the number of the parameter."""
    rng = rng_for("host")
    w, other = np.ones(200, BFLOAT16), np.ones(200, BFLOAT16)
    arrays = {
        "exp_avg": np.zeros(200, np.int8),
        "exp_avg_unit": np.zeros(4, "f4"),
        "exp_avg_sq": np.zeros(200, np.uint8),
        "exp_avg_sq_unit": np.zeros(4, "f4"),
        "remainder": np.zeros(200, np.int8),
    }
    steps = instep.Steps(param_rounding="stochastic", seed=15)
    adam = steps.add_group("adam")
    steps.append(2)
    steps.bind(1, w, group=adam, states=arrays)
    optimizer = instep.Adam(
        {"first": np.ones(0, BFLOAT16), "w": other},
        lr=0.1,
        master_bits=24,
        param_rounding="stochastic",
        seed=15,
        state_dtype="8bit",
        min_8bit_size=1,
    )
    for _ in range(3):
        g = rng.standard_normal(200).astype("f4")
        steps.step([None, g], [{"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}])
        optimizer.step({"first": None, "w": g})
        assert_same_bits(w, other)
        for name, array in arrays.items():
            assert_same_bits(array, optimizer.state["w"][name], name)
