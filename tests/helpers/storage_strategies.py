"""Strategies for hypothesis: in which formats an optimizer keeps its states and parameters, rounded how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cases import BFLOAT16, DTYPES, Variant, takes_state_dtype
from formulas import RULES
from hypothesis import strategies as st
from kept import CODED

Kinds = Sequence[tuple[Mapping[str, Any], Any]]  # of each parameter its options and its dtype


@st.composite
def state_dtypes(draw: Any, variant: Variant, kinds: Kinds, exact: bool) -> Any:
    """A dtype for all states, 8 bits for all, or one for each; None for the type of the arithmetic."""
    found = [None, None, *DTYPES]
    if not exact:
        rule = RULES[variant.rule.__name__]
        used = [n for n, o in rule.states.items() if any(rule.has(o, own) for own, _ in kinds)]
        each = st.sampled_from([None, CODED, CODED, *DTYPES])
        drawn = {name: draw(each) for name in used}
        named = {n: d for n, d in drawn.items() if takes_all(variant, kinds, {n: d})}
        found += [CODED, CODED, named]
    return draw(st.sampled_from([d for d in found if takes_all(variant, kinds, d)]))


def takes_all(variant: Variant, kinds: Kinds, state_dtype: Any) -> bool:
    return all(takes_state_dtype(variant.rule, *each, state_dtype) for each in kinds)


@st.composite
def storages(draw: Any, variant: Variant, kinds: Kinds, exact: bool) -> dict[str, Any]:
    """How states and parameters are kept. `exact`: in formats that other libraries have, too."""
    rounding = st.sampled_from(["stochastic", "nearest"])
    found = {
        "state_dtype": draw(state_dtypes(variant, kinds, exact)),
        "rounding": draw(rounding),
        "param_rounding": draw(rounding),
        "seed": draw(st.sampled_from([0, 1, 2**64 - 1])),
        "min_8bit_size": draw(st.sampled_from([1, 1, 65, 4096])),
    }
    if not exact and any(dtype == BFLOAT16 for _, dtype in kinds):
        exact_too = [32] if found["param_rounding"] == "nearest" else []
        found["master_bits"] = draw(st.sampled_from([None, 24, *exact_too]))
    return found
