"""The tables that drive the tests: rules and their options, dtypes, sizes, levels, threads.

The rules are the public classes, and their options are those in the constructors' signatures, so a
new rule is tested without further work.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from formulas import RULES
from kept import CODED
from kinds import KINDS, Kind
from rounding import BFLOAT16, compute_type

import instep
from instep.optimizers.hyperparameters import OneOf

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
    "beta": 0.7,
    "rho": 0.85,
    "initial_square_avg": 0.5,
    "initial_accumulator_value": 0.2,
    "lr_decay": 0.3,
    "momentum": 0.7,
    "dampening": 0.6,  # float32(1 - 0.6) is not 1 - float32(0.6)
    "momentum_decay": 0.4,
    "clip_exponent": 0.6,
    "clip_update": 0.7,
    "etas": (0.6, 1.3),
    "step_sizes": (0.01, 0.04),
    "lambd": 0.07,
    "t0": 1.0,
    "r": 0.6,
    "weight_lr_power": 1.5,
    "trust_clip": 0.9,
    "trust_coefficient": 0.3,
    "beta3": 0.9,
    "d0": 0.01,
    "d_coef": 1.3,
    "growth_rate": 1.45,
    "ns_steps": 3,
    "ns_coefficients": (3.0, -4.0, 2.0),
    "weight_decay": 0.05,
    "l1": 0.01,
    "clip_value": 0.8,
}
# Numbers of rules in which the same name means something else.
OWN: dict[str, dict[str, Any]] = {
    "AdEMAMix": {"betas": (0.8, 0.97, 0.95), "alpha": 1.7},
    "Adan": {"betas": (0.8, 0.9, 0.97)},
    "Prodigy": {"lr": 0.7, "d_coef": 3e3},  # with which d grows at once
}
# Numbers that are on by default, and what turns them off.
OFF: dict[str, dict[str, float | None]] = {
    "ADOPT": {"clip_exponent": None},
    "LARS": {"momentum": 0.0},
    "NAdam": {"momentum_decay": None},
    "Signum": {"momentum": 0.0},
}
# Arguments that concern all parameters together; they are tested in files of their own.
ALL_PARAMETERS = (
    *("clip_norm", "nonfinite", "ema_decay", "copy_to", "state_dtype", "state_storage"),
    *("rounding", "seed", "param_rounding", "master_bits", "min_8bit_size"),
)
TERMS = ("weight_decay", "l1", "clip_value", "maximize")
# Arguments that matter only beside a term.
BESIDE_TERMS = ("decoupled_l1", "decoupled_weight_decay")

ALL_OPTIMIZERS: list[type[instep.Optimizer]] = [
    getattr(instep, name)
    for name in instep.__all__
    if inspect.isclass(getattr(instep, name))
    and issubclass(getattr(instep, name), instep.Optimizer)
    and getattr(instep, name) is not instep.Optimizer
]
# Rules of matrices have tests of their own, as others have parameters of any shape.
MATRIX_OPTIMIZERS = [rule for rule in ALL_OPTIMIZERS if RULES[rule.__name__].matrices]
OPTIMIZERS = [rule for rule in ALL_OPTIMIZERS if rule not in MATRIX_OPTIMIZERS]


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


def one_element(rule: type[instep.Optimizer], dtype: Any = np.float64) -> np.ndarray:
    """A parameter of one element that the rule takes."""
    return np.zeros((1, 1) if rule in MATRIX_OPTIMIZERS else 1, dtype)


def takes(rule: type[instep.Optimizer], **options: Any) -> bool:
    """Whether the rule takes these options."""
    try:
        rule(one_element(rule), **options)
    except (TypeError, ValueError):  # there is no such option, or no such value
        return False
    return True


class _Options:
    """A rule's own options: what is always given, and what can be turned on or off."""

    def __init__(self, rule: type[instep.Optimizer]) -> None:
        own = {n: d for n, d in _signature(rule).items() if n not in (*TERMS, *BESIDE_TERMS)}
        off = OFF.get(rule.__name__, {})
        flags = {name: not default for name, default in own.items() if isinstance(default, bool)}
        numbers = {name: number_of(rule, name) for name in own if name in NUMBERS}
        # Numbers that are off by default turn a state or a term on, so both are tried.
        ups = {name: value for name, value in numbers.items() if own[name] in (0.0, None)}
        self.always = {name: value for name, value in numbers.items() if name not in ups}
        kinds = rule._hyperparameters
        words = {n: kinds[n].words[1] for n in own if isinstance(kinds[n], OneOf)}
        self.switches = flags | ups | off | words
        self.downs = [*off, *(name for name, value in flags.items() if value is False)]


def _choices(rule: type[instep.Optimizer]) -> list[tuple[dict[str, Any], list[str]]]:
    """Every valid choice of up to two of the rule's own options; and last, of the most without one turned off.

    No term of the gradient is on. The digests (digests.py) have every choice.
    """
    options = _Options(rule)
    found = []
    for chosen in itertools.product([False, True], repeat=len(options.switches)):
        on = list(itertools.compress(options.switches, chosen))
        choice = options.always | {name: options.switches[name] for name in on}
        if takes(rule, **choice):
            found.append((choice, on))
    whole = [choice for choice in found if not set(choice[1]) & set(options.downs)]
    most = max(reversed(whole), key=lambda choice: len(choice[1]))
    return [choice for choice in found if len(choice[1]) <= 2 and choice is not most] + [most]


# The core has loops of its own for single terms of these rules.
TERM_BY_TERM = ("SGD", "RMSprop", "Adam")


def _variants(rules: list[type[instep.Optimizer]]) -> Iterator[Variant]:
    for rule in rules:
        downs = _Options(rule).downs
        choices = _choices(rule)
        for options, on in choices:
            names = [f"no-{name}" if name in downs else name for name in on]
            yield Variant(rule, options, "-".join([rule.__name__, *names]))
        terms = {name: NUMBERS.get(name, True) for name in TERMS}
        if rule.__name__ in TERM_BY_TERM:
            for name, value in terms.items():
                yield Variant(rule, {**choices[0][0], name: value}, f"{rule.__name__}-{name}")
        options, on = choices[-1]
        label = "-".join([rule.__name__, *on])
        yield Variant(rule, {**options, **terms}, f"{label}-all-terms")
        decoupled = {name: True for name in BESIDE_TERMS if takes(rule, **{name: True})}
        if decoupled:
            yield Variant(rule, {**options, **terms, **decoupled}, f"{label}-decoupled")


VARIANTS = list(_variants(OPTIMIZERS))
MATRIX_VARIANTS = list(_variants(MATRIX_OPTIMIZERS))
# Of each rule the plain one and the one with the most on: for what hardly depends on the formula.
FEW = [v for v in VARIANTS if v.label.endswith((v.rule.__name__, "all-terms"))]


def takes_state_dtype(
    rule: type[instep.Optimizer], options: Mapping[str, Any], dtype: Any, state_dtype: Any
) -> bool:
    """Whether a rule with these options keeps states so for parameters of that dtype."""
    compute, kinds = np.dtype(compute_type(dtype)), KINDS[rule.__name__]
    if isinstance(state_dtype, Mapping):
        return all(
            wanted is None
            or (kinds[name].narrow != "iterate" and _holds(kinds[name], options, compute, wanted))
            for name, wanted in state_dtype.items()
        )
    of_rule = RULES[rule.__name__]
    whole = {**of_rule.defaults, **options}
    is_coded = isinstance(state_dtype, str) and state_dtype == CODED
    return state_dtype is None or all(
        _holds(kinds[name], options, compute, state_dtype)
        for name, option in of_rule.states.items()
        if of_rule.has(option, whole)
        or not is_coded  # a dtype is refused also where it has no effect
    )


def _holds(kind: Kind, options: Mapping[str, Any], compute: np.dtype, wanted: Any) -> bool:
    """Whether a state can be kept in this format, or stays in the compute type."""
    if isinstance(wanted, str) and wanted == CODED:
        return not options.get("centered") and (compute == np.float32 or not kind.eight_bits)
    wanted = np.dtype(wanted)
    if wanted == compute:
        return True
    if wanted.itemsize > compute.itemsize or options.get("centered"):
        return False
    return not (kind.narrow == "bfloat16" and wanted == np.float16)


def fitting(variant: Variant, more: Mapping[str, Any], *dtypes: Any) -> dict[str, Any]:
    """Settings for all parameters, of these dtypes, without the settings that the variant refuses."""
    left = dict(more)
    if RULES[variant.rule.__name__].average:
        left.pop("ema_decay", None)
    narrow = left.get("state_dtype")
    if not all(takes_state_dtype(variant.rule, variant.options, d, narrow) for d in dtypes):
        del left["state_dtype"]
    return left


def torch_options(variant: Variant) -> dict[str, Any] | None:
    """The keywords that make the same rule in torch; None if torch has no such rule or option."""
    torchs = vars(variant.rule).get("_torch")  # test_adding_a_rule.py names rules without
    group = dict(variant.make(one_element(variant.rule)).param_groups[0])
    off = {"l1": 0.0, "clip_value": None, "decoupled_l1": False}
    absent = {**off, **torchs.absent} if torchs else {}
    if torchs is None or any(group[name] != value for name, value in absent.items()):
        return None
    options = {name: group[name] for name in torchs.hyperparameters}
    return None if None in options.values() else options  # torch takes numbers alone


def _in_torch() -> Iterator[Variant]:
    """The variants that can be compared with torch; each rule once more, with the terms that torch has."""
    for rule in OPTIMIZERS:
        variants = [v for v in VARIANTS if v.rule is rule and torch_options(v) is not None]
        yield from variants
        if variants:
            most = max(variants, key=lambda variant: len(variant.options))
            known = vars(rule)["_torch"].hyperparameters
            terms = {name: NUMBERS.get(name, True) for name in TERMS if name in known}
            yield Variant(rule, {**most.options, **terms}, f"{most.label}-terms-of-torch")


IN_TORCH = list(_in_torch())


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
