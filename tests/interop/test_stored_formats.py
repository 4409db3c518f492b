"""States in 8 bits, roots and remainders: given to torch in float32, taken from it to nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from reference import assert_same_bits

import instep
from instep import interop
from instep.storage import decode, encode

F = np.float32


def made(**more: Any) -> Any:
    dtype = BFLOAT16 if "master_bits" in more else F
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal(5000).astype(dtype), "b": np.ones(3, dtype)}
    optimizer = instep.Adam(params, lr=0.01, **more)
    for _ in range(2):
        optimizer.step({n: rng.standard_normal(p.shape).astype(F) for n, p in params.items()})
    return optimizer


def test_codes_go_to_torch_as_numbers() -> None:
    optimizer = made(state_dtype="8bit")
    state = interop.to_torch_state_dict(optimizer)["state"]
    assert list(state[0]) == ["exp_avg", "exp_avg_sq", "step"]
    for key in ("exp_avg", "exp_avg_sq"):
        mine = optimizer.state["w"]
        assert_same_bits(state[0][key], decode(mine[key], mine[f"{key}_unit"]), key)
        assert_same_bits(state[1][key], optimizer.state["b"][key], key)


def test_numbers_come_from_torch_as_codes() -> None:
    wide, target = made(), made(state_dtype="8bit", seed=4)
    interop.from_torch_state_dict(target, interop.to_torch_state_dict(wide))
    for key, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        codes, units = encode(wide.state["w"][key], signed=signed)
        assert_same_bits(target.state["w"][key], codes, key)
        assert_same_bits(target.state["w"][f"{key}_unit"], units, key)
        assert_same_bits(target.state["b"][key], wide.state["b"][key], key)
    assert (target.seed, target.step_count) == (4, 2)
    target.step({"w": np.ones(5000), "b": np.ones(3)})


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_roots(dtype: str) -> None:
    """In torch's form there is the moment itself, in float32, which holds each exactly."""
    params = {"w": np.ones(100, dtype)}
    optimizer = instep.Adam(params, state_dtype="f2")
    optimizer.step({"w": np.linspace(1e-6, 1, 100)})
    roots = optimizer.state["w"]["exp_avg_sq"].copy()
    state = interop.to_torch_state_dict(optimizer)
    found = state["state"][0]["exp_avg_sq"]
    assert_same_bits(found, roots.astype(F) * roots.astype(F), "squares")
    assert state["state"][0]["exp_avg"].dtype == np.float16
    interop.from_torch_state_dict(optimizer, state)
    assert_same_bits(optimizer.state["w"]["exp_avg_sq"], roots, "roots")


def test_remainders_stay_here() -> None:
    optimizer = made(master_bits=32)
    assert optimizer.state["w"]["remainder"].any()
    state = interop.to_torch_state_dict(optimizer)
    assert list(state["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    interop.from_torch_state_dict(optimizer, state)
    assert not optimizer.state["w"]["remainder"].any()


def test_before_the_first_step() -> None:
    fresh = instep.Adam({"w": np.ones(5000, F), "b": np.ones(3, F)}, state_dtype="8bit")
    target = made(state_dtype="8bit")
    interop.from_torch_state_dict(target, interop.to_torch_state_dict(fresh))
    for states in target.state.values():
        assert not any(array.any() for array in states.values())
    start = instep.Adagrad(np.ones(5000, F), initial_accumulator_value=0.3, state_dtype=BFLOAT16)
    interop.from_torch_state_dict(start, interop.to_torch_state_dict(start))
    assert not start.state["0"]["sum"].any()


@pytest.mark.parametrize(
    ("state_dtype", "value", "message"),
    [
        ("8bit", -1.0, "exp_avg_sq of 'w' must have numbers of at least 0, got negative ones"),
        ("f2", -1.0, "exp_avg_sq of 'w' must have numbers of at least 0, got negative ones"),
        (
            "8bit",
            1e300,
            "exp_avg_sq of 'w' must have numbers in the range of float32, .* beyond it",
        ),
    ],
)
def test_numbers_that_a_format_has_not(state_dtype: str, value: float, message: str) -> None:
    target = made(state_dtype=state_dtype)
    state = interop.to_torch_state_dict(made())
    state["state"][0]["exp_avg_sq"] = np.full(5000, value)
    before = repr(target.state_dict())
    with pytest.raises(ValueError, match=f"^torch's {message}"):
        interop.from_torch_state_dict(target, state)
    assert repr(target.state_dict()) == before


def test_a_run_goes_there_and_back() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = made(state_dtype="8bit")
    tensors = [torch.tensor(p) for p in optimizer.params.values()]
    theirs = torch.optim.Adam(tensors, lr=0.01)
    state = interop.to_torch_state_dict(optimizer)
    state["state"] = {
        n: {k: torch.as_tensor(v) for k, v in own.items()} for n, own in state["state"].items()
    }
    theirs.load_state_dict(state)
    before = {key: array.copy() for key, array in optimizer.state["w"].items()}
    interop.from_torch_state_dict(optimizer, theirs.state_dict())
    for key, array in before.items():
        if key.endswith("_unit"):
            np.testing.assert_allclose(optimizer.state["w"][key], array, rtol=1e-6)
        else:
            assert_same_bits(optimizer.state["w"][key], array, key)
