"""Tables of how states and parameters may be stored, for the tests that go through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from cases import BFLOAT16, CHUNK, FEW, MATRIX_VARIANTS, Variant, takes_state_dtype
from formulas import RULES
from kept import CODED

import instep

SINGLE, HALF, DOUBLE = np.dtype("f4"), np.dtype("f2"), np.dtype("f8")
#: Around a block, a block of the core's, the least size of 8-bit states, and a chunk.
SIZES = [0, 1, 2, 63, 64, 65, 127, 129, 255, 257, 1000, 4095, 4096, 4097]
LARGE_SIZES = [CHUNK - 1, CHUNK + 1, 3 * CHUNK + 65]
MIXED = "mixed"  # a format of its own for each state, in turn


class Stored(NamedTuple):
    """Parameters of a dtype, and the options of an optimizer that say how what it keeps is stored."""

    label: str
    dtype: np.dtype
    options: dict[str, Any]

    def __str__(self) -> str:
        return self.label

    def of(self, variant: Variant) -> dict[str, Any] | None:
        """The options for a rule; None if it refuses the format."""
        options, wanted = self.options, self.options.get("state_dtype")
        if isinstance(wanted, str) and wanted == MIXED:
            rule = RULES[variant.rule.__name__]
            all_options = {**rule.defaults, **variant.options}
            used = [name for name, o in rule.states.items() if rule.has(o, all_options)]
            wanted = mixed(variant, used, self.dtype)
            options = {**options, "state_dtype": wanted}
        takes = takes_state_dtype(variant.rule, variant.options, self.dtype, wanted)
        return options if takes else None


def mixed(variant: Variant, names: Iterable[str], dtype: np.dtype) -> Mapping[str, Any]:
    """For each state the first format that it takes of those that are next in turn."""
    formats = [CODED, HALF, BFLOAT16, SINGLE]
    found: dict[str, Any] = {}
    for k, name in enumerate(names):
        for wanted in formats[k % 4 :] + formats[: k % 4]:
            if takes_state_dtype(variant.rule, variant.options, dtype, {name: wanted}):
                found[name] = wanted
                break
    return found


def _stored() -> Iterable[Stored]:
    nearest, at_random = {"rounding": "nearest"}, {"param_rounding": "stochastic"}
    codes = {"state_dtype": CODED, "min_8bit_size": 1}
    halves, brains = {"state_dtype": HALF}, {"state_dtype": BFLOAT16}
    yield Stored("codes", SINGLE, codes)
    yield Stored("codes-nearest", SINGLE, {**codes, **nearest})
    yield Stored("codes-of-4096", SINGLE, {"state_dtype": CODED, "seed": 2**64 - 1})
    yield Stored("float16", SINGLE, halves)
    yield Stored("float16-nearest", SINGLE, {**halves, **nearest})
    yield Stored("bfloat16", SINGLE, {**brains, "seed": 3})
    yield Stored("bfloat16-nearest", SINGLE, {**brains, **nearest})
    yield Stored("mixed", SINGLE, {"state_dtype": MIXED, "min_8bit_size": 65})
    yield Stored("float16-codes", HALF, {**codes, **at_random})
    yield Stored("float16-float16", HALF, {**halves, **at_random, "seed": 4})
    yield Stored("bfloat16-codes", BFLOAT16, {**codes, **at_random})
    yield Stored("bfloat16-bfloat16", BFLOAT16, {**brains, **at_random})
    yield Stored("master-24", BFLOAT16, {"master_bits": 24})
    yield Stored("master-24-random", BFLOAT16, {"master_bits": 24, **at_random})
    yield Stored("master-24-codes", BFLOAT16, {"master_bits": 24, **codes, **at_random})
    yield Stored("master-24-bfloat16", BFLOAT16, {"master_bits": 24, **brains, **nearest})
    yield Stored("master-32", BFLOAT16, {"master_bits": 32})
    yield Stored("master-32-codes", BFLOAT16, {"master_bits": 32, **codes})
    yield Stored("master-32-mixed", BFLOAT16, {"master_bits": 32, "state_dtype": MIXED})
    yield Stored("float64-float16", DOUBLE, halves)
    yield Stored("float64-float16-nearest", DOUBLE, {**halves, **nearest})
    yield Stored("float64-bfloat16", DOUBLE, brains)
    yield Stored("float64-bfloat16-nearest", DOUBLE, {**brains, **nearest})
    yield Stored("float64-float32", DOUBLE, {"state_dtype": SINGLE})
    yield Stored("float64-mixed", DOUBLE, {"state_dtype": MIXED})


STORED = list(_stored())
BY_LABEL = {stored.label: stored for stored in STORED}


def pairs(every: int, *in_all: type[instep.Optimizer]) -> list[tuple[Variant, Stored]]:
    """Plain rules with one in `every` format each, in turn; these rules in every format that they take."""
    rules = [v for v in FEW if not v.label.endswith("all-terms")] + MATRIX_VARIANTS
    return [
        (variant, stored)
        for k, variant in enumerate(rules)
        for j, stored in enumerate(STORED)
        if (k + j) % every == 0 or variant.rule in in_all
        if stored.of(variant) is not None
    ]
