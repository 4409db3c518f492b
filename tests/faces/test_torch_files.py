"""State dicts, files and copies of instep.torch's optimizers."""

from __future__ import annotations

import copy
import io
import pickle
import time
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch_twins import (  # noqa: E402
    FULL,
    IN_TORCH,
    RULES,
    default_dtype,
    furthest,
    give,
    held,
    parameters,
    same,
    shapes_for,
    train,
    twins,
)

import instep.torch  # noqa: E402


def _pair(name: str, dtype: Any = torch.float64, **more: Any) -> tuple[Any, ...]:
    a = parameters(shapes_for(name), dtype)
    b = twins(a)
    options = FULL.get(name, {}) | more
    return a, getattr(instep.torch, name)(a, **options), b, getattr(torch.optim, name)(b, **options)


@pytest.mark.parametrize("name", IN_TORCH)
def test_training_goes_on_in_either(name: str) -> None:
    # Muon of torch.optim computes in bfloat16.
    tolerance = 2e-2 if name == "Muon" else 1e-12
    with default_dtype(torch.float64):
        a, ours, b, theirs = _pair(name)
        train((ours, a), (theirs, b))
        for _ in range(2):
            mine, plain = ours.state_dict(), theirs.state_dict()
            assert mine["param_groups"] == plain["param_groups"]
            assert mine["state"].keys() == plain["state"].keys()
            ours.load_state_dict(plain)
            theirs.load_state_dict(mine)
            with torch.no_grad():
                for p, q in zip(a, b, strict=True):
                    kept = p.clone()
                    p.copy_(q)
                    q.copy_(kept)
            train((ours, a), (theirs, b))
            assert furthest(a, b) < tolerance


@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_has_the_same_bits(name: str) -> None:
    # LARS and LAMB have trust ratios by tensor; Prodigy shares numbers among all parameters.
    a = parameters(shapes_for(name))
    whole = getattr(instep.torch, name)(a, **FULL.get(name, {}))
    train((whole, a), steps=4)
    b = twins(a)
    resumed = getattr(instep.torch, name)(b, lr=0.5, **FULL.get(name, {}))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert held(resumed) == held(whole)
    train((whole, a), (resumed, b), steps=4)
    assert held(resumed) == held(whole)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", RULES)
def test_copies_are_independent(name: str, how: Any) -> None:
    a = parameters(shapes_for(name))
    optimizer = getattr(instep.torch, name)(a, clip_norm=0.5, nonfinite="skip")
    train((optimizer, a))
    give(a)
    a[0].grad.fill_(float("nan"))
    optimizer.step()
    other = how(optimizer)
    b = other.param_groups[0]["params"]
    assert type(other) is type(optimizer)
    assert (other.clip_norm, other.nonfinite, other.skipped_steps) == (0.5, "skip", 1)
    assert held(other) == held(optimizer)
    before = held(optimizer)
    train((other, b))
    assert held(optimizer) == before
    train((optimizer, a))
    assert held(other) == held(optimizer)


def test_dicts_of_old_versions() -> None:
    for name in ("Adam", "Adagrad", "NAdam", "ASGD", "Rprop"):
        a, ours, b, theirs = _pair(name, torch.float32)
        train((ours, a), (theirs, b))
        old = ours.state_dict()
        for states in old["state"].values():
            states["step"] = states["step"].item()
        for group in old["param_groups"]:
            for key in ("foreach", "maximize", "capturable", "differentiable", "fused"):
                group.pop(key, None)
        ours.load_state_dict(old)
        assert all(isinstance(s["step"], torch.Tensor) for s in ours.state.values())
        train((ours, a), (theirs, b))
        assert furthest(a, b) < 1e-6
        assert ours.param_groups[0]["maximize"] is False


def test_states_keep_their_dtype() -> None:
    # torch.optim casts them to bfloat16: https://github.com/pytorch/pytorch/issues/43706
    a = parameters(dtype=torch.bfloat16)
    optimizer = instep.torch.Adam(a, state_dtype=torch.float32)
    train((optimizer, a))
    for more in ({"state_dtype": torch.float32}, {}):
        b = twins(a)
        other = instep.torch.Adam(b, **more)
        other.load_state_dict(optimizer.state_dict())
        assert {v.dtype for s in other.state.values() for v in s.values()} == {torch.float32}
        assert held(other) == held(optimizer)


def test_float64_states_become_float32() -> None:
    b = parameters(dtype=torch.float64)
    theirs = torch.optim.Adam(b)
    train((theirs, b))
    a = [torch.nn.Parameter(p.detach().float()) for p in b]
    ours = instep.torch.Adam(a)
    ours.load_state_dict(theirs.state_dict())
    train((ours, a), (theirs, b))
    assert furthest(a, [p.float() for p in b]) < 1e-6
    assert ours.state[a[0]]["exp_avg"].dtype == torch.float32


def test_the_given_dict_stays_as_it_was() -> None:
    for source in (torch.optim.NAdam, instep.torch.NAdam):
        b = parameters()
        theirs = source(b)
        train((theirs, b))
        given = copy.deepcopy(theirs.state_dict())
        kept = copy.deepcopy(given)
        a = twins(b)
        ours = instep.torch.NAdam(a)
        ours.load_state_dict(given)
        ours.param_groups[0]["lr"] = 5.0
        train((ours, a))
        assert str(given) == str(kept)


def test_the_dict_of_an_optimizer_lives_on() -> None:
    # state_dict() has the tensors themselves, as in torch.optim.
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    taken = optimizer.state_dict()
    assert taken["state"][0]["exp_avg"] is optimizer.state[a[0]]["exp_avg"]
    optimizer.load_state_dict(taken)
    assert taken["state"][0]["exp_avg"] is not optimizer.state[a[0]]["exp_avg"]


def _named(params: list[Any], *order: str) -> Any:
    names = dict(zip("xyz", params, strict=True))
    return instep.torch.Adam([(name, names[name]) for name in order])


def test_names_decide() -> None:
    a = parameters(((5,), (5,), (5,)))
    whole = _named(a, *"xyz")
    train((whole, a))
    b = twins(a)
    other = _named(b, *"zxy")
    other.load_state_dict(whole.state_dict())
    assert other.param_groups[0]["param_names"] == ["z", "x", "y"]
    train((whole, a), (other, b))
    assert same(a, b)
    unnamed = instep.torch.Adam(twins(a))
    unnamed.load_state_dict(whole.state_dict())  # by order
    assert unnamed.param_groups[0]["param_names"] == ["x", "y", "z"]


def test_other_names_are_refused() -> None:
    a = parameters(((5,), (5,), (5,)))
    whole = _named(a, *"xyz")
    train((whole, a))
    given = whole.state_dict()
    given["param_groups"][0]["param_names"] = ["x", "y", "w"]
    before = held(whole)
    missing = "'param_names' of group 0 must be .*; missing: 'z'; unknown: 'w'"
    with pytest.raises(ValueError, match=missing):
        whole.load_state_dict(given)
    assert held(whole) == before


GARBAGE: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "an empty dict": {},
    "no groups": {"state": {}, "param_groups": []},
    "groups of numbers": {"state": {}, "param_groups": [5]},
    "an empty group": {"state": {}, "param_groups": [{}]},
    "too few parameters": {"state": {}, "param_groups": [{"params": [0]}]},
    "a number as states": {"state": {0: 5}, "param_groups": [{"params": [0, 1, 2]}]},
    "states of a number": {"state": 5, "param_groups": [{"params": [0, 1, 2]}]},
    "no step": {
        "state": {0: {"exp_avg": torch.zeros(5, 4)}},
        "param_groups": [{"params": [0, 1, 2]}],
    },
    "no number": {
        "state": {0: {"step": "x", "exp_avg": torch.zeros(5, 4)}},
        "param_groups": [{"params": [0, 1, 2]}],
    },
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_changes_nothing(what: str) -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    before = held(optimizer)
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError)):
        optimizer.load_state_dict(GARBAGE[what])
    assert held(optimizer) == before
    train((optimizer, a))


def test_an_error_in_a_hook_changes_nothing() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    given, before = optimizer.state_dict(), held(optimizer)
    given["param_groups"][0]["lr"] = 7.0

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    handle = optimizer.register_load_state_dict_post_hook(fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            optimizer.load_state_dict(given)
        assert held(optimizer) == before
    handle.remove()
    optimizer.load_state_dict(given)
    assert optimizer.param_groups[0]["lr"] == 7.0


def test_hooks_of_state_dicts() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    log: list[str] = []

    def change(_: Any, given: Any) -> Any:
        log.append("load pre")
        given["param_groups"][0]["lr"] = 0.25
        return given

    def loaded(o: Any) -> None:
        log.append("load post")
        assert o.state[a[0]]["step"] == 3  # the states are there

    optimizer.register_state_dict_pre_hook(lambda o: log.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, d: log.append("post"))
    optimizer.register_load_state_dict_pre_hook(change)
    optimizer.register_load_state_dict_post_hook(loaded)
    optimizer.load_state_dict(optimizer.state_dict())
    assert log == ["pre", "post", "load pre", "load post"]
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_what_else_a_dict_has_is_kept() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    given = optimizer.state_dict()
    given["state"]["extra"] = {"epoch": 3}
    given["state"][0]["note"] = {"mean": torch.ones(2), "text": "x"}
    given["param_groups"][0]["tag"] = "first"
    optimizer.load_state_dict(given)
    train((optimizer, a))
    again = optimizer.state_dict()
    assert again["state"]["extra"] == {"epoch": 3}
    assert again["state"][0]["note"]["text"] == "x"
    assert torch.equal(again["state"][0]["note"]["mean"], torch.ones(2))
    assert again["param_groups"][0]["tag"] == "first"


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.bfloat16, {"param_rounding": "stochastic"}),
        (torch.bfloat16, {"state_dtype": "8bit", "min_8bit_size": 0, "master_bits": 24}),
    ],
)
def test_checkpoints_of_torch_distributed(dtype: Any, options: Any) -> None:
    dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    for name in RULES:
        make, bias = getattr(instep.torch, name), name != "Muon"
        model = torch.nn.Linear(3, 2, bias=bias, dtype=dtype)
        start = twins(list(model.parameters()))
        optimizer = make(model.parameters(), **options)
        dcp.get_optimizer_state_dict(model, optimizer)  # takes a step with lr = 0
        assert same(list(model.parameters()), start), name
        assert list(optimizer.state) in ([], list(model.parameters())), name
        params = list(model.parameters())
        train((optimizer, params))
        saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer))
        other = copy.deepcopy(model)
        resumed = make(other.parameters(), lr=0.7, **options)
        dcp.set_optimizer_state_dict(other, resumed, saved)
        train((optimizer, params), (resumed, list(other.parameters())))
        assert held(resumed)[:2] == held(optimizer)[:2], name


def test_a_dry_step_of_ftrl_leaves_it_fresh() -> None:
    a = parameters()
    b = twins(a)
    dry, fresh = instep.torch.FTRL(a, lr=0.0), instep.torch.FTRL(b, lr=0.1)
    train((dry, a), steps=2)
    assert same(a, b)
    assert [s["step"].item() for s in dry.state.values()] == [0, 0, 0]
    dry.param_groups[0]["lr"] = 0.1
    train((dry, a), (fresh, b))
    assert held(dry) == held(fresh)
    dry.param_groups[0]["lr"] = 0.0
    before = held(dry)
    train((dry, a))
    assert held(dry) == before


def test_loading_takes_time_by_the_number_of_parameters() -> None:
    # torch.optim's takes time by its square: 8 times as many parameters take 40 times as long.
    def seconds(count: int) -> float:
        params = parameters([(2,)] * count)
        optimizer = instep.torch.Adam(params)
        train((optimizer, params), steps=1)
        given = optimizer.state_dict()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            optimizer.load_state_dict(given)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(8000) < 20 * seconds(1000)
