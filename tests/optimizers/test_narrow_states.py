"""Which dtypes narrower than the arithmetic the states of a rule may have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    ALL_OPTIMIZERS,
    BFLOAT16,
    DTYPES,
    FEW,
    VARIANTS,
    Variant,
    labels,
    numbers,
    rng_for,
    takes_state_dtype,
)
from kept import CODED
from kinds import KINDS
from reference import RULES, Reference, assert_follows, compute_type
from snapshots import bits

import instep


@pytest.mark.parametrize("variant", VARIANTS, ids=labels)
def test_what_a_rule_takes(variant: Variant) -> None:
    rule, kinds = RULES[variant.rule.__name__], KINDS[variant.rule.__name__]
    for dtype, state_dtype in itertools.product(DTYPES, [*DTYPES, CODED]):
        T = np.dtype(compute_type(dtype))
        w = np.zeros(3, dtype)
        more = {"state_dtype": state_dtype, "min_8bit_size": 1}
        if not takes_state_dtype(variant.rule, variant.options, dtype, state_dtype):
            with pytest.raises(ValueError, match=rf"state_dtype must be .*, got '?{state_dtype}'?"):
                variant.make(w, **more)
            continue
        found = variant.make(w, **more).state["0"]
        for name, kind in kinds.items():
            if name not in found:
                continue
            wanted = np.dtype(np.int8 if kind.signed else np.uint8)
            if kind.narrow == "iterate" or (state_dtype == CODED and not kind.eight_bits):
                wanted = T
            elif state_dtype != CODED:
                wanted = state_dtype
            assert found[name].dtype == wanted, name
            assert (f"{name}_unit" in found) == (wanted.kind in "iu")
        assert all(found[name].dtype == np.float64 for name in rule.scalars if name in found)


@pytest.mark.parametrize("variant", VARIANTS, ids=labels)
def test_formats_by_name(variant: Variant) -> None:
    """Each state alone in each format; the others stay as they are."""
    for dtype in (DTYPES[0], DTYPES[1]):
        plain = variant.make(np.zeros(70, dtype)).state["0"]
        for name, wanted in itertools.product(KINDS[variant.rule.__name__], [*DTYPES, CODED]):
            if name not in plain:
                continue
            more = {"state_dtype": {name: wanted}, "min_8bit_size": 70}
            if not takes_state_dtype(variant.rule, variant.options, dtype, {name: wanted}):
                with pytest.raises(ValueError, match=r"^state_dtype must be "):
                    variant.make(np.zeros(70, dtype), **more)
                continue
            found = variant.make(np.zeros(70, dtype), **more).state["0"]
            coded = wanted == CODED and KINDS[variant.rule.__name__][name].eight_bits
            assert found.keys() == plain.keys() | ({f"{name}_unit"} if coded else set())
            for key, state in plain.items():
                if key != name:
                    assert found[key].dtype == state.dtype
            if coded:
                assert found[name].dtype.kind in "iu"
            else:  # some states are wide where codes are asked for
                assert found[name].dtype == (plain[name].dtype if wanted == CODED else wanted)


@pytest.mark.parametrize(
    ("rule", "dtype", "state_dtype", "message"),
    [
        ("RMSprop", "f8", "f2", "None or float64 for the state 'square_avg' of parameter 'w', as"),
        ("RMSprop", "f8", "f4", "None or float64 for the state 'square_avg' of .*, got float32"),
        ("RMSprop", "f4", BFLOAT16, "None or float32 for the state .*'w', as .*, got bfloat16"),
        ("RMSprop", "f2", "f2", "None or float32 for the state .*'w', as .*, got float16"),
        (
            "Rprop",
            "f8",
            "f2",
            "None, float64 or bfloat16 for the state 'prev' of parameter 'w', got",
        ),
        ("Rprop", BFLOAT16, "f2", "None, float32 or bfloat16 for the state 'prev' of .*float16"),
    ],
)
def test_refusals(rule: str, dtype: Any, state_dtype: Any, message: str) -> None:
    options = {"centered": True} if rule == "RMSprop" else {}
    with pytest.raises(ValueError, match=f"^state_dtype must be {message}"):
        getattr(instep, rule)({"w": np.zeros(2, dtype)}, state_dtype=state_dtype, **options)


def test_the_options_of_the_group_count() -> None:
    """Among several groups, and for a group that is added."""
    plain, centered = {"params": {"a": np.zeros(2)}}, {"params": {"b": np.zeros(2)}}
    centered["centered"] = True  # type: ignore[assignment]
    with pytest.raises(
        ValueError, match=r"state_dtype .* 'square_avg' of parameter 'b', as .*, got"
    ):
        instep.RMSprop([plain, centered], state_dtype="f2")
    optimizer = instep.RMSprop([plain], state_dtype="f2")
    before = bits(optimizer)
    with pytest.raises(
        ValueError, match=r"state_dtype .* 'square_avg' of parameter 'b', as .*, got"
    ):
        optimizer.add_param_group(centered)
    assert bits(optimizer) == before
    optimizer.add_param_group({"params": centered["params"]})
    optimizer.step([{"a": np.ones(2)}, {"b": np.ones(2)}])


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("variant", FEW, ids=labels)
def test_the_bits(variant: Variant, dtype: Any) -> None:
    """The mean squares and the means are narrow; iterates are not."""
    rng = rng_for(variant, dtype)
    start = {"w": numbers(rng, 300, dtype)}
    for state_dtype in DTYPES:
        if not takes_state_dtype(variant.rule, variant.options, dtype, state_dtype):
            continue
        params = {"w": start["w"].copy()}
        optimizer = variant.make(params, state_dtype=state_dtype)
        options = {**variant.options, "state_dtype": state_dtype}
        reference = Reference(variant.rule.__name__, start, **options)
        for _ in range(3):
            grads = {"w": numbers(rng, 300, dtype)}
            optimizer.step(grads)
            reference.step(grads)
        assert_follows(optimizer, params, reference, str(state_dtype))


def rows_of_the_documents() -> Iterator[tuple[str, str, list[str]]]:
    """Rule, state and the other columns of the table in docs/semantics-storage.md."""
    page = Path(__file__).parents[2] / "docs" / "semantics-storage.md"
    _, _, rest = page.read_text(encoding="utf-8").partition("\n|---|")
    rules: list[str] = []
    for line in rest.partition("\n\n")[0].splitlines()[1:]:
        of_rules, state, *columns = (cell.strip() for cell in line.strip("|").split("|"))
        rules = of_rules.split(", ") if of_rules else rules
        for rule in rules:
            yield rule, state, columns


def test_the_table_of_the_documents() -> None:
    known = instep.Steps.rules()
    narrow = {"any": "yes", "none": "no", "bfloat16": "bfloat16", "iterate": "iterate"}
    there = {rule.__name__: rule._rule for rule in ALL_OPTIMIZERS}
    found = {
        (rule, f"{kind['number']}: {name}"): [
            "signed" if kind["signed"] else "at least 0",
            "iterate" if kind["narrow"] == "iterate" else "yes" if kind["eight_bits"] else "no",
            narrow[kind["narrow"]] if kind["in_16_bits"] == "chosen" else kind["in_16_bits"],
            "yes" if kind["root"] else "no",
        ]
        for rule, core in there.items()
        for name, kind in known[core]["kinds"].items()
    }
    assert {(rule, state): columns for rule, state, columns in rows_of_the_documents()} == found
