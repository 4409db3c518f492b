"""Groups of instep.torch's optimizers: torch's arguments and keys, read at every step."""

from __future__ import annotations

import inspect
from collections import UserDict
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch_twins import (  # noqa: E402
    IN_TORCH,
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
from instep.optimizers.stored_formats import StoredFormats  # noqa: E402

OWN = ["clip_norm", "nonfinite", *StoredFormats._fields]


@pytest.mark.parametrize("name", IN_TORCH)
def test_signature_and_keys_are_torchs(name: str) -> None:
    mine, theirs = getattr(instep.torch, name), getattr(torch.optim, name)
    assert issubclass(mine, theirs)
    found = list(inspect.signature(mine).parameters.values())
    wanted = list(inspect.signature(theirs).parameters.values())
    assert found[: len(wanted)] == wanted
    assert [p.name for p in found[len(wanted) :]] == OWN
    assert all(p.kind is p.KEYWORD_ONLY for p in found[len(wanted) :])
    params = parameters(shapes_for(name))
    a, b = mine(params, clip_norm=1.0), theirs(params)
    assert list(a.param_groups[0].items()) == list(b.param_groups[0].items())
    assert a.defaults == b.defaults
    assert list(a.state_dict()["param_groups"][0]) == list(b.state_dict()["param_groups"][0])
    assert (mine.__module__, mine.__qualname__) == ("instep.torch", name)


def test_arguments_by_position() -> None:
    optimizer = instep.torch.Adam([one()], 0.01, (0.8, 0.9), 1e-3, 0.1, True)
    assert optimizer.param_groups[0]["amsgrad"] is True
    assert optimizer.param_groups[0]["eps"] == 1e-3
    with pytest.raises(TypeError):
        instep.torch.Adam([one()], 0.01, (0.8, 0.9), 1e-3, 0.1, True, 1.0)


def test_foreach_and_fused_are_passed_over() -> None:
    for more in ({"foreach": True}, {"fused": True}, {"foreach": False, "fused": False}):
        a, b = [one()], [one()]
        ours, theirs = instep.torch.Adam(a, **more), torch.optim.Adam(b)
        train((ours, a), (theirs, b))
        assert furthest(a, b) < 1e-6
        assert {name: ours.param_groups[0][name] for name in more} == more
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        instep.torch.Adam([one()], foreach=True, fused=True)


@pytest.mark.parametrize(
    ("name", "why"),
    [("capturable", "the step runs on the CPU"), ("differentiable", "autograd doesn't record it")],
)
def test_refuses_what_it_cannot_do(name: str, why: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{name} must be False, as {why}, got True; use torch.optim.Adam$"
    ):
        instep.torch.Adam([one()], **{name: True})
    optimizer = instep.torch.Adam([one()])
    optimizer.param_groups[0][name] = True
    before = held(optimizer)
    with pytest.raises(ValueError, match=f"^{name} of group 0 must be False, got True"):
        optimizer.step()
    assert held(optimizer) == before


@pytest.mark.parametrize("name", ["clip_norm", "nonfinite", "state_dtype"])
def test_refuses_a_group_with_an_argument_of_the_optimizer(name: str) -> None:
    """It would have no effect there, and nothing would tell."""
    group = {"params": [one()], name: None}
    with pytest.raises(
        TypeError, match=f"^a parameter group must not have '{name}'; give {name} to the"
    ):
        instep.torch.Adam([group])
    optimizer = instep.torch.Adam([one()])
    with pytest.raises(TypeError, match=f"^a parameter group must not have '{name}'"):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_names_an_argument_that_may_be_meant() -> None:
    wrong = "^Adam: got an unexpected keyword argument 'learning_rate'; did you mean 'lr'"
    with pytest.raises(TypeError, match=wrong):
        instep.torch.Adam([one()], learning_rate=0.1)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("LBFGS", "; use torch.optim.LBFGS"),
        ("lr_scheduler", "; use torch.optim.lr_scheduler"),
        ("Momentum", "; use SGD with momentum=0.9"),
        ("Adm", "; did you mean 'Adam'?"),
        ("xyz", ""),
    ],
)
def test_says_where_a_missing_name_is(name: str, mend: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(instep.torch, name)
    assert str(error.value) == f"module 'instep.torch' has no attribute {name!r}{mend}"


def test_refuses_a_callable() -> None:
    use = "use a scheduler of torch.optim.lr_scheduler"
    with pytest.raises(TypeError, match=f"^lr must be a number, got a function; {use}"):
        instep.torch.Adam([one()], lr=lambda step: 0.1)
    with pytest.raises(TypeError, match=f"^lr must be a number, got a function; {use}"):
        instep.torch.Lion([one()], lr=lambda step: 0.1)
    optimizer = instep.torch.Adam([one()])
    optimizer.param_groups[0]["lr"] = lambda: 0.1
    with pytest.raises(TypeError, match=f"^lr of group 0 must be a number, .*{use}"):
        optimizer.step()


def _set(key: str, *values: Any) -> Any:
    def before(step: int, optimizer: Any) -> None:
        optimizer.param_groups[0][key] = values[step % len(values)]

    return before


SWITCHES = [
    ("SGD", {}, "momentum", (0.9, 0.0, 0.9)),
    ("SGD", {}, "momentum", (0.0, 0.9, 0.5)),
    ("SGD", {"momentum": 0.9}, "nesterov", (False, True)),
    ("SGD", {"momentum": 0.9}, "dampening", (0.1, 0.0)),
    ("SGD", {"momentum": 0.9}, "weight_decay", (0.1, 0, 0.2)),
    ("SGD", {}, "maximize", (False, True)),
    ("Adam", {}, "lr", (0.1, 0.01, 0, 1)),
    ("Adam", {}, "betas", ((0.8, 0.9), (0.9, 0.99), [0.7, 0.9])),
    ("Adam", {}, "eps", (1e-3, 1e-8)),
    ("Adam", {}, "maximize", (False, True)),
    ("Adam", {"weight_decay": 0.1}, "decoupled_weight_decay", (False, True)),
    ("Adam", {"amsgrad": True}, "amsgrad", (True, False, True)),
    ("AdamW", {"amsgrad": True}, "amsgrad", (True, False, True)),
    ("NAdam", {"weight_decay": 0.1}, "decoupled_weight_decay", (False, True)),
    ("RAdam", {"weight_decay": 0.1}, "decoupled_weight_decay", (True, False)),
    ("RMSprop", {"centered": True}, "centered", (True, False, True)),
    ("RMSprop", {"momentum": 0.9}, "momentum", (0.9, 0.0, 0.5)),
    ("Adagrad", {}, "lr_decay", (0.1, 0.0)),
    ("Rprop", {}, "etas", ((0.5, 1.2), (0.4, 1.3))),
    ("ASGD", {}, "lambd", (1e-4, 1e-2)),
]


@pytest.mark.parametrize(("name", "options", "key", "values"), SWITCHES)
def test_groups_are_read_at_every_step(
    name: str, options: dict[str, Any], key: str, values: tuple[Any, ...]
) -> None:
    with default_dtype(torch.float64):
        a = parameters(dtype=torch.float64)
        b, c = twins(a), twins(a)
        ours = getattr(instep.torch, name)(a, **options)
        theirs = getattr(torch.optim, name)(b, **options)
        still = getattr(torch.optim, name)(c, **options)
        train((ours, a), (theirs, b), steps=9, before=_set(key, *values))
        assert furthest(a, b) < 1e-12
        train((still, c), steps=9, before=_set(key, values[0]))
        assert furthest(a, c) > 1e-9  # the switch matters


def test_a_variant_without_its_state_starts_it() -> None:
    # torch.optim raises KeyError: 'max_exp_avg_sq'.
    params = parameters()
    optimizer = instep.torch.Adam(params)
    train((optimizer, params), steps=2)
    optimizer.param_groups[0]["amsgrad"] = True
    train((optimizer, params), steps=1)
    state = optimizer.state[params[0]]
    assert torch.equal(state["max_exp_avg_sq"], state["exp_avg_sq"])
    assert state["step"] == 3


def test_lr_as_a_tensor_is_read_at_every_step() -> None:
    a = parameters()
    b = twins(a)
    mine, theirs = torch.tensor(0.1), torch.tensor(0.1)
    ours, plain = instep.torch.Adam(a, lr=mine), torch.optim.Adam(b, lr=theirs)
    for value in (0.1, 0.02, 0.3):
        mine.fill_(value)
        theirs.fill_(value)
        train((ours, a), (plain, b), steps=2)
        assert ours.param_groups[0]["lr"] is mine
    assert furthest(a, b) < 1e-6
    mine.fill_(0.0)
    before = [p.detach().clone() for p in a]
    train((ours, a), steps=1)
    assert same(a, before)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("lr", float("nan"), "^lr must be a finite number of at least 0, got nan .group 0."),
        ("lr", -1e-3, "^lr must be a finite number of at least 0, got -0.001 .group 0."),
        ("lr", float("inf"), "^lr must be a finite number of at least 0, got inf .group 0."),
        ("lr", "fast", "^lr must be a finite number of at least 0, got 'fast' .group 0."),
        ("lr", torch.ones(2), "^lr of group 0 must be a number, got a tensor of shape .2,."),
        ("betas", (0.9, 1.0), r"^betas\[1\] must be"),
        ("betas", 0.9, "^betas must be"),
        ("eps", None, "^eps must be"),
        ("amsgrad", "yes", "^amsgrad must be"),
    ],
)
def test_an_impossible_number_changes_nothing(key: str, value: Any, error: str) -> None:
    params = parameters()
    optimizer = instep.torch.Adam(params)
    train((optimizer, params), steps=2)
    good = optimizer.param_groups[0][key]
    before = held(optimizer)
    optimizer.param_groups[0][key] = value
    give(params)
    with pytest.raises((TypeError, ValueError), match=error):
        optimizer.step()
    optimizer.param_groups[0][key] = good
    assert held(optimizer) == before
    optimizer.step()


def test_a_missing_key_is_named() -> None:
    optimizer = instep.torch.Adam([one()])
    del optimizer.param_groups[0]["betas"]
    with pytest.raises(KeyError, match="group 0 must have 'betas', got params, lr, eps"):
        optimizer.step()


def _schedulers() -> dict[str, Any]:
    of = torch.optim.lr_scheduler
    return {
        "StepLR": lambda o: of.StepLR(o, 3, 0.5),
        "OneCycleLR": lambda o: of.OneCycleLR(o, 0.1, total_steps=12),
        "CyclicLR": lambda o: of.CyclicLR(o, 0.01, 0.1, 3),
        "CosineAnnealingLR": lambda o: of.CosineAnnealingLR(o, 10),
        "CosineAnnealingWarmRestarts": lambda o: of.CosineAnnealingWarmRestarts(o, 4),
        "LambdaLR": lambda o: of.LambdaLR(o, lambda step: 1 / (1 + step)),
        "LinearLR": lambda o: of.LinearLR(o, 0.1, total_iters=5),
        "SequentialLR": lambda o: of.SequentialLR(
            o, [of.LinearLR(o, 0.1, total_iters=3), of.ExponentialLR(o, 0.8)], [3]
        ),
    }


@pytest.mark.parametrize("scheduler", _schedulers())
@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"momentum": 0.9}), ("AdamW", {}), ("RMSprop", {"momentum": 0.5})]
)
def test_schedulers_of_torch(name: str, options: dict[str, Any], scheduler: str) -> None:
    with default_dtype(torch.float64):
        a = parameters(dtype=torch.float64)
        b = twins(a)
        ours = getattr(instep.torch, name)(a, lr=0.1, **options)
        theirs = getattr(torch.optim, name)(b, lr=0.1, **options)
        make = _schedulers()[scheduler]
        mine, plain = make(ours), make(theirs)
        rates = set()
        for step in range(12):
            give(a, b, seed=step)
            ours.step()
            theirs.step()
            if step < 11:
                mine.step()
                plain.step()
            rates.add(ours.param_groups[0]["lr"])
        assert len(rates) > 2
        assert furthest(a, b) < 1e-12


def test_reduce_on_plateau() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    of = torch.optim.lr_scheduler.ReduceLROnPlateau
    mine, plain = of(ours, patience=1), of(theirs, patience=1)
    for step in range(8):
        train((ours, a), (theirs, b), steps=1, seed=step)
        mine.step(1.0)
        plain.step(1.0)
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"] < 1e-4
    assert furthest(a, b) < 1e-6


def test_add_param_group() -> None:
    for name in ("Adam", "SGD", "Adagrad"):
        a = parameters(((5,), (4,), (3, 2)))
        b = twins(a)
        ours = getattr(instep.torch, name)(a[:1], lr=0.1)
        train((ours, a[:1]))
        ours.add_param_group({"params": a[1:], "lr": 0.01, "weight_decay": 0.2})
        train((ours, a))
        theirs = getattr(torch.optim, name)(b[:1], lr=0.1)
        train((theirs, b[:1]))
        if name == "Adagrad":  # torch.optim's own has no state for the new group
            theirs.add_param_group({"params": b[1:], "lr": 0.01, "weight_decay": 0.2})
            for p in b[1:]:
                theirs.state[p] = {"step": torch.tensor(0.0), "sum": torch.zeros_like(p)}
        else:
            theirs.add_param_group({"params": b[1:], "lr": 0.01, "weight_decay": 0.2})
        train((theirs, b))
        assert furthest(a, b) < 1e-6
    with pytest.raises(ValueError, match="more than one parameter group"):
        ours.add_param_group({"params": a[2]})


def test_groups_with_other_variants() -> None:
    a = parameters(((5,), (4,), (3, 2)))
    b = twins(a)

    def groups(of: list[Any]) -> list[dict[str, Any]]:
        return [
            {"params": [of[0]], "amsgrad": True, "betas": (0.8, 0.9)},
            {"params": [of[1]], "maximize": True},
            {"params": [of[2]], "weight_decay": 0.3, "decoupled_weight_decay": True},
        ]

    ours, theirs = instep.torch.Adam(groups(a)), torch.optim.Adam(groups(b))
    train((ours, a), (theirs, b), steps=5)
    assert furthest(a, b) < 1e-6


def test_parameters_and_groups_come_and_go() -> None:
    a = parameters(((5,), (4,), (3, 2)))
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    train((ours, a), (theirs, b))
    for optimizer, params in ((ours, a), (theirs, b)):
        optimizer.param_groups[0]["params"] = params[1:]
    train((ours, a), (theirs, b))
    for optimizer, params in ((ours, a), (theirs, b)):
        optimizer.param_groups[0]["params"] = params[::-1]
    train((ours, a), (theirs, b))
    assert furthest(a, b) < 1e-6
    assert ours.state[a[0]]["step"] == theirs.state[b[0]]["step"] == 6
    ours.param_groups.clear()
    ours.step()


class Held(dict):  # type: ignore[type-arg]
    """Another kind of dict."""


def _as_tuple(optimizer: Any) -> None:
    optimizer.param_groups = tuple(optimizer.param_groups)


def _as_subclass(optimizer: Any) -> None:
    optimizer.param_groups = [Held(group) for group in optimizer.param_groups]


def _as_user_dicts(optimizer: Any) -> None:
    optimizer.param_groups = [UserDict(group) for group in optimizer.param_groups]
    optimizer.state = UserDict(optimizer.state)


def _with_a_list_of_betas(optimizer: Any) -> None:
    optimizer.param_groups[0]["betas"] = [0.9, 0.999]


@pytest.mark.parametrize("change", [_as_tuple, _as_subclass, _as_user_dicts, _with_a_list_of_betas])
def test_other_containers_are_read_at_every_step(change: Any) -> None:
    a, b = parameters(), parameters()
    ours, usual = instep.torch.Adam(a), instep.torch.Adam(b)
    train((ours, a), (usual, b))
    change(ours)
    train((ours, a), (usual, b))
    for optimizer, params in ((ours, a), (usual, b)):
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.state[params[0]]["exp_avg"] = torch.ones(5, 4)
        betas = optimizer.param_groups[0]["betas"]
        if isinstance(betas, list):
            betas[0] = 0.5
        else:
            optimizer.param_groups[0]["betas"] = (0.5, 0.999)
    train((ours, a), (usual, b))
    assert same(a, b)
