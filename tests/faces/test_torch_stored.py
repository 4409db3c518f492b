"""Stored formats in instep.torch: the bits of NumPy, and which format a state has."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from kinds import KINDS  # noqa: E402
from torch_stored import FORMATS, shapes_of  # noqa: E402
from torch_twins import (  # noqa: E402
    RULES,
    array_of,
    bits,
    give,
    held,
    one,
    options_in_instep,
    parameters,
    same,
    train,
    twins,
)

import instep  # noqa: E402
import instep.torch  # noqa: E402
from instep import _core  # noqa: E402


def torchs_choice(name: str, optimizer: Any, arrays: Any, more: Any, dtype: Any) -> Any:
    """What instep's class is told so that it stores states as torch does: in the parameter's dtype, if it can."""
    rule = getattr(instep, name)(arrays, **more)
    keys = _core.states_of(rule._rule, rule._options(rule.param_groups[0]._settings))
    narrow = ("any", "bfloat16") if dtype == torch.bfloat16 else ("any",)
    own = {key: kind for key, kind in KINDS[name].items() if key in keys}
    stored = str(dtype).removeprefix("torch.")
    return {key: stored for key, kind in own.items() if kind.narrow in narrow}


def in_core(states: Any) -> dict[str, Any]:
    """States by instep's names."""
    found = {}
    for key, value in states.items():
        if key not in ("step", "rounding_step"):
            found[key.removesuffix("_code").removesuffix("_root")] = array_of(value)
    return found


@pytest.mark.parametrize("stored", FORMATS)
@pytest.mark.parametrize("name", RULES)
def test_the_bits_are_those_of_numpy(name: str, stored: str) -> None:
    dtype, options = FORMATS[stored]
    params = parameters(shapes_of(name), dtype)
    optimizer = getattr(instep.torch, name)(params, lr=0.01, **options)
    arrays = [array_of(p) for p in params]
    more = {"lr": 0.01, **options_in_instep(name, optimizer)}
    if dtype != torch.float32 and "state_dtype" not in options:
        more["state_dtype"] = torchs_choice(name, optimizer, arrays, more, dtype)
    plain = getattr(instep, name)(arrays, **{**options, **more})
    for step in range(4):
        give(params, seed=step)
        plain.step([array_of(p.grad) for p in params])
        optimizer.step()
    for k, p in enumerate(params):
        assert array_of(p).tobytes() == arrays[k].tobytes()
        found = in_core(optimizer.state.get(p, {}))
        for key, array in plain.state[str(k)].items():
            assert (found[key].dtype, found[key].tobytes()) == (array.dtype, array.tobytes()), key


def run(name: str = "Adam", dtype: Any = torch.float32, steps: int = 3, **options: Any) -> Any:
    """An optimizer after some steps, and its parameters."""
    params = parameters(shapes_of(name), dtype)
    optimizer = getattr(instep.torch, name)(params, lr=0.01, **options)
    train((optimizer, params), steps=steps)
    return optimizer, params


@pytest.mark.parametrize("stored", [key for key in FORMATS if "nearest" not in key])
def test_another_seed_gives_other_bits(stored: str) -> None:
    dtype, options = FORMATS[stored]
    first, again, other = (
        held(run(dtype=dtype, **{**options, "seed": seed})[0]) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_numbers_are_those_of_the_place() -> None:
    # The second group's parameters come after those of the first, whatever has a gradient.
    a = parameters(((5000,), (5000,), (5000,)))
    b = twins(a)
    whole = instep.torch.Adam(a, state_dtype="8bit")
    grouped = instep.torch.Adam([{"params": b[:1]}, {"params": b[1:2]}], state_dtype="8bit")
    grouped.add_param_group({"params": b[2:]})
    for step in range(4):
        give(a, b, seed=step)
        if step == 1:
            a[1].grad = b[1].grad = None
        whole.step()
        grouped.step()
    assert same(a, b)


NAMES = {
    "8bit": ["step", "exp_avg_code", "exp_avg_unit", "exp_avg_sq_code", "exp_avg_sq_unit"],
    torch.float16: ["step", "exp_avg", "exp_avg_sq_root"],
    torch.bfloat16: ["step", "exp_avg", "exp_avg_sq"],
    torch.float32: ["step", "exp_avg", "exp_avg_sq"],
}
DTYPES = {
    "_code": {torch.int8, torch.uint8},
    "_unit": {torch.float32},
}


@pytest.mark.parametrize("stored", NAMES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_names_and_dtypes(dtype: Any, stored: Any) -> None:
    optimizer, params = run(dtype=dtype, state_dtype=stored, steps=1)
    assert list(optimizer.state[params[0]]) == NAMES[stored]
    small = torch.float32 if stored == "8bit" else stored
    assert list(optimizer.state[params[2]]) == NAMES[small]
    for key, value in optimizer.state[params[0]].items():
        if key != "step":
            assert value.dtype in DTYPES.get(key[-5:], {stored})
            assert value.shape == ((77,) if key.endswith("_unit") else params[0].shape)
    assert optimizer.state[params[2]]["exp_avg"].dtype == small


@pytest.mark.parametrize(
    ("name", "dtype", "options", "expected"),
    [
        ("Adam", torch.bfloat16, {}, {"exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16}),
        ("Adam", torch.float16, {}, {"exp_avg": torch.float16, "exp_avg_sq_root": torch.float16}),
        (
            "Adam",
            torch.float32,
            {"state_dtype": {"exp_avg": "8bit", "exp_avg_sq": "bfloat16"}},
            {"exp_avg_code": torch.int8, "exp_avg_sq": torch.bfloat16},
        ),
        (
            "AdamW",
            torch.float32,
            {"state_dtype": "8bit", "amsgrad": True},
            {"exp_avg_sq_code": torch.uint8, "max_exp_avg_sq": torch.float32},
        ),
        (
            "AdamW",
            torch.bfloat16,
            {"state_dtype": {"exp_avg": None, "exp_avg_sq": torch.float16}, "amsgrad": True},
            {
                "exp_avg": torch.bfloat16,
                "exp_avg_sq_root": torch.float16,
                "max_exp_avg_sq": torch.bfloat16,
            },
        ),
        ("Adagrad", torch.float32, {"state_dtype": torch.float16}, {"sum_root": torch.float16}),
        ("Adagrad", torch.float16, {}, {"sum_root": torch.float16}),
        ("Rprop", torch.bfloat16, {"state_dtype": "8bit"}, {"prev": torch.float32}),
        ("RMSprop", torch.bfloat16, {}, {"square_avg": torch.bfloat16}),
        (
            "RMSprop",
            torch.bfloat16,
            {"centered": True},
            {"square_avg": torch.float32, "grad_avg": torch.float32},
        ),
        ("Rprop", torch.float16, {}, {"prev": torch.float32, "step_size": torch.float32}),
        ("Rprop", torch.bfloat16, {}, {"prev": torch.bfloat16, "step_size": torch.bfloat16}),
        ("ASGD", torch.bfloat16, {}, {"ax": torch.float32}),
        ("ASGD", torch.float32, {"state_dtype": "8bit"}, {"ax": torch.float32}),
        ("ScheduleFreeSGD", torch.float16, {}, {"z": torch.float32}),
        (
            "ScheduleFreeAdamW",
            torch.float32,
            {"state_dtype": "8bit"},
            {"z": torch.float32, "exp_avg_sq_code": torch.uint8},
        ),
        ("SGD", torch.float32, {"state_dtype": "8bit"}, {}),
        (
            "SGD",
            torch.float32,
            {"state_dtype": "8bit", "momentum": 0.9},
            {"momentum_buffer_code": torch.int8},
        ),
        ("SGD", torch.bfloat16, {"master_bits": 24}, {"remainder": torch.int8}),
        ("SGD", torch.bfloat16, {"master_bits": 32}, {"remainder": torch.int16}),
    ],
)
def test_formats(name: str, dtype: Any, options: Any, expected: Any) -> None:
    optimizer, params = run(name, dtype, 2, **options)
    found = optimizer.state.get(params[0], {})
    others = ("step", "rounding_step", "eta", "mu", "lr_max", "weight_sum")
    ours = {k: v.dtype for k, v in found.items() if not k.endswith("_unit") and k not in others}
    assert expected.items() <= ours.items()
    assert bool(ours) == bool(expected)


@pytest.mark.parametrize(
    ("name", "dtype", "options", "error"),
    [
        (
            "Adam",
            torch.float64,
            {"state_dtype": "8bit"},
            "^state_dtype must be None or a dtype for the state 'exp_avg' of '0', as 8 bits are for",
        ),
        (
            "ASGD",
            torch.float32,
            {"state_dtype": {"ax": torch.bfloat16}},
            "^state_dtype must be None for the state 'ax' of '0', which is as exact as the parameter",
        ),
        (
            "RMSprop",
            torch.float32,
            {"state_dtype": "8bit", "centered": True},
            "^state_dtype must be None or torch.float32 for the state 'square_avg' of '0', got '8bit'",
        ),
        (
            "Prodigy",
            torch.float32,
            {"state_dtype": torch.float16},
            "^state_dtype must be None, torch.float32 or torch.bfloat16 for the state 'exp_avg' of '0'",
        ),
        (
            "SGD",
            torch.float32,
            {"master_bits": 24},
            "^master_bits must be None for an optimizer without a bfloat16 parameter, got 24 for",
        ),
        (
            "Adam",
            torch.float32,
            {"state_dtype": torch.float64},
            "^state 'exp_avg' of '0' must have dtype float32, in which its parameter is computed, or",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    name: str, dtype: Any, options: Any, error: str
) -> None:
    p = one(dtype=dtype)
    before = bits(p)
    optimizer = getattr(instep.torch, name)([p], **options)
    with pytest.raises(ValueError, match=error) as caught:
        optimizer.step()
    assert "\n" not in str(caught.value)
    assert not optimizer.state
    assert bits(p) == before


@pytest.mark.parametrize(("size", "is_coded"), [(4095, False), (4096, True)])
def test_the_least_size_of_states_in_8_bits(size: int, is_coded: bool) -> None:
    p = torch.nn.Parameter(torch.ones(size))
    p.grad = torch.ones(size)
    optimizer = instep.torch.Adam([p], state_dtype="8bit")
    optimizer.step()
    assert ("exp_avg_code" in optimizer.state[p]) == is_coded


def test_32_bits_need_no_random_numbers() -> None:
    error = "^param_rounding must be 'nearest' with master_bits=32"
    with pytest.raises(ValueError, match=error):
        instep.torch.SGD([one()], master_bits=32, param_rounding="stochastic")
    optimizer = instep.torch.SGD([one()], master_bits=32)
    with pytest.raises(ValueError, match=error):
        optimizer.param_rounding = "stochastic"
    assert optimizer.param_rounding == "nearest"


def test_options_are_attributes_and_hold_from_the_next_step() -> None:
    options = {
        "state_dtype": "8bit",
        "rounding": "nearest",
        "seed": 5,
        "param_rounding": "stochastic",
        "master_bits": 24,
        "min_8bit_size": 10,
    }
    docs = {inspect.getdoc(getattr(instep.torch.AdamW, name)) for name in options}
    assert len(docs) == len(options)
    given = instep.torch.AdamW([one()], **options)
    later = instep.torch.AdamW([one()])
    for name, value in options.items():
        assert getattr(given, name) == value != getattr(later, name)
        setattr(later, name, value)
        assert getattr(later, name) == value
    nearest, params = run(state_dtype="8bit", rounding="nearest")
    changed, others = run(state_dtype="8bit", steps=0)
    changed.rounding = "nearest"
    train((changed, others))
    assert held(changed) == held(nearest)
    changed.rounding = "stochastic"
    train((changed, others), (nearest, params))
    assert held(changed) != held(nearest)
    with pytest.raises(TypeError, match=r"^a parameter group must not have 'seed'"):
        changed.add_param_group({"params": [one()], "seed": 3})


def test_threads_and_layouts_change_no_bits() -> None:
    values = torch.randn(40, 60, 5, 6)
    found = set()
    for threads in (1, 2):
        instep.set_num_threads(threads)
        torch.set_num_threads(threads)
        for layout in (torch.contiguous_format, torch.channels_last):
            p = torch.nn.Parameter(values.to(torch.bfloat16).contiguous(memory_format=layout))
            optimizer = instep.torch.AdamW(
                [p], state_dtype="8bit", master_bits=24, param_rounding="stochastic"
            )
            train((optimizer, [p]))
            states = optimizer.state[p]
            assert all(v.is_contiguous() for k, v in states.items() if k != "remainder")
            assert states["remainder"].is_contiguous(memory_format=layout)
            found.add((bits(p), *map(bits, states.values())))
    assert len(found) == 1


def joined(p: Any, remainder: Any) -> Any:
    """The float32 numbers of a bfloat16 parameter with a remainder of 16 bits."""
    high = p.detach().view(torch.int16).to(torch.int32) << 16
    return (high + remainder).view(torch.float32)


@pytest.mark.parametrize("name", RULES)
def test_32_bits_train_as_float32_does(name: str) -> None:
    narrow = parameters(shapes_of(name), torch.bfloat16)
    wide = [torch.nn.Parameter(p.detach().float()) for p in narrow]
    a = getattr(instep.torch, name)(narrow, state_dtype=torch.float32, master_bits=32, lr=0.01)
    b = getattr(instep.torch, name)(wide, lr=0.01)
    for step in range(4):
        give(narrow, seed=step)
        for p, q in zip(narrow, wide, strict=True):
            q.grad = p.grad.float()
        a.step()
        b.step()
    for p, q in zip(narrow, wide, strict=True):
        rest = a.state[p]["remainder"]
        assert bits(joined(p, rest)) == bits(q)
        assert rest.any()


def test_reset_remainders() -> None:
    optimizer, params = run(dtype=torch.bfloat16, master_bits=32)
    assert any(optimizer.state[p]["remainder"].any() for p in params)
    optimizer.reset_remainders()
    assert not any(optimizer.state[p]["remainder"].any() for p in params)
    train((optimizer, params))
    assert any(optimizer.state[p]["remainder"].any() for p in params)
    plain, _ = run()
    plain.reset_remainders()  # there are none


@pytest.mark.parametrize("name", ["ASGD", "ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_averaged_brings_everything_back(name: str) -> None:
    optimizer, _ = run(
        name,
        torch.bfloat16,
        5,
        master_bits=24,
        param_rounding="stochastic",
        **({"t0": 1.0} if name == "ASGD" else {}),
    )
    before = held(optimizer)
    with optimizer.averaged():
        assert held(optimizer)[0] != before[0]
    assert held(optimizer) == before


def test_codes_are_nearly_the_numbers() -> None:
    coded, params = run(state_dtype="8bit", steps=5)
    wide, others = run(steps=5)
    for key, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        states = coded.state[params[0]]
        codes, units = (array_of(states[f"{key}_{part}"]) for part in ("code", "unit"))
        numbers = instep.storage.decode(codes, units)
        assert codes.dtype == (np.int8 if signed else np.uint8)
        exact = array_of(wide.state[others[0]][key])
        assert np.abs(numbers - exact).max() < 0.05 * np.abs(exact).max()
