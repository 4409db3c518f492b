"""A run started in torch goes on in instep, and the other way round."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from cases import IN_TORCH, Variant, labels, torch_options

import instep
from instep import interop, schedules

STEPS = 12


def tensors_of(torch: Any, state: dict[str, Any]) -> dict[str, Any]:
    def tensor(value: Any) -> Any:
        return torch.tensor(value) if isinstance(value, (np.ndarray, float)) else value

    return {
        "param_groups": state["param_groups"],
        "state": {n: {k: tensor(v) for k, v in s.items()} for n, s in state["state"].items()},
    }


@pytest.mark.usefixtures("torch_in_double")
@pytest.mark.parametrize("switches", [1, 5])
@pytest.mark.parametrize("variant", IN_TORCH, ids=labels)
def test_there_and_back(variant: Variant, switches: int) -> None:
    """The run changes sides every few steps; one in torch alone is the measure."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(40)
    start = [rng.standard_normal((3, 2)), rng.standard_normal(4)]
    grads = [[rng.standard_normal(p.shape) for p in start] for _ in range(STEPS)]

    def in_torch(values: list[np.ndarray]) -> tuple[list[Any], Any]:
        tensors = [torch.tensor(p, requires_grad=True) for p in values]
        groups = [{"params": tensors[:1]}, {"params": tensors[1:], "lr": 0.02}]
        options: dict[str, Any] = {**(torch_options(variant) or {}), "lr": 0.05}
        return tensors, getattr(torch.optim, variant.rule._torch.name)(groups, **options)

    def step_torch(tensors: list[Any], optimizer: Any, grad: list[np.ndarray]) -> None:
        for tensor, g in zip(tensors, grad, strict=True):
            tensor.grad = torch.tensor(g)
        optimizer.step()

    whole, whole_optimizer = in_torch(start)
    for grad in grads:
        step_torch(whole, whole_optimizer, grad)

    tensors, other = in_torch(start)
    params = [p.copy() for p in start]
    mine = variant.make([{"params": params[0]}, {"params": [params[1]]}])
    in_instep = False
    for k, grad in enumerate(grads):
        if k % switches == 0 and k:
            if in_instep:
                tensors, other = in_torch(params)
                other.load_state_dict(tensors_of(torch, interop.to_torch_state_dict(mine)))
            else:
                for p, tensor in zip(params, tensors, strict=True):
                    p[...] = tensor.detach().numpy()
                interop.from_torch_state_dict(mine, other.state_dict())
                assert [g["lr"] for g in mine.param_groups] == [0.05, 0.02]
            in_instep = not in_instep
        if in_instep:
            mine.step([grad[0], [grad[1]]])
        else:
            step_torch(tensors, other, grad)
    final = params if in_instep else [t.detach().numpy() for t in tensors]
    for found, wanted in zip(final, whole, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_without_torch() -> None:
    """Nothing of torch is needed: state as NumPy arrays goes round."""
    w = np.ones(3)
    first = instep.Adam({"w": w}, lr=schedules.Constant(0.25))
    first.step({"w": np.ones(3)})
    state = interop.to_torch_state_dict(first)
    assert state["param_groups"][0]["lr"] == 0.25
    second = instep.Adam({"w": w.copy()}, lr=0.5)
    interop.from_torch_state_dict(second, state)
    assert (second.step_count, second.lr) == (1, 0.25)
    assert second.state["w"]["exp_avg"].tolist() == first.state["w"]["exp_avg"].tolist()
    third = instep.Adam({"w": w.copy()}, lr=schedules.Constant(0.5))
    interop.from_torch_state_dict(third, state)
    assert third.lr == schedules.Constant(0.5), "a schedule stays"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": 0.1}, "l1 must be 0.0, as torch's Adam has none, got 0.1"),
        ({"clip_value": 1.0}, "clip_value must be None, as torch's Adam has none, got 1.0"),
    ],
)
def test_what_torch_can_not_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interop.to_torch_state_dict(instep.Adam(np.zeros(1), **options))
    pending = instep.Adam(np.zeros(1))
    pending.accumulate(np.ones(1))
    with pytest.raises(ValueError, match="the accumulated gradients must be none, got '0'"):
        interop.to_torch_state_dict(pending)


def test_what_does_not_fit_changes_nothing() -> None:
    other = instep.Adam([np.zeros(2), np.zeros(3)], lr=0.5)
    other.step([np.ones(2), np.ones(3)])
    good = interop.to_torch_state_dict(other)
    optimizer = instep.Adam([np.zeros(2), np.zeros(3)])
    before = repr(optimizer.state_dict())
    bad_lr = {**good, "param_groups": [{**good["param_groups"][0], "lr": -1.0}]}
    bad_entry = {**good["state"][1], "exp_avg": np.zeros(4)}
    bad_shape = {**good, "state": {**good["state"], 1: bad_entry}}
    for state, message in [
        ({**good, "param_groups": []}, "torch's state must have 1 parameter groups, got 0"),
        (
            {**good, "param_groups": [{**good["param_groups"][0], "params": [0]}]},
            "must have 2 parameters, got 1",
        ),
        (bad_lr, "lr must be .*, got -1.0"),
        (bad_shape, r"exp_avg of '1' must have shape \(3,\), got \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            interop.from_torch_state_dict(optimizer, state)
        assert repr(optimizer.state_dict()) == before


@pytest.mark.parametrize("step", [-1.0, 1e300, np.inf, np.nan, 1.5])
def test_bad_step_counts(step: float) -> None:
    optimizer = instep.Adam(np.zeros(1))
    optimizer.step(np.ones(1))
    state = interop.to_torch_state_dict(optimizer)
    state["state"][0]["step"] = step
    state["param_groups"][0]["lr"] = 0.7
    before = repr(optimizer.state_dict())
    with pytest.raises(ValueError, match="torch's step of '0' must be a count of steps, got "):
        interop.from_torch_state_dict(optimizer, state)
    assert repr(optimizer.state_dict()) == before
    with pytest.raises(
        ValueError, match="torch's state must have the keys 'state' and 'param_groups', got no keys"
    ):
        interop.from_torch_state_dict(optimizer, {})
    with pytest.raises(
        ValueError,
        match="torch's state must have the keys 'state' and 'param_groups', got the keys 'state'",
    ):
        interop.from_torch_state_dict(optimizer, {"state": {}})
    with pytest.raises(TypeError, match="torch's state must be a dict, got a list"):
        interop.from_torch_state_dict(optimizer, [state])  # type: ignore[arg-type]


ARRAY = np.full(2, 0.5)
ADAM = {"step": 3.0, "exp_avg": ARRAY, "exp_avg_sq": ARRAY}
GROUP = {"lr": 0.1, "params": [0]}


def stored(state: Any, **group: Any) -> dict[str, Any]:
    return {"state": state, "param_groups": [{**GROUP, **group}]}


@pytest.mark.parametrize(
    ("rule", "state", "error", "message"),
    [
        (
            "Adam",
            instep.Adam(np.ones(2)).state_dict(),
            ValueError,
            "must have no key 'schema', got .*; pass it to load_",
        ),
        (
            "Adam",
            {"state": [], "param_groups": []},
            TypeError,
            r"'state' of torch's state must be .*, got a li",
        ),
        (
            "Adam",
            {"state": {}, "param_groups": {}},
            TypeError,
            r"'param_groups' of .* must be .*, got a dict",
        ),
        (
            "Adam",
            {"state": {}, "param_groups": [1]},
            TypeError,
            r"group 0 of torch's state must be .*, got an i",
        ),
        (
            "Adam",
            stored({}, params=None),
            TypeError,
            r"'params' of group 0 of .* must be a list, got None",
        ),
        (
            "Adam",
            stored({}, params=[None]),
            TypeError,
            r"a parameter of group 0 .* must be .*, got None",
        ),
        (
            "Adam",
            stored({0: None, 7: {}}),
            ValueError,
            "must be one of the groups' parameters 0, got 7$",
        ),
        (
            "Adam",
            stored({"0": ADAM}),
            ValueError,
            "must be one of the groups' parameters 0, got '0'",
        ),
        ("Adam", stored({0: [1]}), TypeError, "torch's state of '0' must be a dict, got a list"),
        ("Adam", stored({0: {"step": 1.0}}), ValueError, "missing: 'exp_avg', 'exp_avg_sq'"),
        ("Adam", stored({0: {**ADAM, "step": None}}), ValueError, "options; missing: 'step'"),
        ("Adam", stored({0: {**ADAM, "new": 1}}), ValueError, "options; unknown: 'new'"),
        (
            "Adam",
            stored({0: {**ADAM, "step": "a"}}),
            TypeError,
            "step of '0' must be a number, got 'a'",
        ),
        (
            "Adam",
            stored({0: {**ADAM, "exp_avg": "ab"}}),
            ValueError,
            r"exp_avg of '0' must have shape .*, got \(\)",
        ),
        (
            "Adam",
            stored({0: {**ADAM, "exp_avg": ["a", "b"]}}),
            TypeError,
            "'0' must have a dtype of real numbers, got <U1",
        ),
        (
            "Adam",
            stored({0: {**ADAM, "exp_avg": [[], [1]]}}),
            TypeError,
            "must be readable as a NumPy array, got ",
        ),
        ("Adam", stored({}, lr="fast"), TypeError, "lr of group 0 .* must be a number, got 'fast'"),
        ("Adam", stored({}, lr="1e-3"), TypeError, "lr of group 0 .* must be a number, got '1e-3'"),
        (
            "Adam",
            stored({}, amsgrad=2),
            TypeError,
            r"amsgrad of group 0 .* must be True or False, got 2",
        ),
        (
            "Adam",
            stored({0: {**ADAM, "step": [1]}}),
            TypeError,
            r"step of .0. must be a number, got \[1\]",
        ),
        (
            "Adam",
            stored({}, betas=[0.9, None]),
            TypeError,
            r"betas of group 0 .* must be a number, got None",
        ),
        (
            "Adam",
            stored({}, decoupled_weight_decay=True),
            ValueError,
            "must be of torch's Adam, got AdamW's by",
        ),
        (
            "AdamW",
            stored({}, decoupled_weight_decay=False),
            ValueError,
            "must be of torch's AdamW, got Adam's by",
        ),
        (
            "Momentum",
            stored({}, betas=(0.9, 0.99)),
            ValueError,
            "must be those of torch's Momentum, got 'betas'",
        ),
        ("Momentum", stored({0: ADAM}), ValueError, "unknown: 'exp_avg', 'exp_avg_sq', 'step'"),
        ("SGD", stored({0: {"momentum_buffer": ARRAY}}), ValueError, "unknown: 'momentum_buffer'"),
        (
            "RMSprop",
            stored({}, dampening=0),
            ValueError,
            "must be those of torch's RMSprop, got 'dampening'",
        ),
    ],
)
def test_what_is_no_state_of_torchs_rule_is_refused(
    rule: str, state: Any, error: type[Exception], message: str
) -> None:
    optimizer = getattr(instep, rule)(np.zeros(2), lr=0.2)
    before = repr(optimizer.state_dict())
    with pytest.raises(error, match=message):
        interop.from_torch_state_dict(optimizer, state)
    assert repr(optimizer.state_dict()) == before


def test_what_torch_takes_too() -> None:
    """Keys of other rules beside its own, and flags that are numbers."""
    optimizer = instep.Adam(np.zeros(2))
    state = stored({0: ADAM}, betas=(0.5, 0.75), momentum=0.9, amsgrad=0, maximize=np.True_)
    interop.from_torch_state_dict(optimizer, state)
    assert (optimizer.betas, optimizer.amsgrad, optimizer.maximize) == ((0.5, 0.75), False, True)


def test_tensors_of_autograd_and_of_bfloat16() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = torch.tensor([0.5, 0.25], requires_grad=True)
    entry = {"step": torch.tensor(3.0), "exp_avg": values, "exp_avg_sq": values.bfloat16()}
    optimizer = instep.Adam(np.zeros(2))
    lr = torch.tensor(0.125, requires_grad=True)
    interop.from_torch_state_dict(optimizer, stored({0: entry}, lr=lr))
    assert (optimizer.lr, optimizer.step_count) == (0.125, 3)
    for array in optimizer.state["0"].values():
        assert array.tolist() == [0.5, 0.25]


def test_a_parameter_in_two_groups_is_refused() -> None:
    optimizer = instep.Adam([{"params": np.zeros(2)}, {"params": np.zeros(2)}])
    with pytest.raises(
        ValueError, match="each parameter in the groups of torch's state must be there once"
    ):
        interop.from_torch_state_dict(optimizer, {"state": {}, "param_groups": [GROUP, GROUP]})


def test_states_of_bfloat16_are_given_in_float32() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    first = instep.Adam(np.ones(2, "f4"), state_dtype="bfloat16")
    first.step(np.full(2, 0.3, "f4"))
    state = interop.to_torch_state_dict(first)
    assert state["state"][0]["exp_avg"].dtype == np.float32
    second = instep.Adam(np.ones(2, "f4"), state_dtype="bfloat16")
    state["state"][0]["exp_avg_sq"] = state["state"][0]["exp_avg_sq"].astype(ml_dtypes.bfloat16)
    interop.from_torch_state_dict(second, state)
    for key, array in first.state["0"].items():
        assert second.state["0"][key].tobytes() == array.tobytes()


def test_sums_are_in_the_way() -> None:
    optimizer = instep.Adam(np.zeros(1))
    state = interop.to_torch_state_dict(optimizer)
    optimizer.accumulate(np.ones(1))
    with pytest.raises(ValueError, match="the accumulated gradients must be none, got '0'"):
        interop.from_torch_state_dict(optimizer, state)


def test_a_momentum_that_begins_here() -> None:
    """torch's SGD without momentum keeps no buffer; ours begins at the next step, from that gradient."""
    first = instep.SGD(np.zeros(1))
    first.step(np.ones(1))
    state = interop.to_torch_state_dict(first)
    assert state["state"] == {0: {"momentum_buffer": None}}
    state["param_groups"][0]["momentum"] = 0.5
    second = instep.Momentum(np.zeros(1))
    interop.from_torch_state_dict(second, state)
    second.step(np.full(1, 3.0))
    assert second.state["0"]["momentum_buffer"].tolist() == [3.0]


def test_a_state_is_given_between_steps_of_another_thread() -> None:
    optimizer = instep.Adam(np.ones(3))
    optimizer.step(np.ones(3))
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.append(interop.to_torch_state_dict(optimizer)))
    with optimizer._plan:  # as a step does
        thread.start()
        thread.join(0.3)
        assert not given
    thread.join()
    assert given[0]["state"][0]["step"] == 1.0
