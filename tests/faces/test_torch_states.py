"""States of instep.torch's optimizers: ``optimizer.state`` is the truth, whoever changes it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch.nn.utils import prune  # noqa: E402
from torch_twins import (  # noqa: E402
    FULL,
    IN_TORCH,
    bits,
    default_dtype,
    furthest,
    give,
    held,
    one,
    parameters,
    same,
    shapes_for,
    train,
    twins,
)

import instep.torch  # noqa: E402


def _described(optimizer: Any, params: list[Any]) -> Any:
    return [
        {
            key: (value.dtype, value.shape, value.stride())
            for key, value in optimizer.state[p].items()
        }
        for p in params
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", IN_TORCH)
def test_states_are_torchs(name: str, dtype: Any) -> None:
    with default_dtype(dtype):
        a = parameters(shapes_for(name), dtype)
        b = twins(a)
        ours = getattr(instep.torch, name)(a, **FULL.get(name, {}))
        theirs = getattr(torch.optim, name)(b, **FULL.get(name, {}))
        assert [len(ours.state.get(p, {})) for p in a] == [len(theirs.state.get(p, {})) for p in b]
        train((ours, a), (theirs, b))
        mine, plain = _described(ours, a), _described(theirs, b)
        for p, q, m, n in zip(a, b, mine, plain, strict=True):
            assert m.keys() == n.keys()
            for key in m.keys() & {"eta", "mu", "mu_product"}:  # float64 for any parameter
                assert (m.pop(key)[0], n.pop(key)[1]) == (torch.float64, torch.Size())
                torch.testing.assert_close(
                    ours.state[p][key].double(), theirs.state[q][key].double(), rtol=1e-6, atol=0
                )
            assert m == n


def test_states_come_with_the_first_gradient() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    optimizer.step()
    assert not optimizer.state
    give(a[:1])
    optimizer.step()
    assert list(optimizer.state) == a[:1]
    give(a)
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in a] == [2, 1, 1]
    assert len(instep.torch.Adagrad(a).state) == 3
    plain = instep.torch.SGD(a)
    plain.step()
    assert not plain.state


def test_none_leaves_a_parameter_alone() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    for step in range(6):
        give(a, b, seed=step)
        for params in (a, b):
            params[step % 3].grad = None
        ours.step()
        theirs.step()
        assert [s["step"] for s in ours.state.values()] == [
            s["step"] for s in theirs.state.values()
        ]
    assert furthest(a, b) < 1e-6


def test_zero_gradients_count() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    train((ours, a), (theirs, b))
    for p in (*a, *b):
        p.grad.zero_()
    ours.step()
    theirs.step()
    assert ours.state[a[0]]["step"] == 4
    assert furthest(a, b) < 1e-6
    fresh = twins(a)
    plain = instep.torch.Adam(fresh)
    for p in fresh:
        p.grad = torch.zeros_like(p)
    plain.step()
    assert same(fresh, a)


def test_states_that_are_replaced_edited_or_removed() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    train((ours, a), (theirs, b))
    for optimizer, params in ((ours, a), (theirs, b)):
        optimizer.state[params[0]]["exp_avg"] = torch.ones(5, 4)  # replaced
        optimizer.state[params[1]]["exp_avg_sq"].fill_(0.5)  # edited
        optimizer.state[params[2]]["step"].fill_(100)
    train((ours, a), (theirs, b))
    assert ours.state[a[2]]["step"] == 103
    for optimizer, params in ((ours, a), (theirs, b)):
        del optimizer.state[params[1]]  # removed
        optimizer.state[params[0]]["step"] = torch.tensor(7.0)
        optimizer.state[params[2]]["exp_avg"].data = torch.full((2, 3, 2), 0.25)
    train((ours, a), (theirs, b))
    assert [ours.state[p]["step"].item() for p in a] == [10, 3, 106]
    assert furthest(a, b) < 1e-6
    ours.state.clear()
    theirs.state.clear()
    train((ours, a), (theirs, b))
    assert ours.state[a[0]]["step"] == 3
    assert furthest(a, b) < 1e-6


def test_memory_that_one_state_leaves_another_may_have() -> None:
    """As it comes about when a state is freed and the next one is made."""
    a = parameters(((3,), (3,)))
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    train((ours, a), (theirs, b))
    for optimizer, params in ((ours, a), (theirs, b)):
        free = optimizer.state[params[1]]["exp_avg"].detach()
        optimizer.state[params[1]]["exp_avg"].data = torch.full((3,), 0.25)
        optimizer.state[params[0]]["exp_avg_sq"] = free.fill_(0.5)
    train((ours, a), (theirs, b))
    assert furthest(a, b) < 1e-6


def test_the_step_may_be_any_number() -> None:
    for value in (5, 5.0, torch.tensor(5), torch.tensor([5.0]), torch.tensor(5.0).double()):
        p = one()
        optimizer = instep.torch.Adam([p])
        optimizer.step()
        optimizer.state[p]["step"] = value
        optimizer.step()
        assert optimizer.state[p]["step"] == 6
        assert isinstance(optimizer.state[p]["step"], torch.Tensor)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("step", "five", "^the step count of '0' must be a number, got a str"),
        ("step", torch.tensor(-1.0), "^the step count of '0' must be a whole number from 0"),
        ("step", torch.tensor(1.5), "^the step count of '0' must be a whole number"),
        ("step", torch.tensor(float("nan")), "^the step count of '0' must be a whole number"),
        ("step", torch.ones(2), "^the step count of '0' must be a number"),
        ("exp_avg", torch.zeros(4), "^state 'exp_avg' of '0' must have shape .3,., got .4,."),
        ("exp_avg", torch.zeros(1, 3), "^state 'exp_avg' of '0' must have shape"),
        ("exp_avg", torch.zeros(3).double(), "^state 'exp_avg' of '0' must have dtype float32"),
        ("exp_avg", torch.zeros(3).long(), "^state 'exp_avg' of '0' must be .* torch.int64"),
        ("exp_avg", torch.zeros(3).to_sparse(), "^state 'exp_avg' of '0' .* a sparse tensor"),
        ("exp_avg", torch.zeros(3, device="meta"), "^state 'exp_avg' of '0' .* 'meta'"),
        ("exp_avg", torch.zeros(1).expand(3), "^state 'exp_avg' of '0' must have separate"),
        ("exp_avg", [0.0, 0.0, 0.0], "^state 'exp_avg' of '0' must be .* got a list"),
        (None, None, "^the state of '0' must be a dict, got None"),
        (None, (1, 2), "^the state of '0' must be a dict, got a tuple"),
    ],
)
def test_an_impossible_state_changes_nothing(key: str | None, value: Any, error: str) -> None:
    p, q = one(), one(2)
    optimizer = instep.torch.Adam([p, q])
    optimizer.step()
    good = dict(optimizer.state[p])
    before = held(optimizer)
    if key is None:
        optimizer.state[p] = value
    else:
        optimizer.state[p][key] = value
    with pytest.raises((TypeError, ValueError), match=error):
        optimizer.step()
    if key is None:
        optimizer.state[p] = good
    else:
        optimizer.state[p][key] = good[key]
    assert held(optimizer) == before
    optimizer.step()
    assert optimizer.state[p]["step"] == 2


def test_states_that_share_memory_are_refused() -> None:
    p, q = one(), one()
    optimizer = instep.torch.Adam([p, q])
    optimizer.step()
    optimizer.state[p]["exp_avg"] = optimizer.state[q]["exp_avg"]
    before = held(optimizer)
    with pytest.raises(ValueError, match="state 'exp_avg' of '0' must have memory of its own"):
        optimizer.step()
    assert held(optimizer) == before


def test_parameters_may_be_given_other_memory() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    for change in (
        lambda p: p.detach().clone(),
        lambda p: torch.full_like(p, 0.5),
        lambda p: p.detach().clone(memory_format=torch.contiguous_format),
    ):
        train((ours, a), (theirs, b))
        for p, q in zip(a, b, strict=True):
            p.data = change(p)
            q.data = change(q)
    train((ours, a), (theirs, b))
    assert furthest(a, b) < 1e-6


def test_a_module_may_change_its_dtype() -> None:
    a, b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    b.load_state_dict(a.state_dict())
    ours, theirs = instep.torch.SGD(a.parameters(), 0.1), torch.optim.SGD(b.parameters(), 0.1)
    for dtype in (torch.float32, torch.float64, torch.float32):
        a.to(dtype)
        b.to(dtype)
        for p in (*a.parameters(), *b.parameters()):
            p.grad = None
        train((ours, list(a.parameters())), (theirs, list(b.parameters())))
        assert a.weight.dtype == dtype
        assert furthest(list(a.parameters()), list(b.parameters())) < 1e-6
    adam = instep.torch.Adam(a.parameters())
    train((adam, list(a.parameters())))
    a.double()
    for p in a.parameters():
        p.grad = None
    train((adam, list(a.parameters())))  # float32 states serve float64 parameters
    a.float()
    for p in a.parameters():
        p.grad = None
    train((adam, list(a.parameters())))


def test_entries_of_a_group_may_be_replaced() -> None:
    # as Accelerate does in prepare(): the new parameters have no states
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    train((ours, a), (theirs, b))
    a, b = twins(a), twins(b)
    ours.param_groups[0]["params"][:] = a
    theirs.param_groups[0]["params"][:] = b
    train((ours, a), (theirs, b))
    assert furthest(a, b) < 1e-6
    assert ours.state[a[0]]["step"] == 3


def test_pruning() -> None:
    a, b = torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)
    b.load_state_dict(a.state_dict())
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    runs = [
        (a, instep.torch.Adam(a.parameters(), 0.1)),
        (b, torch.optim.Adam(b.parameters(), 0.1)),
    ]
    for model, optimizer in runs:
        for k in range(6):
            if k == 2:
                prune.l1_unstructured(model, "weight", 0.3)
            if k == 4:
                prune.remove(model, "weight")
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert furthest([a.weight, a.bias], [b.weight, b.bias]) < 1e-5
    assert runs[0][1].state_dict()["state"].keys() == runs[1][1].state_dict()["state"].keys()


LAYOUTS = {
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(4, 5, 3).permute(2, 0, 1),
    "with gaps": lambda: torch.randn(6, 10)[:, ::2],
    "0-d": lambda: torch.randn(()),
    "without elements": lambda: torch.randn(0, 3),
    "contiguous": lambda: torch.randn(6, 10),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout: str) -> None:
    values = LAYOUTS[layout]()
    a, b = torch.nn.Parameter(values), torch.nn.Parameter(values.clone())
    assert a.stride() == values.stride()
    ours, theirs = instep.torch.Adam([a]), torch.optim.Adam([b])
    turned = values.transpose(0, -1) if values.dim() > 1 else values
    for step in range(6):
        gradient = torch.randn(turned.shape)
        gradient = gradient.transpose(0, -1) if values.dim() > 1 else gradient
        gradient = gradient if step % 2 else gradient.clone(memory_format=torch.contiguous_format)
        a.grad, b.grad = gradient, gradient.clone()
        ours.step()
        theirs.step()
    assert a.stride() == values.stride()
    assert ours.state[a]["exp_avg"].stride() == theirs.state[b]["exp_avg"].stride()
    assert not a.numel() or furthest([a], [b]) < 1e-6


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: Any) -> None:
    a = parameters(dtype=dtype)
    b = [torch.nn.Parameter(p.detach().double()) for p in a]
    ours, theirs = instep.torch.Adam(a, lr=0.1), torch.optim.Adam(b, lr=0.1)
    train((ours, a), (theirs, b), steps=3)
    tolerance = {torch.float16: 0.01, torch.bfloat16: 0.1}.get(dtype, 1e-6)
    assert furthest([p.detach().double() for p in a], b) < tolerance
    assert {v.dtype for s in ours.state.values() for k, v in s.items() if k != "step"} == {dtype}


def test_dtypes_side_by_side() -> None:
    mixed = [parameters(((5,),), dtype)[0] for dtype in DTYPES]
    alone = twins(mixed)
    together = instep.torch.Adam(mixed)
    each = [instep.torch.Adam([p]) for p in alone]
    for step in range(3):
        give(mixed, alone, seed=step)
        together.step()
        for optimizer in each:
            optimizer.step()
    assert same(mixed, alone)


@pytest.mark.parametrize(("dtype", "of"), list(itertools.permutations(DTYPES, 2)), ids=str)
def test_a_gradient_of_another_dtype(dtype: Any, of: Any) -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    p.grad_dtype = of
    p.grad = torch.full((4,), 0.5, dtype=of)
    q = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    q.grad = torch.full((4,), 0.5, dtype=dtype)
    for parameter in (p, q):
        instep.torch.Adam([parameter], lr=0.1).step()
    assert bits(p) == bits(q)


def test_numbers_are_on_the_cpu_whatever_the_default_device() -> None:
    a, b = parameters(), parameters()
    ours, usual = instep.torch.NAdam(a), instep.torch.NAdam(b)
    give(a, b)
    with torch.device("meta"):
        ours.step()
    usual.step()
    assert held(ours) == held(usual)


def test_a_state_that_is_missing_later_is_named() -> None:
    # zeros would be wrong in the middle of training; torch.optim raises KeyError, too
    a = parameters()
    adam = instep.torch.Adam(a)
    train((adam, a))
    for name, key in (("ScheduleFreeAdamW", "z"), ("Adamax", "exp_inf")):
        b = twins(a)
        other = getattr(instep.torch, name)(b)
        state = adam.state_dict()["state"]
        other.load_state_dict({**other.state_dict(), "state": state})
        give(b)
        before = held(other)
        error = f"the state of '0' must have '{key}', got step, exp_avg, exp_avg_sq; without any"
        with pytest.raises(KeyError, match=error):
            other.step()
        assert held(other) == before
        other.state.clear()
        other.step()
