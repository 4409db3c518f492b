"""Parameters of torch's that have names: they go by these, and to torch with them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import instep
from instep import interop

NAMES = ("bias", "weight", "gain")


def arrays(seed: int) -> dict[str, np.ndarray]:
    """Of one shape, so that nothing but the names tells them apart."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(3) for name in NAMES}


def in_torch(torch: Any, params: dict[str, np.ndarray], *, named: bool = True) -> Any:
    tensors = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    optimizer = torch.optim.Adam(tensors.items() if named else tensors.values(), lr=0.25)
    return tensors, optimizer


def step_torch(torch: Any, tensors: dict[str, Any], optimizer: Any, seed: int) -> None:
    for name, gradient in arrays(seed).items():
        tensors[name].grad = torch.tensor(gradient)
    optimizer.step()


def tensors_of(torch: Any, state: dict[str, Any]) -> dict[str, Any]:
    def tensor(value: Any) -> Any:
        return torch.tensor(value) if isinstance(value, (np.ndarray, float)) else value

    entries = {n: {k: tensor(v) for k, v in s.items()} for n, s in state["state"].items()}
    return {**state, "state": entries}


def torch_with_names() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        pytest.skip("torch writes no param_names before 2.6")
    return torch


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], ("gain", "bias", "weight")], ids=str)
def test_from_torch_by_name_and_back(order: tuple[str, ...]) -> None:
    """The run goes on here whatever the order of the dict, and in torch again."""
    torch = torch_with_names()
    tensors, theirs = in_torch(torch, arrays(0))
    for seed in (1, 2):
        step_torch(torch, tensors, theirs, seed)
    params = {name: tensors[name].detach().numpy().copy() for name in order}
    mine = instep.Adam(params)
    interop.from_torch_state_dict(mine, theirs.state_dict())
    for name, states in mine.state.items():
        for key, array in states.items():
            assert array.tolist() == theirs.state[tensors[name]][key].tolist()
    step_torch(torch, tensors, theirs, 3)
    mine.step({name: arrays(3)[name] for name in order})
    for name, p in params.items():
        np.testing.assert_allclose(p, tensors[name].detach().numpy(), rtol=1e-12)

    state = interop.to_torch_state_dict(mine)
    assert state["param_groups"][0]["param_names"] == list(order)
    back, other = in_torch(torch, params)
    other.load_state_dict(tensors_of(torch, state))
    assert other.state_dict()["param_groups"][0]["param_names"] == list(order)
    for seed in (4, 5):
        step_torch(torch, tensors, theirs, seed)
        step_torch(torch, back, other, seed)
    for name, tensor in back.items():
        np.testing.assert_allclose(
            tensor.detach().numpy(), tensors[name].detach().numpy(), rtol=1e-12
        )


@pytest.mark.parametrize("theirs_named", [True, False])
def test_without_names_on_one_side_the_order_counts(theirs_named: bool) -> None:
    torch = torch_with_names()
    tensors, theirs = in_torch(torch, arrays(0), named=theirs_named)
    step_torch(torch, tensors, theirs, 1)
    values = list(arrays(0).values())
    other_names = dict(zip("abc", arrays(0).values(), strict=True))
    mine = instep.Adam(values if theirs_named else other_names)
    interop.from_torch_state_dict(mine, theirs.state_dict())
    found = [states["exp_avg"].tolist() for states in mine.state.values()]
    assert found == [theirs.state[tensors[name]]["exp_avg"].tolist() for name in NAMES]
    assert ("param_names" in interop.to_torch_state_dict(mine)["param_groups"][0]) is (
        not theirs_named
    )


def named_state(names: Any, **more: Any) -> dict[str, Any]:
    entries = {
        k: {"step": 1.0, "exp_avg": np.full(2, k + 0.5), "exp_avg_sq": np.full(2, k + 0.25)}
        for k in range(2)
    }
    group = {"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 1], "param_names": names, **more}
    return {"state": entries, "param_groups": [group]}


def test_moments_of_equal_shapes_are_not_swapped() -> None:
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)})
    interop.from_torch_state_dict(optimizer, named_state(["a", "b"]))
    assert optimizer.state["a"]["exp_avg"].tolist() == [0.5, 0.5]
    assert optimizer.state["b"]["exp_avg"].tolist() == [1.5, 1.5]


def test_each_group_by_its_own_names() -> None:
    groups = [{"params": {"b": np.zeros(2), "a": np.zeros(2)}}, {"params": [np.zeros(2)]}]
    optimizer = instep.Adam(groups)  # type: ignore[arg-type]
    state = named_state(["a", "b"])
    state["state"][7] = {"step": 1.0, "exp_avg": np.full(2, 9.0), "exp_avg_sq": np.zeros(2)}
    state["param_groups"].append({"params": [7], "param_names": ["c"]})
    interop.from_torch_state_dict(optimizer, state)
    found = {name: states["exp_avg"][0] for name, states in optimizer.state.items()}
    assert found == {"b": 1.5, "a": 0.5, "2": 9.0}
    assert "param_names" not in interop.to_torch_state_dict(optimizer)["param_groups"][0], (
        "torch takes names of all groups or of none"
    )


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (
            ["a", "c"],
            ValueError,
            "must be the names of the optimizer's .*; missing: 'b'; unknown: 'c'",
        ),
        (["module.a", "module.b"], ValueError, r"\(without 'param_names' they go by their order\)"),
        (["a"], ValueError, "must have a name for each of 2 parameters, got 1 names"),
        (["a", "a"], ValueError, "must have a name for each of 2 parameters, got 1 names"),
        (
            "ab",
            TypeError,
            "'param_names' of group 0 of torch's state must be a list of str, got a str",
        ),
        ([0, 1], TypeError, "must be a list of str, got a list"),
    ],
    ids=str,
)
def test_names_that_do_not_fit(names: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)})
    before = repr(optimizer.state_dict())
    with pytest.raises(error, match=message):
        interop.from_torch_state_dict(optimizer, named_state(names))
    assert repr(optimizer.state_dict()) == before


# --- numbers beyond what states are kept in


@pytest.mark.parametrize("state_dtype", ["f4", "f2", "bfloat16"])
def test_numbers_beyond_narrower_states(state_dtype: str) -> None:
    """No warning, which the tests' settings would make an error, and nothing has changed."""
    if state_dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)}, state_dtype=state_dtype)
    before = repr(optimizer.state_dict())
    state = named_state(["a", "b"])
    state["state"][0]["exp_avg_sq"] = np.array([1.0, 1e300])
    with pytest.raises(
        ValueError,
        match=r"torch's exp_avg_sq of 'a' must have numbers in the range of \w*float.*, got numbers beyond",
    ):
        interop.from_torch_state_dict(optimizer, state)
    assert repr(optimizer.state_dict()) == before
    state["state"][0]["exp_avg_sq"] = np.array([np.inf, np.nan])
    interop.from_torch_state_dict(optimizer, state)
    assert np.isinf(optimizer.state["a"]["exp_avg_sq"][0]), "infinities come as they are"
    assert np.isnan(optimizer.state["a"]["exp_avg_sq"][1])


def test_states_are_rounded_to_nearest() -> None:
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)}, state_dtype="f2")
    state = named_state(["a", "b"])
    values = np.array([1.0 + 2.0**-11 + 2.0**-40, 65504.0 + 15.0])
    state["state"][1]["exp_avg"] = values
    interop.from_torch_state_dict(optimizer, state)
    assert optimizer.state["b"]["exp_avg"].tolist() == [1.0 + 2.0**-10, 65504.0]


# --- True is no 1, and 1.0 is none


def change(state: dict[str, Any], what: str) -> None:
    entries, group = state["state"], state["param_groups"][0]
    if what == "a key that is True":
        entries[True] = entries.pop(1)
    elif what == "a key that is 1.0":
        entries[1.0] = entries.pop(1)
    elif what == "a parameter that is 1.0":
        group["params"] = [0, 1.0]
    elif what == "step True":
        entries[0]["step"] = True
    elif what == "step an array of bool":
        entries[0]["step"] = np.array(True)
    elif what == "lr True":
        group["lr"] = True
    elif what == "a beta True":
        group["betas"] = (np.False_, 0.9)
    elif what == "amsgrad 0.0":
        group["amsgrad"] = 0.0
    elif what == "decoupled_weight_decay text":
        group["decoupled_weight_decay"] = "False"


CHANGES = [
    *("a key that is True", "a key that is 1.0", "a parameter that is 1.0"),
    *("step True", "step an array of bool", "lr True", "a beta True", "amsgrad 0.0"),
    "decoupled_weight_decay text",
]


@pytest.mark.parametrize("what", CHANGES)
def test_types_are_strict(what: str) -> None:
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)})
    before = repr(optimizer.state_dict())
    state = copy.deepcopy(named_state(["a", "b"]))
    change(state, what)
    with pytest.raises(TypeError):
        interop.from_torch_state_dict(optimizer, state)
    assert repr(optimizer.state_dict()) == before


def test_bool_tensors_are_no_numbers() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = instep.Adam({"b": np.zeros(2), "a": np.zeros(2)})
    for key, value in (("lr", torch.tensor(True)), ("eps", torch.tensor([1e-8, 1e-8]))):
        with pytest.raises(TypeError, match=f"{key} of group 0 of torch's state must be .*, got "):
            interop.from_torch_state_dict(optimizer, named_state(["a", "b"], **{key: value}))
    interop.from_torch_state_dict(optimizer, named_state(["a", "b"], lr=torch.tensor([0.5])))
    assert optimizer.lr == 0.5
