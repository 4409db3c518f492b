"""What surrounds a step with narrow states and remainders: layouts, sums, averages, copies, guards, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    CHUNK,
    DTYPES,
    FEW,
    LEVELS,
    MATRIX_VARIANTS,
    VARIANTS,
    Variant,
    labels,
    numbers,
    rng_for,
    use_level,
)
from combined_reference import assert_combined_follows, made
from formulas import RULES
from reference import Reference, assert_follows, assert_same_bits
from resumed import WAYS, resumed
from rounding import join
from storage_cases import BY_LABEL, STORED, Stored
from twins import same_number

import instep


def variant_named(label: str) -> Variant:
    return next(v for v in VARIANTS if v.label == label)


# ---- layouts -----------------------------------------------------------------------------------------------------


def with_gaps(array: np.ndarray) -> np.ndarray:
    room = np.zeros([3 * n for n in array.shape], array.dtype)
    view = room[(slice(None, None, 3),) * array.ndim]
    view[...] = array
    return view


LAYOUTS = {
    "Fortran": lambda a: np.array(a, order="F"),
    "gaps": with_gaps,
    "backwards": lambda a: np.flip(np.flip(a).copy()),
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "transposed": lambda a: np.swapaxes(np.swapaxes(a, 0, -1).copy(), 0, -1),
}


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    return LAYOUTS[layout](array) if array.ndim else array.copy()


SHAPES = [(), (1,), (0, 3), (65,), (5, 7), (64, 3), (3, 5, 20), (130, 127)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stored", STORED, ids=str)
def test_layouts(stored: Stored, layout: str) -> None:
    """Codes and random numbers go by the logical order; gradients have another layout than parameters."""
    variant = variant_named(["Adam", "LAMB", "AdEMAMix", "RMSprop"][len(layout) % 4])
    rng = rng_for(stored.label, layout)
    start = {str(shape): numbers(rng, shape, stored.dtype) for shape in SHAPES}
    params = {name: laid_out(p, layout) for name, p in start.items()}
    storing = stored.of(variant) or {}
    optimizer = variant.make(params, **storing)
    reference = Reference(variant.rule.__name__, start, **{**variant.options, **storing})
    others = list(LAYOUTS)
    for step in range(3):
        grads = {name: numbers(rng, p.shape, "f4") for name, p in start.items()}
        odd = {n: laid_out(g, others[(step + i) % 5]) for i, (n, g) in enumerate(grads.items())}
        optimizer.step(odd)
        reference.step(grads)
        assert_follows(optimizer, params, reference, f"at step {step}")
    for name, kept in reference.kept_states.items():
        for key, state in kept.items():
            if state.dtype is None or state.at_random:
                assert optimizer.state[name][key].flags.c_contiguous


# ---- around the rule ---------------------------------------------------------------------------------------------

AROUND = {"clip_norm": 0.7, "nonfinite": "skip", "ema_decay": 0.8}
SIZES = {"a": (CHUNK + 70,), "b": (33, 65), "c": (), "d": (4096,), "e": (0,)}


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("label", ["AdamW-amsgrad", "Adan", "LAMB"])
def test_a_run_with_everything(label: str, stored: Stored, tmp_path: Path) -> None:
    """Sums of gradients, a norm, a skipped step, absent gradients, averages, copies; the run goes on elsewhere."""
    variant, rng = variant_named(label), rng_for(label, stored.label)
    storing = stored.of(variant)
    assert storing is not None
    more = {**AROUND, **storing}
    start = {name: numbers(rng, shape, stored.dtype) for name, shape in SIZES.items()}
    copy_dtype = "f2" if stored.dtype.itemsize > 2 else None
    params = {name: p.copy() for name, p in start.items()}

    def fresh(given: dict[str, np.ndarray]) -> tuple[Any, Any]:
        copies = copy_dtype and {name: np.zeros(p.shape, copy_dtype) for name, p in given.items()}
        return variant.make(given, **more, copy_to=copies), copies

    optimizer, copies = fresh(params)
    options = {**variant.options, **more}
    reference = Reference(variant.rule.__name__, start, copy_dtype=copy_dtype, **options)
    way = WAYS[STORED.index(stored) % len(WAYS)]
    for step in range(6):
        use_level(LEVELS[step % len(LEVELS)])
        if step == 3:
            other = {name: p.copy() for name, p in params.items()}
            elsewhere, copies = fresh(other)
            optimizer = resumed(way, optimizer, elsewhere, tmp_path)
            params = optimizer.params
            if optimizer is not elsewhere:
                copies = None
        grads: dict[str, Any] = {
            n: numbers(rng, p.shape, DTYPES[(step + i) % 4])
            for i, (n, p) in enumerate(params.items())
        }
        grads["abcde"[step % 5]] = None
        if step == 1:
            grads["a"][3] = np.nan
        if step in (2, 3):
            optimizer.accumulate(grads)
            reference.accumulate(grads)
        optimizer.step(grads, grad_scale=0.5)
        reference.step(grads, 0.5)
        assert_follows(optimizer, params, reference, f"at step {step}")
        assert same_number(optimizer.grad_norm, reference.grad_norm)
        for name, copy in (copies or {}).items():
            if reference.steps[name] and (step < 3 or grads[name] is not None):
                assert_same_bits(copy, reference.copies[name], f"copy of {name} at step {step}")
    assert reference.skipped_steps == 1


@pytest.mark.parametrize("stored", [s for s in STORED if s.dtype == BFLOAT16], ids=str)
@pytest.mark.parametrize("label", ["ASGD", "ScheduleFreeSGD", "ScheduleFreeAdamW", "Adam"])
def test_averaged(label: str, stored: Stored) -> None:
    """What is shown is rounded once, from the parameter with its remainder; afterwards all bits are there again."""
    variant, rng = variant_named(label), rng_for(label, stored.label)
    options = {**(stored.of(variant) or {}), **({"ema_decay": 0.9} if label == "Adam" else {})}
    start = {"w": numbers(rng, (9, 70), BFLOAT16), "late": numbers(rng, 5, BFLOAT16)}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = variant.make(params, **options)
    reference = Reference(variant.rule.__name__, start, **{**variant.options, **options})
    for step in range(3):
        grads = {"w": numbers(rng, (9, 70), "f4"), "late": np.ones(5) if step == 2 else None}
        optimizer.step(grads)
        reference.step(grads)
        with optimizer.averaged():
            for name, wanted in reference.shown().items():
                assert_same_bits(params[name], wanted, f"{name} as shown")
        assert_follows(optimizer, params, reference, f"at step {step}")


def test_combined() -> None:
    """Each optimizer has its own seed, and numbers its parameters from 0."""
    rng = rng_for("combined")
    members = []
    for rule, label in (("Adam", "master-24-codes"), ("Momentum", "codes"), ("Adan", "mixed")):
        stored = BY_LABEL[label]
        params = {name: numbers(rng, 200, stored.dtype) for name in ("a", "b")}
        options = {**(stored.of(variant_named(rule)) or {}), "seed": len(members)}
        members.append((rule, params, options))
    combined, reference = made(members, clip_norm=1.0)
    for step in range(3):
        grads = [{n: numbers(rng, 200, "f4") for n in params} for _, params, _ in members]
        combined.step(grads)
        reference.step(grads)
        assert_combined_follows(combined, reference, f"at step {step}")


def test_formats_of_groups() -> None:
    rng = rng_for("groups")
    start = {name: numbers(rng, 5000, "f4") for name in "abcd"}
    params = {name: p.copy() for name, p in start.items()}
    own: dict[str, Any] = {
        "b": {"state_dtype": "bfloat16", "lr": 0.01},
        "c": {"state_dtype": None},
        "d": {"state_dtype": {"exp_avg": "8bit", "exp_avg_sq": np.float16}},
    }
    groups = [{"params": {name: p}, **own.get(name, {})} for name, p in params.items()]
    optimizer = instep.AdamW(groups, state_dtype="8bit", seed=6)
    reference = Reference("AdamW", start, state_dtype="8bit", seed=6, groups=own)
    for _ in range(3):
        grads = {name: numbers(rng, 5000, "f4") for name in "abcd"}
        optimizer.step([{name: g} for name, g in grads.items()])
        reference.step(grads)
    assert_follows(optimizer, params, reference)


# ---- a 32-bit master is a float32 run ----------------------------------------------------------------------------

SAME = ["codes", "bfloat16", "mixed"]


@pytest.mark.parametrize("variant", [*FEW, *MATRIX_VARIANTS[-2:]], ids=labels)
def test_a_run_with_32_bits_is_a_run_in_float32(variant: Variant) -> None:
    """With the same gradients; whatever the states' format, as these take the same random numbers."""
    shapes = (
        [(70, 9), (1, 1), (0, 4)] if variant in MATRIX_VARIANTS else [(4500,), (), (0,), (65, 3)]
    )
    averages = {} if RULES[variant.rule.__name__].average else {"ema_decay": 0.9}
    for k, storing in enumerate([{}, *(BY_LABEL[label].of(variant) for label in SAME)]):
        if storing is None:
            continue
        rng = rng_for(variant, k)
        narrow = {str(shape): numbers(rng, shape, BFLOAT16) for shape in shapes}
        wide = {name: p.astype("f4") for name, p in narrow.items()}
        more = {**averages, **storing}
        runs = [variant.make(narrow, master_bits=32, **more), variant.make(wide, **more)]
        for step in range(4):
            grads = {n: numbers(rng, p.shape, DTYPES[step]) for n, p in wide.items()}
            for optimizer in runs:
                optimizer.step(grads)
        for name, p in wide.items():
            mine, plain = (optimizer.state[name] for optimizer in runs)
            assert_same_bits(join(narrow[name], mine["remainder"]), p, name)
            for key, state in plain.items():
                assert_same_bits(mine[key], state, f"{key} of {name}")
            if averages:
                assert_same_bits(runs[0].averages[name], runs[1].averages[name])


def test_reset_remainders() -> None:
    """The parameters are then what the caller has written."""
    rng = rng_for("reset")
    w = numbers(rng, 300, BFLOAT16)
    optimizer = instep.SGD({"w": w}, lr=0.1, master_bits=24)
    reference = Reference("SGD", {"w": w}, lr=0.1, master_bits=24)
    for _ in range(2):
        for each in (optimizer, reference):
            each.step({"w": np.full(300, 0.37)})
        assert optimizer.state["w"]["remainder"].any()
        w[...] = reference.params["w"][...] = np.full(300, 2.5)
        optimizer.reset_remainders()
        reference.reset_remainders()
        assert not optimizer.state["w"]["remainder"].any()
        assert_follows(optimizer, {"w": w}, reference)
