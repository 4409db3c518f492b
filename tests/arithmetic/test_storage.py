"""States in 8 and 16 bits, rounding at random and remainders equal the reference bit by bit: rules x formats x levels
x threads x sizes. The digests (digests.py) have every choice of options in most formats at every level."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from cases import (
    DTYPES,
    FEW,
    LEVELS,
    MATRIX_VARIANTS,
    SMALL_SIZES,
    THREADS,
    VARIANTS,
    Guarded,
    Variant,
    labels,
    numbers,
    rng_for,
    use_level,
)
from formulas import RULES
from kinds import KINDS
from reference import Reference, assert_follows
from storage_cases import BY_LABEL, LARGE_SIZES, SIZES, STORED, Stored

import instep
from instep import _core

STEPS = 3


def test_the_kinds_of_states_are_those_of_the_table() -> None:
    rules = _core.rules()
    for name, kinds in KINDS.items():
        found = rules[getattr(instep, name)._rule]["kinds"]
        wanted = {
            state: {"number": number, **kind._asdict()}
            for number, (state, kind) in enumerate(kinds.items())
        }
        assert {state: found[state] for state in wanted} == wanted, name
        scalars = rules[getattr(instep, name)._rule]["scalar_states"]
        assert found.keys() == {*rules[getattr(instep, name)._rule]["states"]} - {*scalars}


@lru_cache(maxsize=2)
def expected(
    variant: Variant, label: str, sizes: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], Reference]:
    """The arrays and the reference at its end; cached for the tests that differ in level or threads."""
    stored = BY_LABEL[label]
    rng = rng_for(label, sizes)
    start = {f"size {n}": numbers(rng, n, stored.dtype) for n in sizes}
    reference = Reference(
        variant.rule.__name__, start, **{**variant.options, **(stored.of(variant) or {})}
    )
    grads = []
    for step in range(STEPS):
        # Numbers of another magnitude in each step: codes and units go up and down.
        given: dict[str, Any] = {
            name: numbers(rng, p.size, DTYPES[(step + 1) % 4]) * 10 ** (1 - step)
            for name, p in start.items()
        }
        given[f"size {sizes[step]}"] = None
        grads.append(given)
        reference.step(given)
    return start, grads, reference


def check(variant: Variant, label: str, sizes: tuple[int, ...]) -> None:
    start, grads, reference = expected(variant, label, sizes)
    guarded = Guarded()
    params = {name: guarded.put(p, offset=i % 5) for i, (name, p) in enumerate(start.items())}
    optimizer = variant.make(params, **BY_LABEL[label].of(variant) or {})
    for grad in grads:
        optimizer.step(grad)
    assert_follows(optimizer, params, reference)
    guarded.check()


# Each rule in every format at one level, in turn.
ALL = [
    (variant, stored.label, LEVELS[(k + n) % len(LEVELS)])
    for k, variant in enumerate(FEW)
    for n, stored in enumerate(STORED)
    if stored.of(variant) is not None
]


@pytest.mark.parametrize(("variant", "label", "level"), ALL, ids=labels)
def test_every_rule_in_every_format(variant: Variant, label: str, level: str) -> None:
    use_level(level)
    check(variant, label, tuple(SIZES))


def test_every_rule_has_most_formats() -> None:
    for variant in FEW:
        formats = {label for v, label, _ in ALL if v is variant}
        assert len(formats) > (3 if variant.options.get("centered") else len(STORED) // 2)


# The rules whose loops the core has in more forms, and one with sums.
HOT = ["Momentum", "RMSprop", "Adam", "AdamW-amsgrad", "Lion", "LAMB"]
AT_EACH_LEVEL = [
    (next(v for v in VARIANTS if v.label == name), stored.label, level)
    for name in HOT
    for stored in STORED
    for level in LEVELS
]


@pytest.mark.parametrize(("variant", "label", "level"), AT_EACH_LEVEL, ids=labels)
def test_every_size_at_every_level(variant: Variant, label: str, level: str) -> None:
    use_level(level)
    check(variant, label, tuple(SMALL_SIZES[::2] if label.startswith("float64") else SMALL_SIZES))


THREADED = [
    (next(v for v in VARIANTS if v.label == name), stored.label, threads)
    for k, name in enumerate(["Momentum", "AdamW-amsgrad", "LAMB", "Prodigy", "Adan"])
    for n, stored in enumerate(STORED)
    if (k + n) % 2 == 0
    for threads in THREADS[1:]
]


@pytest.mark.parametrize(("variant", "label", "threads"), THREADED, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_every_thread_count(variant: Variant, label: str, threads: int) -> None:
    """No block of codes is cut between threads."""
    if BY_LABEL[label].of(variant) is None:
        return
    instep.set_num_threads(threads)
    check(variant, label, tuple(LARGE_SIZES))


MATRICES = [(3, 5), (0, 4), (1, 65), (70, 9), (9, 70)]


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("variant", MATRIX_VARIANTS[-2:], ids=labels)
def test_rules_of_matrices(variant: Variant, stored: Stored) -> None:
    rng = rng_for("matrices", stored.label)
    start = {str(shape): numbers(rng, shape, stored.dtype) for shape in MATRICES}
    params = {name: np.array(p, order="CF"[i % 2]) for i, (name, p) in enumerate(start.items())}
    storing = stored.of(variant) or {}
    optimizer = variant.make(params, **storing)
    reference = Reference(variant.rule.__name__, start, **{**variant.options, **storing})
    for _ in range(STEPS):
        grads = {name: numbers(rng, p.shape, "f4") for name, p in start.items()}
        optimizer.step(grads)
        reference.step(grads)
    assert_follows(optimizer, params, reference)


# ---- special numbers ---------------------------------------------------------------------------------------------

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-39, 3.4028235e38, -3.4028235e38]
SPECIAL += [6e4, 1e19, 2e-23]  # whose squares are near the ends of float32


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("label", ["Momentum", "AdamW-amsgrad", "Adamax", "ScheduleFreeAdamW"])
def test_special_numbers(label: str, stored: Stored) -> None:
    """One in each block, in parameters and in gradients; blocks of nothing but one; then ordinary gradients again."""
    variant = next(v for v in VARIANTS if v.label == label)
    rng = rng_for("special", stored.label)
    values = np.float32(SPECIAL)
    ordinary = rng.standard_normal((4, len(values), 64)).astype("f4")
    p, g = ordinary[0], ordinary[1]
    p[:, 7] = np.roll(values, 1)
    g[:, 40] = values
    whole = np.repeat(values, 64).reshape(len(values), 64)
    with np.errstate(all="ignore"):
        start = {"w": np.concatenate([p, p]).astype(stored.dtype)}
    params = {"w": start["w"].copy()}
    storing = stored.of(variant) or {}
    optimizer = variant.make(params, **storing)
    reference = Reference(variant.rule.__name__, start, **{**variant.options, **storing})
    zeros = np.zeros_like(whole)
    for first, second in ((ordinary[2], zeros), (g, whole), (zeros, zeros), (ordinary[3], g)):
        grads = {"w": np.concatenate([first, second])}
        optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, params, reference)


def test_the_rules_of_these_tests_are_there() -> None:
    assert {v.rule.__name__ for v, *_ in ALL} == RULES.keys() - {"Muon"}
    assert len(LEVELS) < 2 or {level for *_, level in ALL} == {*LEVELS}
