"""What instep.torch has beside torch.optim: instep's keywords, rules and averages, to the same bits."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from cases import number_of  # noqa: E402
from torch_twins import (  # noqa: E402
    RULES,
    bits,
    furthest,
    give,
    held,
    one,
    options_in_instep,
    parameters,
    same,
    shapes_for,
    train,
    twins,
)

import instep  # noqa: E402
import instep.torch  # noqa: E402
from instep import _core  # noqa: E402

AVERAGING = [name for name in RULES if hasattr(getattr(instep.torch, name), "averaged")]


def test_every_rule_has_a_class() -> None:
    # Momentum is torch's SGD with a momentum.
    assert set(RULES) == set(instep.rules.__all__) - {"Momentum"}
    assert set(dir(instep.torch)) == {*RULES, "decoded"}
    assert AVERAGING == ["ASGD", "ScheduleFreeAdamW", "ScheduleFreeSGD"]


def _options(name: str) -> dict[str, Any]:
    """A number for each hyperparameter, with which it matters."""
    rule = getattr(instep, name)
    known = inspect.signature(getattr(instep.torch, name)).parameters
    found = {}
    for key, kind in rule._hyperparameters.items():
        if key in known and type(kind).__name__ not in ("Flag", "OneOf", "Count"):
            found[key] = number_of(rule, key)
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_the_bits_are_those_of_numpy(name: str, dtype: Any) -> None:
    options = _options(name)
    assert "lr" in options
    params = parameters(shapes_for(name), dtype)
    optimizer = getattr(instep.torch, name)(params, **options)
    arrays = [p.detach().numpy().copy() for p in params]
    more = options_in_instep(name, optimizer)
    plain = getattr(instep, name)(arrays, **{**options, **more})
    for step in range(5):
        give(params, seed=step)
        plain.step([p.grad.numpy().copy() for p in params])
        optimizer.step()
    for p, array in zip(params, arrays, strict=True):
        assert p.detach().numpy().tobytes() == array.tobytes()
    assert (arrays[0] != parameters(shapes_for(name), dtype)[0].detach().numpy()).all()


def test_arguments_of_instep() -> None:
    optimizer = instep.torch.Lion([one()], lr=0.1, betas=(0.5, 0.6), weight_decay=0.2)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.1, (0.5, 0.6), 0.2)
    with pytest.raises(ValueError, match=r"^betas\[0\] must be"):
        instep.torch.Lion([one()], betas=(1.5, 0.6))
    with pytest.raises(TypeError):
        instep.torch.Lion([one()], ema_decay=0.9)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Lion"])
def test_clip_norm(name: str) -> None:
    a, b = parameters(), parameters()
    ours = getattr(instep.torch, name)(a, lr=0.1, clip_norm=0.5)
    clipped = getattr(instep.torch, name)(b, lr=0.1)
    for step in range(4):
        give(a, b, seed=step)
        if step == 2:  # smaller than the limit
            for p in (*a, *b):
                p.grad.mul_(1e-3)
        norm = torch.nn.utils.clip_grad_norm_(b, 0.5)
        kept = [p.grad.clone() for p in a]
        ours.step()
        clipped.step()
        assert ours.grad_norm == pytest.approx(norm.item(), rel=1e-6)
        assert same([p.grad for p in a], kept)  # the gradients stay as they are
    assert furthest(a, b) < 1e-5
    ours.clip_norm = None
    ours.step()
    assert ours.grad_norm is None


def test_skip_changes_nothing() -> None:
    for prior in (0, 2):
        a = parameters()
        optimizer = instep.torch.Adam(a, nonfinite="skip")
        train((optimizer, a), steps=prior)
        before = held(optimizer)
        versions = [p._version for p in a]
        for count in (1, 2):
            give(a)
            a[1].grad[2] = float("inf")
            optimizer.step()
            assert held(optimizer) == before
            assert optimizer.skipped_steps == count
        assert [p._version for p in a] == versions
        assert bool(optimizer.state) is bool(prior)
        train((optimizer, a), steps=1)
        assert optimizer.state[a[0]]["step"] == prior + 1
        assert optimizer.skipped_steps == 2
        # The count outlives changes of groups, and of the optimizer's attributes.
        optimizer.add_param_group({"params": [one()]})
        optimizer.clip_norm = 1.0
        optimizer.load_state_dict(optimizer.state_dict())
        train((optimizer, a), steps=1)
        assert optimizer.skipped_steps == 2


def test_raise_changes_nothing() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a, nonfinite="raise", lr=0.1)
    for prior in (0, 2):
        before = held(optimizer)
        for _ in range(2):
            give(a)
            a[1].grad[2] = float("nan")
            with pytest.raises(FloatingPointError, match=r"^the gradient of '1' must be finite"):
                optimizer.step()
            assert held(optimizer) == before
        assert bool(optimizer.state) is bool(prior)
        train((optimizer, a), steps=2)
        optimizer.nonfinite = "raise"
    optimizer.nonfinite = "propagate"
    a[1].grad[2] = float("nan")
    optimizer.step()
    assert torch.isnan(a[1]).sum() == 1


def test_state_dtype() -> None:
    wide, narrow = parameters(dtype=torch.bfloat16), parameters(dtype=torch.float32)
    a = instep.torch.Adam(wide, state_dtype=torch.float32)
    b = instep.torch.Adam(narrow, state_dtype=torch.bfloat16)
    train((a, wide))
    train((b, narrow))
    assert a.state[wide[0]]["exp_avg"].dtype == torch.float32
    assert b.state[narrow[0]]["exp_avg"].dtype == torch.bfloat16
    b.state_dtype = torch.float32  # for states that are made from now on
    del b.state[narrow[0]]
    train((b, narrow))
    assert b.state[narrow[0]]["exp_avg"].dtype == torch.float32
    assert b.state[narrow[1]]["exp_avg"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"clip_norm": -1.0}, "^clip_norm must be a number greater than 0, got -1.0"),
        ({"clip_norm": "x"}, "^clip_norm must be"),
        ({"nonfinite": "ignore"}, "^nonfinite must be one of propagate, skip, raise, got 'ignore'"),
        ({"state_dtype": torch.int8}, "^state_dtype must be a floating-point .* got torch.int8"),
        ({"state_dtype": "float32"}, "^state_dtype must be a floating-point .* got 'float32'"),
        ({"state_dtype": torch.float8_e5m2}, "^state_dtype must be .* got torch.float8_e5m2"),
        ({"state_dtype": {"exp_avg": 3}}, r"^state_dtype\['exp_avg'\] must be .* got 3"),
        (
            {"state_dtype": {"momentum_buffer": "8bit"}},
            "^a state in state_dtype must be one of exp_avg, exp_avg_sq, max_exp_avg_sq, got 'mom",
        ),
        ({"rounding": "up"}, "^rounding must be one of stochastic, nearest, got 'up'"),
        ({"param_rounding": None}, "^param_rounding must be one of stochastic, nearest, got None"),
        ({"seed": -1}, "^seed must be an int from 0 to 2"),
        ({"seed": 1.5}, "^seed must be an int from 0 to 2"),
        ({"master_bits": 16}, "^master_bits must be None, 24 or 32, got 16"),
        ({"min_8bit_size": -1}, "^min_8bit_size must be an int of at least 0, got -1"),
    ],
)
def test_own_arguments_are_checked(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        instep.torch.Adam([one()], **options)
    optimizer = instep.torch.Adam([one()])
    ((name, value),) = options.items()
    before = getattr(optimizer, name)
    with pytest.raises((TypeError, ValueError), match=error):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before


@pytest.mark.parametrize("name", AVERAGING)
def test_averaged(name: str) -> None:
    a = parameters()
    optimizer = getattr(instep.torch, name)(a, **({"t0": 1.0} if name == "ASGD" else {}))
    train((optimizer, a), steps=5)
    before = held(optimizer)
    arrays = [p.detach().numpy().copy() for p in parameters()]
    plain = getattr(instep, name)(arrays, **({"t0": 1.0} if name == "ASGD" else {}))
    for step in range(5):
        give(twin := parameters(), seed=10 + step)
        plain.step([p.grad.numpy() for p in twin])
    versions = [p._version for p in a]
    with optimizer.averaged(), plain.averaged():
        assert all(p._version > version for p, version in zip(a, versions, strict=True))
        for p, array in zip(a, arrays, strict=True):
            assert p.detach().numpy().tobytes() == array.tobytes()
        assert held(optimizer) != before
        if name == "ASGD":
            assert same(a, [optimizer.state[p]["ax"] for p in a])
        assert torch.is_grad_enabled()
        shown = held(optimizer)
        with pytest.raises(RuntimeError, match=r"^step must come after the block of averaged\(\)"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="must end before the next begins"):
            optimizer.averaged().__enter__()
        assert held(optimizer) == shown
    assert held(optimizer) == before
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert held(optimizer) == before
    b = twins(a)
    other = getattr(instep.torch, name)(b)
    other.load_state_dict(optimizer.state_dict())
    train((optimizer, a), (other, b))
    assert same(a, b)


def test_averages_before_the_first_step() -> None:
    for name in AVERAGING:
        p = one()
        before = bits(p)
        optimizer = getattr(instep.torch, name)([p])
        with optimizer.averaged():
            assert bits(p) == before
        assert not optimizer.state


def test_a_joint_number_is_one_tensor() -> None:
    a = parameters()
    optimizer = instep.torch.Prodigy(a)
    train((optimizer, a))
    joint = _core.rules()["prodigy"]["joint_states"]
    assert joint
    for key in joint:
        assert len({id(optimizer.state[p][key]) for p in a}) == 1
    key = joint[0]
    optimizer.state[a[1]][key] = optimizer.state[a[1]][key] + 1
    with pytest.raises(
        ValueError, match=f"^state '{key}' of '1' must be .* one for all parameters"
    ):
        optimizer.step()


def test_joint_numbers_may_be_replaced_together() -> None:
    a, b = parameters(), parameters()
    ours, usual = instep.torch.Prodigy(a), instep.torch.Prodigy(b)
    train((ours, a), (usual, b))
    shared = {
        key: ours.state[a[0]][key].clone() for key in _core.rules()["prodigy"]["joint_states"]
    }
    for p in a:
        ours.state[p] = {key: value.clone() for key, value in ours.state[p].items()} | shared
    train((ours, a), (usual, b))
    assert same(a, b)
    assert ours.state[a[2]]["d"] is shared["d"]


def test_the_norm_of_the_last_step_stays_after_a_change() -> None:
    p = one()
    optimizer = instep.torch.SGD([p], clip_norm=1.0)
    optimizer.step()
    norm = optimizer.grad_norm
    assert norm is not None
    optimizer.nonfinite = "skip"
    assert optimizer.grad_norm == norm
    optimizer.add_param_group({"params": [one()]})
    optimizer.step()
    assert optimizer.grad_norm is not None
    assert optimizer.grad_norm > norm


def test_joint_numbers_may_be_given_other_memory() -> None:
    """All places are bound anew: one that was not would write to memory that is free."""
    a, b = parameters(), parameters()
    ours, usual = instep.torch.Prodigy(a), instep.torch.Prodigy(b)
    train((ours, a), (usual, b))
    for key in _core.rules()["prodigy"]["joint_states"]:
        ours.state[a[0]][key].data = ours.state[a[0]][key].detach().clone()
    train((ours, a), (usual, b))
    assert same(a, b)
    assert ours.state[a[2]]["d"] == usual.state[b[2]]["d"]


def test_threads_change_no_bits() -> None:
    found = set()
    for threads in (1, 2):
        instep.set_num_threads(threads)
        params = parameters(((70_000,), (3,)))
        optimizer = instep.torch.AdamW(params, clip_norm=1.0)
        train((optimizer, params))
        found.add(tuple(bits(p) for p in params))
    assert len(found) == 1
