"""Every choice of what may precede and follow a rule in one step, bit for bit: most of it is done in the rule's loop or
beside it, depending on what else there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, LEVELS, NUMBERS, TERMS, numbers, use_level
from reference import Reference, assert_follows, assert_same_bits

import instep

AROUND: dict[str, Any] = {name: NUMBERS.get(name, True) for name in TERMS} | {"ema_decay": 0.9}
COMBINATIONS = [
    {name: AROUND[name] for name, is_on in zip(AROUND, chosen, strict=True) if is_on}
    for chosen in itertools.product([False, True], repeat=len(AROUND))
]
SIZES = (0, 5, 300)  # no whole vector; more than a block
NEAREST = {"rounding": "nearest"}
CODES = {"state_dtype": "8bit", "min_8bit_size": 1}
FORMATS: list[
    tuple[Any, dict[str, Any], Any]
] = [  # of parameters and gradients, what is stored how, copies
    ("float32", {}, None),
    ("float32", {}, "float16"),
    ("float32", {"state_dtype": BFLOAT16, **NEAREST}, None),
    ("float32", {"state_dtype": BFLOAT16}, None),
    ("float32", CODES, None),
    ("float32", {**CODES, **NEAREST}, "float16"),
    ("float64", {}, None),
    ("float64", {}, "float32"),
    (BFLOAT16, {}, None),
    (BFLOAT16, {"state_dtype": BFLOAT16, **NEAREST}, None),
    (BFLOAT16, {"state_dtype": BFLOAT16, "param_rounding": "stochastic"}, None),
    (BFLOAT16, {"master_bits": 24, "param_rounding": "stochastic", **CODES}, None),
    (BFLOAT16, {"master_bits": 32, **CODES}, None),
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("accumulated", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(("dtype", "storing", "copy_dtype"), FORMATS, ids=str)
def test_each_with_all_others(
    dtype: Any,
    storing: dict[str, Any],
    copy_dtype: Any,
    scale: float,
    accumulated: bool,
    level: str,
) -> None:
    use_level(level)
    rng = np.random.default_rng(6)
    start = {str(n): numbers(rng, n, dtype) for n in SIZES}
    grads = [{name: numbers(rng, p.size, dtype) for name, p in start.items()} for _ in range(3)]
    for options in COMBINATIONS:
        rule = instep.Momentum if "l1" in options else instep.Adam
        params = {name: p.copy() for name, p in start.items()}
        copies = copy_dtype and {name: p.astype(copy_dtype) for name, p in start.items()}
        optimizer = rule(params, copy_to=copies, **storing, **options)
        reference = Reference(rule.__name__, start, copy_dtype=copy_dtype, **storing, **options)
        for grad in grads:
            if accumulated:
                optimizer.accumulate(grad)
                reference.accumulate(grad)
            optimizer.step(grad, grad_scale=scale)
            reference.step(grad, scale)
        assert_follows(optimizer, params, reference, f"with {options}")
        for name, copy in (copies or {}).items():
            assert_same_bits(copy, reference.copies[name], f"copy of {name} with {options}")
