"""The tables that drive the tests: rules and their options, dtypes, sizes, levels, threads.

The rules are the public classes, and their options are those in the constructors' signatures, so a
new rule is tested without further work.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import instep

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype("float64"), np.dtype("float32"), np.dtype("float16"), BFLOAT16]
LEVELS = instep.config()["isa"]["compiled"]
THREADS = [1, 2, 3, 7]
CHUNK = 16_384

# Every remainder of the vectors of each level and format, also around the longest, a block, and two
# blocks.
SMALL_SIZES = sorted({*range(34)} | {w + d for w in (64, 128, 256, 512, 1024) for d in (-1, 0, 1)})
# Sizes around a chunk, and enough chunks for seven threads.
LARGE_SIZES = [CHUNK - 1, CHUNK, CHUNK + 1, 100, 7 * CHUNK + 5]

# Numbers with which each option matters over a few steps.
NUMBERS: dict[str, Any] = {
    "lr": 0.03,
    "betas": (0.8, 0.97),
    "eps": 1e-3,
    "alpha": 0.9,
    "initial_square_avg": 0.5,
    "momentum": 0.7,
    "dampening": 0.6,  # float32(1 - 0.6) is not 1 - float32(0.6)
    "weight_decay": 0.05,
    "l1": 0.01,
    "clip_value": 0.8,
    "rho": 0.85,
    "lr_decay": 0.3,
    "initial_accumulator_value": 0.2,
    "beta": 0.7,
    "etas": (0.6, 1.3),
    "step_sizes": (0.01, 0.04),
    "clip_exponent": 0.6,
    "clip_update": 0.7,
    "momentum_decay": 0.4,
    "lambd": 0.07,
    "t0": 1.0,
    "r": 0.6,
    "weight_lr_power": 1.5,
    "trust_clip": 0.9,
    "trust_coefficient": 0.3,
}
# Numbers of rules in which the same name means something else.
OWN: dict[str, dict[str, Any]] = {
    "AdEMAMix": {"betas": (0.8, 0.97, 0.95), "alpha": 1.7},
    "Adan": {"betas": (0.8, 0.9, 0.97)},
}
# Numbers that are on by default, and off if they are None.
ON_BY_DEFAULT = ("clip_exponent", "momentum_decay")
# Arguments that concern all parameters together; they are tested in files of their own.
ALL_PARAMETERS = ("clip_norm", "nonfinite", "ema_decay", "copy_to", "state_dtype")
TERMS = ("weight_decay", "l1", "clip_value", "maximize")
FLAGS_OF_TERMS = ("maximize", "decoupled_l1")

OPTIMIZERS: list[type[instep.Optimizer]] = [
    getattr(instep, name)
    for name in instep.__all__
    if inspect.isclass(getattr(instep, name))
    and issubclass(getattr(instep, name), instep.Optimizer)
    and getattr(instep, name) is not instep.Optimizer
]


class Variant:
    """A rule with a choice of its options."""

    def __init__(self, rule: type[instep.Optimizer], options: dict[str, Any], label: str) -> None:
        self.rule, self.options, self.label = rule, options, label

    def __repr__(self) -> str:
        return self.label

    def make(self, params: Any, **more: Any) -> Any:
        return self.rule(params, **{**self.options, **more})


def _signature(rule: type[instep.Optimizer]) -> dict[str, Any]:
    parameters = inspect.signature(rule).parameters.values()
    known = {p.name: p.default for p in parameters if p.name not in ("params", "self")}
    return {name: known[name] for name in known if name not in ALL_PARAMETERS}


def number_of(rule: type[instep.Optimizer], name: str) -> Any:
    """A number with which the rule's hyperparameter matters over a few steps."""
    return OWN.get(rule.__name__, NUMBERS).get(name, NUMBERS[name])


def _choices(rule: type[instep.Optimizer]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Every valid choice of a few of the rule's own options, and of all; the gradient's terms are off."""
    signature = _signature(rule)
    flags = [
        n
        for n, default in signature.items()
        if isinstance(default, bool) and n not in FLAGS_OF_TERMS
    ]
    # Numbers that are off by default turn a state or a term on, so both are tried.
    switches = [n for n, default in signature.items() if default in (0.0, None) and n in NUMBERS]
    switches = [n for n in switches if n not in TERMS and not isinstance(signature[n], bool)]
    always = {
        n: number_of(rule, n)
        for n in signature
        if n in NUMBERS and n not in (*switches, *TERMS) and not isinstance(signature[n], bool)
    }
    # The value that is not the usual one: flags turned round, numbers on, and those off that are on by default.
    other = {n: not signature[n] for n in flags}
    other |= {n: number_of(rule, n) for n in switches}
    other |= {n: None for n in ON_BY_DEFAULT if n in signature}
    for chosen in itertools.product([False, True], repeat=len(other)):
        on = list(itertools.compress(other, chosen))
        if (3 if len(other) <= 5 else 2) < len(on) < len(chosen) - 1:
            continue
        options = always | {n: other[n] for n in on}
        try:
            rule(np.zeros(1), **options)
        except ValueError:
            continue
        yield options, on


def takes_decoupled_l1(rule: type[instep.Optimizer]) -> bool:
    """Whether the rule has decoupled L1."""
    try:
        rule(np.zeros(1), decoupled_l1=True)
    except ValueError:
        return False
    return True


def _variants() -> Iterator[Variant]:
    for rule in OPTIMIZERS:
        for options, on in _choices(rule):
            yield Variant(rule, options, "-".join([rule.__name__, *on]))
        options, on = list(_choices(rule))[-1]
        terms = {name: NUMBERS.get(name, True) for name in TERMS}
        for name, value in terms.items():
            yield Variant(rule, {**options, name: value}, "-".join([rule.__name__, *on, name]))
        yield Variant(rule, {**options, **terms}, "-".join([rule.__name__, *on, "all-terms"]))
        if takes_decoupled_l1(rule):
            decoupled = {**options, **terms, "decoupled_l1": True}
            yield Variant(rule, decoupled, "-".join([rule.__name__, *on, "decoupled-l1"]))


VARIANTS = list(_variants())


def torch_options(variant: Variant) -> dict[str, Any] | None:
    """The keywords that make the same rule in torch; None if torch has no such rule or option."""
    torchs = vars(variant.rule).get("_torch")  # test_adding_a_rule.py names rules without
    group = dict(variant.make(np.zeros(1)).param_groups[0])
    off = {"l1": 0.0, "clip_value": None, "decoupled_l1": False}
    absent = {**off, **torchs.absent} if torchs else {}
    if torchs is None or any(group[name] != value for name, value in absent.items()):
        return None
    if any(group[name] is None for name in torchs.hyperparameters):
        return None
    return {name: group[name] for name in torchs.hyperparameters}


# The variants that can be compared with torch.
IN_TORCH = [variant for variant in VARIANTS if torch_options(variant) is not None]


def labels(value: Any) -> str | None:
    """Pytest's ids."""
    return str(value) if isinstance(value, (Variant, np.dtype)) else None


def numbers(
    rng: np.random.Generator, shape: int | tuple[int, ...], dtype: Any, spread: float = 3.0
) -> np.ndarray:
    """Numbers of both signs over several orders of magnitude, with a few zeros."""
    values = rng.standard_normal(shape) * 10.0 ** rng.uniform(-spread, 0.5, shape)
    return np.where(rng.random(shape) < 0.02, 0.0, values).astype(dtype)


class Guarded:
    """Arrays inside larger buffers, off the vectors' boundaries; the bytes around them must not change."""

    def __init__(self) -> None:
        self._buffers: list[tuple[np.ndarray, slice, np.ndarray]] = []

    def put(self, values: np.ndarray, offset: int) -> np.ndarray:
        """A one-dimensional copy of values that begins `offset` elements after the start of a cache line."""
        room = 64 // values.itemsize
        buffer = np.full(len(values) + 4 * room, 7, values.dtype)
        start = -(buffer.__array_interface__["data"][0] // values.itemsize) % room + offset
        inside = slice(start, start + len(values))
        buffer[inside] = values
        self._buffers.append((buffer, inside, buffer.copy()))
        return buffer[inside]

    def check(self) -> None:
        for buffer, inside, before in self._buffers:
            for part in (slice(0, inside.start), slice(inside.stop, None)):
                assert buffer[part].tobytes() == before[part].tobytes(), "written outside an array"


def use_level(name: str) -> None:
    """Force a level, or skip the test by that level's name."""
    if name not in instep.isa_levels():
        pytest.skip(f"this machine does not have {name}")
    instep.set_isa(name)


def rng_for(*key: object) -> np.random.Generator:
    """A random number generator for one test."""
    return np.random.default_rng(list(repr(key).encode()))


def misaligned(n: int = 4, dtype: str = "f4") -> np.ndarray:
    """An array of zeros whose elements are misaligned."""
    return np.zeros(8 * n + 1, np.uint8)[1 : 1 + n * np.dtype(dtype).itemsize].view(dtype)
