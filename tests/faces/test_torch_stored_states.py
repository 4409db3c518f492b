"""Stored formats of instep.torch in ``optimizer.state``, which is the truth, whoever changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch_stored import make  # noqa: E402
from torch_twins import (  # noqa: E402
    array_of,
    furthest,
    give,
    held,
    parameters,
    same,
    train,
    twins,
)

import instep.storage  # noqa: E402
import instep.torch  # noqa: E402

Change = Callable[[dict[str, Any]], None]
IMPOSSIBLE: dict[str, tuple[Change, str]] = {
    "codes of another dtype": (
        lambda s: s.update(exp_avg_code=s["exp_avg_code"].float()),
        "^state 'exp_avg_code' of '0' must be a dense tensor of torch.int8 in the CPU's memory, got a "
        "tensor of torch.float32",
    ),
    "codes of the other sign": (
        lambda s: s.update(exp_avg_sq_code=s["exp_avg_sq_code"].to(torch.int8)),
        "^state 'exp_avg_sq_code' of '0' must be a dense tensor of torch.uint8",
    ),
    "codes of another shape": (
        lambda s: s.update(exp_avg_code=s["exp_avg_code"].reshape(-1)),
        r"^state 'exp_avg' of '0' must have shape \(70, 70\), got \(4900,\)",
    ),
    "codes with other strides": (
        lambda s: s.update(exp_avg_code=s["exp_avg_code"].t()),
        "^state 'exp_avg' of '0' must be C-contiguous",
    ),
    "no units": (
        lambda s: s.pop("exp_avg_unit"),
        "the state of '0' must have 'exp_avg_unit' beside 'exp_avg_code', got step, exp_avg_code",
    ),
    "units of another dtype": (
        lambda s: s.update(exp_avg_unit=s["exp_avg_unit"].half()),
        "^state 'exp_avg_unit' of '0' must be a dense tensor of torch.float32",
    ),
    "too few units": (
        lambda s: s.update(exp_avg_unit=s["exp_avg_unit"][:3].clone()),
        r"^state 'exp_avg_unit' of '0' must have shape \(77,\)",
    ),
    "codes and numbers": (
        lambda s: s.update(exp_avg=torch.zeros(70, 70)),
        "^the state of '0' must have one of exp_avg and exp_avg_code, got both; remove what is stale",
    ),
    "no codes": (
        lambda s: s.pop("exp_avg_code"),
        "the state of '0' must have 'exp_avg', got step, exp_avg_unit",
    ),
    "a root of another dtype": (
        lambda s: s.update(exp_avg_sq_root=torch.zeros(70, 70), exp_avg_sq_code=None),
        "^state 'exp_avg_sq_root' of '0' must be a dense tensor of torch.float16",
    ),
    "a remainder of another dtype": (
        lambda s: s.update(remainder=torch.zeros(70, 70)),
        "^state 'remainder' of '0' must be a dense tensor of torch.int8 or torch.int16",
    ),
    "codes that are shared": (
        lambda s: s.update(remainder=s["exp_avg_code"]),
        "state '(exp_avg|remainder)' of '0' must have memory of its own",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_state_changes_nothing(what: str) -> None:
    change, error = IMPOSSIBLE[what]
    optimizer, a = make("Adam", "24 bits")
    train((optimizer, a))
    good, before = dict(optimizer.state[a[0]]), held(optimizer)
    change(optimizer.state[a[0]])
    with pytest.raises((TypeError, ValueError, KeyError), match=error):
        optimizer.step()
    optimizer.state[a[0]] = good
    assert held(optimizer) == before
    train((optimizer, a))


def test_a_remainder_is_of_a_bfloat16_parameter() -> None:
    optimizer, a = make("Adam", "24 bits")
    train((optimizer, a))
    a[0].data, a[0].grad = a[0].detach().float(), None
    a[0].grad = torch.ones_like(a[0])
    with pytest.raises(ValueError, match=r"^state 'remainder' of '0' must be of a parameter in bf"):
        optimizer.step()
    del optimizer.state[a[0]]["remainder"]
    optimizer.step()


def test_a_state_may_be_replaced_by_one_in_another_format() -> None:
    optimizer, a = make("Adam", "8bit")
    train((optimizer, a))
    optimizer.load_state_dict(instep.torch.decoded(optimizer.state_dict()))
    b = twins(a)
    wide = instep.torch.Adam(b, lr=0.01)
    wide.load_state_dict(optimizer.state_dict())
    train((optimizer, a), (wide, b))
    assert same(a, b)
    states = optimizer.state[a[0]]
    assert list(states) == ["step", "exp_avg", "exp_avg_sq"]
    codes, units = instep.storage.encode(array_of(states.pop("exp_avg")), signed=True)
    states["exp_avg_code"], states["exp_avg_unit"] = map(torch.from_numpy, (codes, units))
    train((optimizer, a), (wide, b))
    assert not same(a, b)
    assert furthest(a, b) < 0.05


@pytest.mark.parametrize("how", ["other memory", "another tensor"])
def test_tensors_may_be_given_other_memory(how: str) -> None:
    ours, a = make("Adam", "24 bits")
    usual, b = make("Adam", "24 bits")
    train((ours, a), (usual, b))
    for key in list(ours.state[a[0]]):
        old = ours.state[a[0]][key]
        if how == "other memory":
            old.data = old.detach().clone()
        else:
            ours.state[a[0]][key] = old.clone()
            old.fill_(3)  # nobody sees it
        train((ours, a), (usual, b), steps=1)
        assert held(ours) == held(usual), key


def test_new_states_are_taken_back_if_the_step_is_skipped() -> None:
    for prior in (0, 1):
        optimizer, a = make("SGD", "24 bits", nonfinite="skip")
        train((optimizer, a), steps=prior)
        before = held(optimizer)
        give(a)
        a[0].grad[0] = float("inf")
        optimizer.step()
        assert held(optimizer) == before
        assert bool(optimizer.state) == bool(prior)


@pytest.mark.parametrize(
    ("dtype", "options", "counts"),
    [
        (torch.float32, {"momentum": 0.9}, False),
        (torch.bfloat16, {"momentum": 0.9}, True),
        (torch.bfloat16, {"momentum": 0.9, "rounding": "nearest"}, False),
        (torch.bfloat16, {"momentum": 0.9, "state_dtype": torch.float32}, False),
        (torch.bfloat16, {}, False),
        (torch.bfloat16, {"param_rounding": "stochastic"}, True),
        (torch.float32, {"momentum": 0.9, "state_dtype": "8bit"}, True),
        (torch.bfloat16, {"master_bits": 24}, False),
    ],
)
def test_steps_are_counted_for_random_numbers(dtype: Any, options: Any, counts: bool) -> None:
    (p,) = params = parameters(((70, 70),), dtype)
    optimizer = instep.torch.SGD(params, lr=0.1, **options)
    train((optimizer, params), steps=5)
    states = optimizer.state.get(p, {})
    assert ("rounding_step" in states) == counts
    assert not counts or states["rounding_step"] == 5
    assert "step" not in states


def test_a_momentum_that_begins_later_begins_as_in_torch() -> None:
    a = parameters(((70, 70),), torch.bfloat16)
    b = twins(a)
    later = instep.torch.SGD(a, lr=0.1, param_rounding="stochastic")
    train((later, a))
    assert later.state[a[0]]["rounding_step"] == 3
    with torch.no_grad():
        b[0].copy_(a[0])
    fresh = instep.torch.SGD(b, lr=0.1, momentum=0.9, dampening=0.5, param_rounding="stochastic")
    later.param_groups[0].update(momentum=0.9, dampening=0.5)
    train((later, a), (fresh, b))
    assert held(later)[:2] == held(fresh)[:2]
