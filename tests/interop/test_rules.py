"""What is particular to the form of some rules in torch."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import instep
from instep import interop, schedules

START = 0.25


def adagrad(**options: Any) -> instep.Adagrad:
    params = {"w": np.ones((2, 3)), "late": np.ones(4)}
    return instep.Adagrad(params, **{"lr": 0.5, "initial_accumulator_value": START, **options})


def gradients(step: int) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(step)
    late = rng.standard_normal(4) if step >= 3 else None
    return {"w": rng.standard_normal((2, 3)), "late": late}


def test_adagrads_sums_exist_in_torch_before_the_first_step() -> None:
    optimizer = adagrad()
    optimizer.step(gradients(0))
    state = interop.to_torch_state_dict(optimizer)["state"]
    assert state[0]["step"] == 1.0
    assert state[1]["step"] == 0.0
    assert state[1]["sum"].tolist() == [START] * 4
    assert optimizer.state["late"]["sum"].tolist() == [0.0] * 4, "the rule knows the start"


@pytest.mark.parametrize("options", [{}, {"lr_decay": 0.5}, {"weight_decay": 0.1}], ids=str)
def test_adagrad_with_a_late_parameter_there_and_back(options: dict[str, float]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    whole = adagrad(**options)
    optimizer = adagrad(**options)
    tensors = [torch.tensor(p, requires_grad=True) for p in optimizer.params.values()]
    common = {"lr": 0.5, "initial_accumulator_value": START, **options}
    theirs = torch.optim.Adagrad(tensors, **common)
    for step in range(8):
        grads = gradients(step)
        whole.step(grads)
        if step % 2:  # in torch, from and to which every step goes
            state = interop.to_torch_state_dict(optimizer)
            for entry in state["state"].values():
                entry.update(sum=torch.tensor(entry["sum"]), step=torch.tensor(entry["step"]))
            theirs.load_state_dict(state)
            for tensor, p, g in zip(
                tensors, optimizer.params.values(), grads.values(), strict=True
            ):
                tensor.data.copy_(torch.tensor(p))
                tensor.grad = None if g is None else torch.tensor(g)
            theirs.step()
            for tensor, p in zip(tensors, optimizer.params.values(), strict=True):
                p[...] = tensor.detach().numpy()
            interop.from_torch_state_dict(optimizer, theirs.state_dict())
        else:
            optimizer.step(grads)
    for name, p in whole.params.items():
        np.testing.assert_allclose(optimizer.params[name], p, rtol=1e-12)
    assert optimizer.step_count == 8


def test_a_start_that_the_rule_does_not_have_is_refused() -> None:
    state = interop.to_torch_state_dict(adagrad())
    state["state"][1]["sum"][2] = 1.0
    optimizer = adagrad(lr=0.125)
    before = repr(optimizer.state_dict())
    with pytest.raises(
        ValueError,
        match=r"sum of 'late' must be initial_accumulator_value, 0\.25, before the first step, got other",
    ):
        interop.from_torch_state_dict(optimizer, state)
    assert repr(optimizer.state_dict()) == before


@pytest.mark.parametrize("state_dtype", ["f4", "f2", "bfloat16"])
def test_starts_are_rounded(state_dtype: str) -> None:
    if state_dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for start in (0.3, 1e-9):
        optimizer = adagrad(initial_accumulator_value=start, state_dtype=state_dtype)
        state = interop.to_torch_state_dict(optimizer)
        assert state["state"][0]["sum"][0, 0] == start
        interop.from_torch_state_dict(optimizer, state)
        assert not optimizer.state["w"]["sum"].any()


def test_a_start_that_is_a_schedule_stays() -> None:
    schedule = schedules.Constant(START)
    optimizer = adagrad(initial_accumulator_value=schedule)
    state = interop.to_torch_state_dict(optimizer)
    assert state["param_groups"][0]["initial_accumulator_value"] == START
    state["state"][0]["sum"].fill(7.0)
    interop.from_torch_state_dict(optimizer, state)
    assert optimizer.initial_accumulator_value == schedule


def test_decoupled_decay_is_an_option_of_radam_in_torch_too() -> None:
    for decoupled in (False, True):
        optimizer = instep.RAdam(np.ones(2), decoupled_weight_decay=decoupled)
        state = interop.to_torch_state_dict(optimizer)
        assert state["param_groups"][0]["decoupled_weight_decay"] is decoupled
        interop.from_torch_state_dict(optimizer, state)
        other = instep.RAdam(np.ones(2), decoupled_weight_decay=not decoupled)
        with pytest.raises(ValueError, match=f"decoupled_weight_decay must stay {not decoupled}"):
            interop.from_torch_state_dict(other, state)


@pytest.mark.usefixtures("torch_in_double")
@pytest.mark.parametrize(
    ("mine", "theirs"), [("original", None), ("match_rms_adamw", "match_rms_adamw")]
)
def test_muon_goes_to_torch_and_comes_back(mine: Any, theirs: str | None) -> None:
    torch = pytest.importorskip("torch")
    w, g = np.ones((3, 4)), np.arange(12.0).reshape(3, 4)
    optimizer = instep.Muon({"w": w}, lr=0.5, ns_steps=3, adjust_lr=mine)
    optimizer.step({"w": g})
    state = interop.to_torch_state_dict(optimizer)
    assert set(state["param_groups"][0]) - {"params", "param_names"} == {
        *inspect.signature(torch.optim.Muon).parameters
    } - {"params"}
    state["state"][0] = {name: torch.from_numpy(a) for name, a in state["state"][0].items()}
    other = torch.optim.Muon([torch.nn.Parameter(torch.ones(3, 4))], adjust_lr_fn=theirs)
    other.load_state_dict(state)
    assert other.param_groups[0]["ns_steps"] == 3
    fresh = torch.optim.Muon([torch.nn.Parameter(torch.ones(3, 4))], adjust_lr_fn=theirs)
    again = instep.Muon({"w": np.ones((3, 4))}, adjust_lr=mine)
    interop.from_torch_state_dict(again, fresh.state_dict())
    assert (again.ns_steps, again.lr) == (5, 1e-3)
    interop.from_torch_state_dict(again, other.state_dict())
    assert (again.ns_steps, again.lr, again.adjust_lr) == (3, 0.5, mine)
    assert np.array_equal(
        again.state["w"]["momentum_buffer"], optimizer.state["w"]["momentum_buffer"]
    )


def test_what_torchs_muon_may_not_have() -> None:
    state = interop.to_torch_state_dict(instep.Muon(np.ones((2, 2))))
    group = state["param_groups"][0]
    for name, value, text in (
        ("adjust_lr_fn", None, "adjust_lr must stay 'match_rms_adamw', got 'original'"),
        (
            "adjust_lr_fn",
            "other",
            "adjust_lr_fn of group 0 of torch's state must be one of match_rms_adamw, original, got 'other'",
        ),
        ("ns_steps", 2.5, "ns_steps must be an int"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            interop.from_torch_state_dict(
                instep.Muon(np.ones((2, 2))),
                {"state": {}, "param_groups": [{**group, name: value}]},
            )


def test_groups_of_other_rules_are_refused() -> None:
    states = {
        rule: interop.to_torch_state_dict(getattr(instep, rule)(np.ones(2)))
        for rule in ("Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Rprop", "SGD")
    }
    for mine in ("RAdam", "Adamax", "Adagrad", "Adadelta", "Rprop"):
        for rule in states.keys() - {mine}:
            with pytest.raises(ValueError, match=f"must be those of torch's {mine}, got "):
                interop.from_torch_state_dict(getattr(instep, mine)(np.ones(2)), states[rule])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            instep.Adagrad(np.ones(1), eps_inside_sqrt=True),
            "eps_inside_sqrt must be False, as torch's Adagrad has none, got True",
        ),
        (
            instep.Rprop(np.ones(1), weight_decay=0.5),
            "weight_decay must be 0.0, as torch's Rprop has none, got 0.5",
        ),
        (
            instep.NAdam(np.ones(1), momentum_decay=None),
            "momentum_decay must be a number, as in torch's NAdam, got None",
        ),
        (instep.Lion(np.ones(1)), "the rule must be one that torch has, .*, got 'Lion'$"),
    ],
    ids=["Adagrad", "Rprop", "NAdam", "Lion"],
)
def test_what_torch_does_not_have(optimizer: instep.Optimizer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interop.to_torch_state_dict(optimizer)
