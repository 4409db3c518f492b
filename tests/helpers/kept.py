"""How the reference keeps the states and the numbers of a parameter: in which formats, rounded how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from codes import TO_NEAREST, decode, encode, uniform, units_for
from kinds import KINDS, Kind
from random_numbers import Draws
from rounding import BFLOAT16, compute_type, join, load, split, stochastic, store

CODED = "8bit"
Arrays = dict[str, np.ndarray]


class Storage(NamedTuple):
    """What an optimizer is told of formats and rounding."""

    state_dtype: Any = None
    rounding: str = "stochastic"
    param_rounding: str = "nearest"
    master_bits: int | None = None
    min_8bit_size: int = 4096

    def of_states(self, rule: str, p: np.ndarray) -> dict[str, KeptState]:
        """How each state of a rule is kept for a parameter."""
        return {
            name: KeptState(name, number, kind, compute_type(p.dtype), *self._format(name, kind, p))
            for number, (name, kind) in enumerate(KINDS[rule].items())
        }

    def _format(self, name: str, kind: Kind, p: np.ndarray) -> tuple[np.dtype | None, bool]:
        """A dtype, or None for codes; and whether it is rounded at random."""
        wanted, T = self.state_dtype, np.dtype(compute_type(p.dtype))
        if isinstance(wanted, Mapping):
            wanted = wanted.get(name)
        if wanted is None or kind.narrow == "iterate":
            return T, False
        if isinstance(wanted, str) and wanted == CODED:
            coded = kind.eight_bits and p.size >= self.min_8bit_size
            return (None, self.rounding == "stochastic") if coded else (T, False)
        dtype = BFLOAT16 if wanted == "bfloat16" else np.dtype(wanted)
        chosen = self.rounding if kind.in_16_bits == "chosen" else kind.in_16_bits
        return dtype, dtype.itemsize == 2 and chosen == "stochastic"

    def of_parameter(self, p: np.ndarray) -> KeptParameter:
        bits = self.master_bits if p.dtype == BFLOAT16 else None
        return KeptParameter(p.dtype, bits, self.param_rounding == "stochastic")


class KeptState(NamedTuple):
    """One state of one parameter."""

    name: str
    number: int
    kind: Kind
    T: Any
    dtype: np.dtype | None  # None: codes
    at_random: bool

    @property
    def unit(self) -> str:
        return f"{self.name}_unit"

    @property
    def has_root(self) -> bool:
        return self.kind.root and self.dtype == np.float16

    def made(self, shape: tuple[int, ...]) -> Arrays:
        if self.dtype is not None:
            return {self.name: np.zeros(shape, self.dtype)}
        codes = np.zeros(shape, np.int8 if self.kind.signed else np.uint8)
        return {self.name: codes, self.unit: np.zeros(units_for(codes.size), np.float32)}

    def read(self, arrays: Arrays) -> np.ndarray:
        if self.dtype is None:
            return decode(arrays[self.name], arrays[self.unit])
        value = load(arrays[self.name], self.T)
        return value * value if self.has_root else value

    @np.errstate(all="ignore")
    def write(self, arrays: Arrays, value: Any, draws: Draws) -> None:
        check(value, self.T)
        if self.dtype is None:
            u = uniform(draws.bytes(self.number, value.size)) if self.at_random else TO_NEAREST
            arrays[self.name][...], arrays[self.unit][...] = encode(value, self.kind.signed, u)
            return
        if self.has_root:
            value = np.sqrt(value)
        r = draws.halves(self.number, value.size) if self.at_random else None
        put(arrays[self.name], value, r)


class KeptParameter(NamedTuple):
    """The numbers of one parameter, which are more than the caller's array if there is a remainder."""

    dtype: np.dtype
    master_bits: int | None
    at_random: bool

    def made(self, shape: tuple[int, ...]) -> Arrays:
        """What is kept beside the states."""
        if self.master_bits is None:
            return {}
        return {"remainder": np.zeros(shape, np.int8 if self.master_bits == 24 else np.int16)}

    def read(self, p: np.ndarray, arrays: Arrays) -> np.ndarray:
        if self.master_bits is None:
            return load(p, compute_type(self.dtype))
        return join(p, arrays["remainder"])

    def write(self, p: np.ndarray, arrays: Arrays, value: np.ndarray, draws: Draws) -> None:
        check(value, compute_type(self.dtype))
        narrow = self.dtype.itemsize == 2 and self.at_random
        words = draws.words(value.size) if narrow else None
        if self.master_bits is None:
            put(p, value, None if words is None else words >> np.uint32(16))
            return
        p[...], arrays["remainder"][...] = split(value, self.master_bits, words)


def check(value: Any, T: Any) -> None:
    assert value.dtype == T, f"computed in {value.dtype}, not in {T.__name__}"


def put(kept: np.ndarray, value: np.ndarray, r: np.ndarray | None = None) -> None:
    """Round a value to the format in which it is kept: to nearest, or by random bits for each element in order."""
    if r is None:
        kept[...] = store(value, kept.dtype)
    else:
        kept[...] = stochastic(load(value, np.float32), kept.dtype, r)
