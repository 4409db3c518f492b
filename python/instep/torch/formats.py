"""In which formats the states of a parameter are stored: the options, checked, and new tensors by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instep._support.wording import shown
from instep.optimizers.stored_formats import (
    EIGHT_BITS,
    UNIT,
    StoredFormats,
    kinds_of,
    meant_format,
    require_states,
    states_in_use,
)
from instep.storage.codes import block_count
from instep.torch.tensors import DTYPES, torch

__all__ = ["CODE", "ROOT", "checked", "code_dtype", "new_remainder", "new_state", "require_for"]

# They end the names of what torch would read wrongly under the state's own name: torch then misses the state.
CODE, ROOT = "_code", "_root"
_REMAINDERS = {24: torch.int8, 32: torch.int16}


def checked(rule: str, given: Mapping[str, Any]) -> StoredFormats:
    """Check the options by themselves; raise TypeError or ValueError."""
    found = StoredFormats.checked(**{**given, "state_dtype": None})
    return found._replace(state_dtype=_checked_state_dtype(rule, given["state_dtype"]))


def _checked_state_dtype(rule: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _checked_format("state_dtype", value)
    require_states("state_dtype", value, kinds_of(rule))
    # A copy, as the caller's own may change.
    return {name: _checked_format(f"state_dtype[{name!r}]", one) for name, one in value.items()}


def _checked_format(who: str, value: Any) -> Any:
    if isinstance(value, str) and value == "bfloat16":
        return torch.bfloat16
    if value is None or (isinstance(value, torch.dtype) and value in DTYPES):
        return value
    if isinstance(value, str) and value == EIGHT_BITS:
        return EIGHT_BITS
    meant = meant_format(value)
    name = repr(meant) if meant == EIGHT_BITS else f"torch.{meant}"
    hint = f"; did you mean {name}?" if meant else ""
    raise TypeError(
        f"{who} must be a floating-point dtype of torch, 'bfloat16' or '8bit', got {shown(value)}{hint}"
    )


def require_for(formats: StoredFormats, parameters: Sequence[Any]) -> None:
    """Raise ValueError if there is no parameter for `master_bits`."""
    if formats.master_bits is None:
        return
    dtypes = dict.fromkeys(getattr(p, "dtype", None) for p in parameters)
    if torch.bfloat16 not in dtypes:
        formats.refuse_master_bits(map(str, dtypes))


def new_state(
    formats: StoredFormats, rule: tuple[str, Sequence[str]], key: str, parameter: Any, name: str
) -> dict[str, Any]:
    """Return tensors of zeros for a state, by their names in ``optimizer.state``.

    `rule` is the rule with its options; `name` is the parameter's. The rule's first step replaces the zeros by what
    it starts from.
    """
    kinds = kinds_of(rule[0])
    if key not in kinds:
        return {key: torch.zeros((), dtype=torch.float64, device="cpu")}
    stored = _format_of(formats, rule, key, parameter, name)
    if stored == EIGHT_BITS:
        shape, blocks = tuple(parameter.shape), (block_count(parameter.numel()),)
        dtype = code_dtype(rule[0], key)
        return {
            key + CODE: torch.zeros(shape, dtype=dtype, device="cpu"),
            key + UNIT: torch.zeros(blocks, dtype=torch.float32, device="cpu"),
        }
    whole = key + ROOT if kinds[key]["root"] and stored == torch.float16 else key
    return {whole: _zeros_like(parameter, stored)}


def code_dtype(rule: str, key: str) -> Any:
    """Return the dtype of a state's codes."""
    return torch.int8 if kinds_of(rule)[key]["signed"] else torch.uint8


def new_remainder(formats: StoredFormats, parameter: Any) -> Any:
    """Return a remainder of zeros for a parameter that shall have one, else None."""
    if formats.master_bits is None or parameter.dtype != torch.bfloat16:
        return None
    return _zeros_like(parameter, _REMAINDERS[formats.master_bits])


def _zeros_like(parameter: Any, dtype: Any) -> Any:
    return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)


def _format_of(
    formats: StoredFormats, rule: tuple[str, Sequence[str]], key: str, parameter: Any, name: str
) -> Any:
    """Return the format of a new state: a dtype or "8bit"; raise ValueError if it can't hold the state."""
    kind = kinds_of(rule[0])[key]
    wanted: Any = formats.state_dtype
    is_named = isinstance(wanted, dict)
    if is_named:
        wanted = wanted.get(key)
    wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    narrow = _narrow(rule, key)
    if wanted is None:  # torch's own choice, where it can hold the state
        fits = narrow == "any" or (narrow == "bfloat16" and parameter.dtype == torch.bfloat16)
        return parameter.dtype if fits else wide

    def refuse(expected: str, why: str = "") -> None:
        raise ValueError(
            f"state_dtype must be {expected} for the state '{key}' of '{name}'{why}, got {shown(wanted)}"
        )

    if narrow == "iterate":
        if is_named:
            refuse("None", ", which is as exact as the parameter")
        return wide
    if narrow == "none" and wanted != wide:
        refuse(f"None or {wide}")
    if wanted != EIGHT_BITS:
        if narrow == "bfloat16" and wanted == torch.float16:
            refuse(f"None, {wide} or torch.bfloat16")
        return wanted
    if not kind["eight_bits"]:
        return wide
    if wide == torch.float64:
        refuse("None or a dtype", ", as 8 bits are for arithmetic in float32")
    return wide if parameter.numel() < formats.min_8bit_size else EIGHT_BITS


def _narrow(rule: tuple[str, Sequence[str]], key: str) -> Any:
    """Return which formats a state allows; where one state can't be narrowed, the rule needs all of them wide."""
    kinds = kinds_of(rule[0])
    allowed = [kinds[one]["narrow"] for one in states_in_use(*rule)]
    return "none" if "none" in allowed else kinds[key]["narrow"]
