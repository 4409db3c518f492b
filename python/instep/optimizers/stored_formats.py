"""In which formats states and parameters are stored, and how they are rounded: the options, checked.

The core checks whether a format can hold a state of a parameter; here are the checks that need no array.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias, get_args

import numpy as np

from instep import _core
from instep._support.bfloat16 import bfloat16
from instep._support.checks import word
from instep._support.reals import whole
from instep._support.wording import listed, shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from instep.optimizers.containers import NamedParameters

__all__ = [
    "EIGHT_BITS",
    "REMAINDER",
    "UNIT",
    "MasterBits",
    "Rounding",
    "StateDtype",
    "StoredFormats",
    "checked_groups",
    "checked_seed",
    "kinds_of",
    "meant_format",
    "require_states",
    "rounded_at_random",
    "state_names",
    "states_in_use",
    "text_of_formats",
]

#: One format for all states, or a format for each name of a state; None is the arithmetic's type.
StateDtype: TypeAlias = "npt.DTypeLike | Mapping[str, npt.DTypeLike | None] | None"
Rounding: TypeAlias = Literal["stochastic", "nearest"]
MasterBits: TypeAlias = Literal[24, 32]
Format: TypeAlias = "np.dtype[Any] | str | None"

EIGHT_BITS = "8bit"
UNIT = "_unit"  # ends the name of the array of a coded state's units
REMAINDER = "remainder"  # of a bfloat16 parameter with master_bits
_ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
_MASTER_BITS = get_args(MasterBits)
_LARGEST = 2**62  # elements; no parameter has as many
# Other names of the formats, in small letters and digits alone.
_MEANT = {
    **dict.fromkeys(
        ("8", "8bit", "8bits", "bit8", "eightbit", "int8", "uint8", "fp8", "float8"), "8bit"
    ),
    **dict.fromkeys(("bfloat", "bfloat16", "bf16", "brainfloat16"), "bfloat16"),
    **dict.fromkeys(("16", "16bit", "float16", "fp16", "half"), "float16"),
    **dict.fromkeys(("32", "32bit", "float32", "fp32", "float", "single"), "float32"),
}


class StoredFormats(NamedTuple):
    """How an optimizer stores what it keeps. The seed is the first one; a loaded one is in the plan."""

    state_dtype: Format | dict[str, Format] = None
    rounding: Rounding = "stochastic"
    seed: int = 0
    param_rounding: Rounding = "nearest"
    master_bits: int | None = None
    min_8bit_size: int = 4096

    @classmethod
    def checked(
        cls,
        state_dtype: StateDtype,
        rounding: object,
        seed: object,
        param_rounding: object,
        master_bits: object,
        min_8bit_size: object,
    ) -> StoredFormats:
        """Check the options by themselves; raise TypeError or ValueError."""
        found = cls(
            _checked_state_dtype("state_dtype", state_dtype),
            word("rounding", rounding, _ROUNDINGS),
            checked_seed(seed),
            word("param_rounding", param_rounding, _ROUNDINGS),
            _checked_master_bits(master_bits),
            _checked_size(min_8bit_size),
        )
        if found.master_bits == 32 and found.param_rounding != "nearest":
            raise ValueError(
                f"param_rounding must be 'nearest' with master_bits=32, which rounds nothing, got "
                f"{found.param_rounding!r}; leave it out, or pass master_bits=24"
            )
        return found

    def for_core(self) -> dict[str, Any]:
        """Return the keywords of the core's `make_plan`."""
        return {
            "rounding": rounded_at_random(self.rounding, self.param_rounding),
            "seed": self.seed,
            "master_bits": self.master_bits or 0,
            "min_8bit_size": self.min_8bit_size,
        }

    def of_groups(
        self, groups: Sequence[tuple[str, Sequence[str], Mapping[str, Any]]], *, first: bool
    ) -> list[Any]:
        """Return for each group what the core takes: a format, or formats by the names of the group's states.

        A group is its rule, its options and its own formats. The `first` groups of an optimizer must
        have the states that are named in the optimizer's own formats.
        """
        names = [states_in_use(rule, options) for rule, options, _ in groups]
        if first:
            require_states("state_dtype", self.state_dtype, (n for own in names for n in own))
        found = []
        for (_, _, own), there in zip(groups, names, strict=True):
            value = own.get("state_dtype", self.state_dtype)
            if "state_dtype" in own:
                require_states("state_dtype of a group", value, there)
            if isinstance(value, dict):
                value = {name: stored for name, stored in value.items() if name in there}
            found.append(value)
        return found

    def require_for(self, groups: Iterable[NamedParameters]) -> None:
        """Raise ValueError if there is no parameter for `master_bits`."""
        if self.master_bits is None:
            return
        arrays: list[Any] = [array for group in groups for array in group.arrays]
        # A subclass may report another dtype; the core refuses what is no array.
        plain = [np.asarray(array) for array in arrays if isinstance(array, np.ndarray)]
        dtypes = dict.fromkeys(array.dtype.name for array in plain)
        if "bfloat16" not in dtypes and len(plain) == len(arrays):
            self.refuse_master_bits(dtypes)

    def refuse_master_bits(self, dtypes: Iterable[str]) -> NoReturn:
        """Raise ValueError, as there are parameters of these dtypes alone."""
        raise ValueError(
            "master_bits must be None for an optimizer without a bfloat16 parameter, got "
            f"{self.master_bits} for parameters of {', '.join(dtypes)}"
        )

    def in_use(self, seed: int, own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what differs from the default; for `repr`. `own` has the formats of the groups themselves."""
        each = [formats.get("state_dtype", self.state_dtype) for formats in own]
        told = [text_of_formats(value) for value in each]
        alike = all(value == told[0] for value in told)
        now = self._replace(seed=seed)._asdict() | {"state_dtype": told[0] if alike else told}
        return {name: value for name, value in now.items() if value != _DEFAULTS[name]}


_DEFAULTS = StoredFormats()._asdict()


def rounded_at_random(rounding: object, param_rounding: object) -> tuple[bool, bool]:
    """Return, as the core takes it, whether states and parameters are rounded at random; raise ValueError."""
    return (
        word("rounding", rounding, _ROUNDINGS) == "stochastic",
        word("param_rounding", param_rounding, _ROUNDINGS) == "stochastic",
    )


def checked_groups(groups: Sequence[NamedParameters], begin: int = 0) -> list[NamedParameters]:
    """Return groups, numbered from `begin`, with their own formats checked."""
    return [
        group._replace(
            formats={
                name: _checked_state_dtype(f"state_dtype of group {k}", value)
                for name, value in group.formats.items()
            }
        )
        for k, group in enumerate(groups, start=begin)
    ]


def checked_seed(seed: object) -> int:
    """Return a seed; raise TypeError or ValueError."""
    number = whole(seed)
    if number is None:
        raise TypeError(f"seed must be an int from 0 to 2**64 - 1, got {shown(seed)}")
    if not 0 <= number < 2**64:
        raise ValueError(f"seed must be an int from 0 to 2**64 - 1, got {shown(number)}")
    return number


def _checked_master_bits(bits: object) -> int | None:
    if bits is not None and whole(bits) not in _MASTER_BITS:
        raise ValueError(f"master_bits must be None, 24 or 32, got {shown(bits)}")
    return whole(bits)


def _checked_size(size: object) -> int:
    number = whole(size)
    if number is None:
        raise TypeError(f"min_8bit_size must be an int of at least 0, got {shown(size)}")
    if number < 0:
        raise ValueError(f"min_8bit_size must be an int of at least 0, got {shown(number)}")
    return min(number, _LARGEST)


def _checked_state_dtype(who: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _checked_format(who, value)
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a key of {who} must be the name of a state, got {shown(name)}")
    # A copy, as the caller's own may change.
    return {str(n): _checked_format(f"{who}[{n!r}]", stored) for n, stored in value.items()} or None


def _checked_format(who: str, value: Any) -> Format:
    if value is None or (isinstance(value, str) and value == EIGHT_BITS):
        return None if value is None else EIGHT_BITS
    if isinstance(value, str) and value == "bfloat16":
        return bfloat16(f"{who}='bfloat16'")
    found: np.dtype[Any] | None = None
    if not isinstance(value, (Mapping, list, tuple)):  # NumPy makes dtypes of records of these
        with contextlib.suppress(TypeError, ValueError, SyntaxError):  # NumPy parses text as Python
            found = np.dtype(value)
    if (
        found is None or found.kind in "iu"
    ):  # codes are integers, but a format is more than their dtype
        meant = meant_format(value)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise TypeError(
            f"{who} must be a floating-point dtype, 'bfloat16' or '8bit', got {shown(value)}{hint}"
        )
    return found


def meant_format(value: object) -> str | None:
    """Return the format that is meant by another name of it, such as "bf16"; None if there is no such name."""
    named = value.__name__ if isinstance(value, type) else str(value)
    return _MEANT.get("".join(c for c in named.lower().removeprefix("torch.") if c.isalnum()))


def require_states(who: str, value: Any, there: Iterable[str]) -> None:
    """Raise ValueError if formats are given for states that aren't there."""
    if not isinstance(value, Mapping):
        return
    known = dict.fromkeys(there)
    for name in value:
        if name not in known:
            expected = f"one of {', '.join(known)}" if known else "none, as the rule has no states"
            raise ValueError(f"a state in {who} must be {expected}, got {listed([name])}")


def states_in_use(rule: str, options: Sequence[str]) -> list[str]:
    """Return the names of the states, of arrays of the parameter's shape, that a rule has with these options."""
    known = kinds_of(rule)
    return [name for name in _core.states_of(rule, options) if name in known]


def state_names(states: Iterable[str]) -> list[str]:
    """Return the names of the states among those of a parameter's arrays."""
    return [name for name in states if name != REMAINDER and not name.endswith(UNIT)]


@functools.cache
def kinds_of(rule: str) -> dict[str, dict[str, Any]]:
    """Return what may be stored how, by the name of the state; scalar states are not there."""
    kinds: Any = _core.rules()[rule]["kinds"]
    return dict(kinds)


def text_of_formats(value: Any) -> Any:
    """Return checked formats as plain data: names in place of dtypes."""
    if isinstance(value, dict):
        return {name: text_of_formats(stored) for name, stored in value.items()}
    return value.name if isinstance(value, np.dtype) else value
