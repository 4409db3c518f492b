"""Stored formats of instep.torch in dicts, files and copies, and on the way to ``torch.optim`` and back."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from kinds import KINDS  # noqa: E402
from torch_stored import FORMATS, MOMENTUM, SHAPES, make  # noqa: E402
from torch_twins import (  # noqa: E402
    IN_TORCH,
    RULES,
    array_of,
    bits,
    give,
    held,
    one,
    parameters,
    train,
    twins,
)

import instep  # noqa: E402
import instep.torch  # noqa: E402


def through_a_file(state_dict: Any) -> Any:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("stored", FORMATS)
@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_has_the_same_bits(name: str, stored: str) -> None:
    whole, a = make(name, stored, seed=2**63 + 5)
    train((whole, a), steps=4)
    resumed, b = make(name, stored)
    with torch.no_grad():
        for p, q in zip(a, b, strict=True):
            q.copy_(p)
    resumed.load_state_dict(through_a_file(whole.state_dict()))
    assert resumed.seed == 2**63 + 5
    train((whole, a), (resumed, b), steps=3)
    assert held(resumed) == held(whole)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("stored", FORMATS)
def test_copies_go_on_alike(stored: str, how: Any) -> None:
    optimizer, a = make("AdamW", stored, seed=9, rounding="stochastic", min_8bit_size=100)
    train((optimizer, a))
    other = how(optimizer)
    for name in ("state_dtype", "rounding", "seed", "param_rounding", "master_bits"):
        assert getattr(other, name) == getattr(optimizer, name)
    assert other.min_8bit_size == 100
    train((optimizer, a), (other, other.param_groups[0]["params"]))
    assert held(other) == held(optimizer)


def test_pickles_of_old_versions() -> None:
    optimizer, a = make("Adam", "8bit")
    old = optimizer.__getstate__()
    for name in ("rounding", "seed", "param_rounding", "master_bits", "min_8bit_size"):
        del old[name]
    old["state_dtype"] = torch.float32
    other = instep.torch.Adam.__new__(instep.torch.Adam)
    other.__setstate__(old)
    assert (other.state_dtype, other.seed, other.rounding) == (torch.float32, 0, "stochastic")
    train((other, a))


def test_the_seed_is_beside_what_torch_reads() -> None:
    p = one()
    ours, theirs = instep.torch.Adam([p], seed=4), torch.optim.Adam([p])
    taken = ours.state_dict()
    assert list(taken) == [*theirs.state_dict(), "seed"]
    theirs.load_state_dict(taken)
    ours.seed = 6
    ours.load_state_dict(theirs.state_dict())  # has none
    assert ours.seed == 6
    ours.load_state_dict(taken)
    assert ours.seed == 4
    for wrong in (-1, 2**64, 0.5, "7", None, True):
        before = held(ours)
        group = {**taken["param_groups"][0], "lr": 7.0}
        with pytest.raises((TypeError, ValueError), match=r"^seed must be an int from 0 to 2"):
            ours.load_state_dict({**taken, "param_groups": [group], "seed": wrong})
        assert (held(ours), ours.seed) == (before, 4)


def test_hooks_see_the_seed() -> None:
    optimizer = instep.torch.Adam([one()], seed=4)
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, found: seen.append(found["seed"]))
    optimizer.state_dict()
    optimizer.register_load_state_dict_pre_hook(lambda _, given: {**given, "seed": 8})
    optimizer.load_state_dict(optimizer.state_dict())
    assert (seen, optimizer.seed) == ([4, 4], 8)


# torch's SGD and Muon take a missing momentum for that of a first step.
@pytest.mark.parametrize("stored", ["8bit", "random float16 model"])
@pytest.mark.parametrize("name", sorted(set(IN_TORCH) - {"SGD", "Muon"}))
def test_torch_raises_instead_of_training_on_codes(name: str, stored: str) -> None:
    ours, a = make(name, stored)
    train((ours, a))
    b = twins(a)
    theirs = getattr(torch.optim, name)(b)
    theirs.load_state_dict(ours.state_dict())
    give(b)
    before = [bits(p) for p in b]
    is_plain = not any(
        key.endswith(("_code", "_root")) for own in ours.state.values() for key in own
    )
    kinds = KINDS[name].values()
    assert is_plain != any(k.eight_bits if stored == "8bit" else k.root for k in kinds)
    if not is_plain:
        with pytest.raises(KeyError):
            theirs.step()
        assert [bits(p) for p in b] == before
    theirs.load_state_dict(instep.torch.decoded(ours.state_dict()))
    theirs.step()


@pytest.mark.parametrize("name", IN_TORCH)
def test_decoded_is_torchs_form(name: str) -> None:
    ours, a = make(name, "24 bits")
    train((ours, a))
    found = instep.torch.decoded(ours.state_dict())
    b = twins(a)
    theirs = getattr(torch.optim, name)(b, **MOMENTUM.get(name, {}))
    train((theirs, b), steps=1)
    assert list(found) == list(theirs.state_dict())
    for k, p in enumerate(b):
        assert found["state"][k].keys() == theirs.state[p].keys()
        for key, value in found["state"][k].items():
            assert value.shape == theirs.state[p][key].shape
    theirs.load_state_dict(found)
    again = getattr(instep.torch, name)(twins(a), **MOMENTUM.get(name, {}))
    again.load_state_dict(found)
    assert all(state.keys() <= theirs.state[b[0]].keys() for state in again.state.values())


def test_decoded_numbers() -> None:
    ours, a = make("Adam", "8bit")
    train((ours, a))
    states, taken = ours.state[a[0]], ours.state_dict()
    found = instep.torch.decoded(taken)["state"]
    for key in ("exp_avg", "exp_avg_sq"):
        codes, units = array_of(states[key + "_code"]), array_of(states[key + "_unit"])
        assert array_of(found[0][key]).tobytes() == instep.storage.decode(codes, units).tobytes()
        assert found[1][key] is ours.state[a[1]][key]  # plain already
    assert taken.keys() == {"state", "param_groups", "seed"}  # the argument stays as it was
    assert "exp_avg_code" in taken["state"][0]
    half, b = make("Adam", "random float16 model")
    train((half, b))
    root = half.state[b[0]]["exp_avg_sq_root"]
    numbers = instep.torch.decoded(half.state_dict())["state"][0]["exp_avg_sq"]
    assert bits(numbers) == bits(root.float() * root.float())


def test_decoded_leaves_the_rest_alone() -> None:
    p = one()
    theirs = torch.optim.Adam([p])
    theirs.step()
    taken = theirs.state_dict()
    taken["state"][0]["note"] = {"text": "x"}
    taken["state"]["epoch"] = 3
    found = instep.torch.decoded(taken)
    assert found == taken
    assert found["state"][0]["exp_avg"] is taken["state"][0]["exp_avg"]
    for wrong, error in (
        (None, "^the state dict must be a dict, got None"),
        ({"param_groups": []}, "^the state dict must have the key 'state', got 'param_groups'"),
        ({"state": []}, "^'state' of the state dict must be a dict, got a list"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            instep.torch.decoded(wrong)
    codes = {"m_code": torch.zeros(3), "m_unit": torch.zeros(1)}
    with pytest.raises(TypeError, match=r"^state 'm_code' of parameter 0 must be .* torch.int8 or"):
        instep.torch.decoded({"state": {0: codes}})


def test_decoded_goes_to_instep() -> None:
    ours, a = make("Adam", "8bit to nearest")
    train((ours, a), steps=1)
    plain = instep.Adam([array_of(p) for p in a], state_dtype="8bit")
    decoded = instep.torch.decoded(ours.state_dict())
    instep.interop.from_torch_state_dict(plain, decoded)
    states = ours.state[a[0]]
    for key in ("exp_avg", "exp_avg_sq"):
        assert array_of(states[key + "_code"]).tobytes() == plain.state["0"][key].tobytes()
    with pytest.raises(ValueError, match=r"unknown: 'exp_avg_code'"):
        instep.interop.from_torch_state_dict(plain, ours.state_dict())
    with pytest.raises(ValueError, match=r"in the form of torch.optim; pass it to"):
        plain.load_state_dict(ours.state_dict())


# ---- second moments in float16 that are no roots: dicts of torch.optim, and of old versions ---------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stored", [None, torch.float16, torch.bfloat16, torch.float32, "8bit"])
def test_second_moments_in_float16_are_converted(stored: Any, dtype: Any) -> None:
    if dtype == torch.float64 and stored == "8bit":
        return  # refused
    old = parameters(SHAPES, torch.float16)
    theirs = torch.optim.Adam(old)
    train((theirs, old))
    given = theirs.state_dict()
    a, b = ([torch.nn.Parameter(p.detach().to(dtype, copy=True)) for p in old] for _ in range(2))
    ours, by_hand = (instep.torch.Adam(params, state_dtype=stored) for params in (a, b))
    ours.load_state_dict(given)
    expected = copy.deepcopy(given)
    for states in expected["state"].values():
        values = states.pop("exp_avg_sq")
        to = dtype if stored is None else stored
        if to == "8bit" and values.numel() < 4096:
            to = torch.float32
        if to == torch.float16:
            states["exp_avg_sq_root"] = values.double().sqrt().half()
        elif to == "8bit":
            parts = instep.storage.encode(array_of(values), signed=False)
            for part, array in zip(("code", "unit"), parts, strict=True):
                states[f"exp_avg_sq_{part}"] = torch.from_numpy(array)
        else:
            states["exp_avg_sq"] = values.to(to)
    by_hand.load_state_dict(expected)
    train((ours, a), (by_hand, b), steps=2)
    assert held(ours) == held(by_hand)
    assert "exp_avg_sq" in given["state"][0]  # the argument stays as it was


def test_a_skipped_step_takes_a_conversion_back() -> None:
    old = parameters(SHAPES, torch.float16)
    theirs = torch.optim.Adam(old)
    train((theirs, old))
    ours = instep.torch.Adam(old, nonfinite="skip")
    ours.load_state_dict(theirs.state_dict())
    before = held(ours)
    give(old)
    old[0].grad[0] = float("nan")
    ours.step()
    assert held(ours) == before
    train((ours, old), steps=1)
    assert "exp_avg_sq" not in ours.state[old[0]]


def test_negative_second_moments_are_named() -> None:
    p = one(70, 70)
    optimizer = instep.torch.Adam([p], state_dtype="8bit")
    moments = torch.full((70, 70), -1.0, dtype=torch.float16)
    optimizer.state[p] = {"step": 3, "exp_avg": torch.zeros(70, 70), "exp_avg_sq": moments}
    with pytest.raises(
        ValueError, match=r"^state 'exp_avg_sq' of '0' must have numbers of at least 0"
    ):
        optimizer.step()
    assert optimizer.state[p]["exp_avg_sq"] is moments
