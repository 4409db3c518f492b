"""Strategies for hypothesis: arrays of any values and layout, optimizers with any options, gradients.

Rules, options, dtypes, levels and sizes come from tests/helpers/cases.py, so a rule that is
registered is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from cases import (
    CHUNK,
    DTYPES,
    NUMBERS,
    SMALL_SIZES,
    VARIANTS,
    Variant,
    number_of,
    numbers,
)
from hypothesis import strategies as st
from reference import RULES, Reference, at
from storage_strategies import state_dtypes, storages

from instep import schedules

# --- Arrays.

BLOCK = 128  # elements of the core's smallest block
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)
shapes = st.one_of(
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.sampled_from(SMALL_SIZES).map(lambda n: (n,)),
    st.sampled_from([(3, BLOCK + 1), (BLOCK - 1, 2), (CHUNK + 1,), (131, 2, 127), (0, 3, CHUNK)]),
)


def special(dtype: np.dtype) -> np.ndarray:
    """Zeros, ones, infinities, NaN, the smallest and largest numbers, of both signs."""
    info = ml_dtypes.finfo(dtype)
    bounds = [info.max, info.tiny, info.tiny / 2, info.smallest_subnormal, info.eps]
    some = np.array([0.0, 1.0, math.inf, math.nan, *map(float, bounds)]).astype(dtype)
    return np.concatenate([some, -some])


far_out = st.sampled_from([-1073, -1060, -700, -490, -470, 505, 515, 700, 1020])


@st.composite
def values(draw: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Ordinary numbers, special numbers, any bits, or some of each; or numbers so far out that squares are lost."""
    rng = np.random.default_rng(draw(seeds))
    kinds = draw(st.sampled_from(["ordinary", "special", "bits", "mixed", "far out"]))
    drawn = numbers(rng, shape, dtype)
    with np.errstate(all="ignore"):
        if kinds in ("special", "mixed"):
            odd = rng.choice(special(dtype), shape)
            drawn = odd if kinds == "special" else np.where(rng.random(shape) < 0.9, drawn, odd)
        if kinds == "far out":
            drawn = np.asarray(np.ldexp(drawn.astype("f8"), draw(far_out))).astype(dtype)
    if kinds == "bits":
        drawn = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]
    return np.asarray(drawn, dtype)


@st.composite
def strides(draw: Any, shape: tuple[int, ...], *, shared: bool) -> list[int]:
    """Strides in elements: any order of the axes, directions and gaps; now and then interleaved.

    No two elements lie in one place, unless `shared` is set: then axes may be broadcast or overlap.
    """
    size = math.prod(shape)
    kind = draw(st.sampled_from(["dense", "dense", "gaps", "interleaved"]))
    if kind == "interleaved" and 0 < size <= 64:
        steps = [draw(st.integers(0 if shared else 1, 7)) for _ in shape]
        places = {sum(i * s for i, s in zip(at, steps, strict=True)) for at in np.ndindex(*shape)}
        if shared or len(places) == size:
            return steps
    order = draw(st.permutations(range(len(shape))))
    found, reach = [0] * len(shape), 1
    for axis in order:
        gap = 0 if kind == "dense" else draw(st.integers(0, 3))
        found[axis] = (reach + gap) * (1 if kind == "dense" else draw(st.sampled_from([1, -1])))
        reach = (reach + gap) * max(shape[axis], 1)
    return found


@dataclass
class Placed:
    """An array inside a buffer; the buffer's other elements must stay as they are."""

    view: np.ndarray
    buffer: np.ndarray
    outside: np.ndarray
    before: bytes = b""

    def __post_init__(self) -> None:
        self.before = self.buffer[self.outside].tobytes()

    def check(self) -> None:
        assert self.buffer[self.outside].tobytes() == self.before, "written outside an array"


def put(content: np.ndarray, steps: list[int], room: int) -> Placed:
    """Lay the content out with these strides, with `room` elements on either side."""
    reaches = [(n - 1) * s for n, s in zip(content.shape, steps, strict=True) if n]
    low, high = (sum(bound(r, 0) for r in reaches) for bound in (min, max))
    buffer = np.full(room - low + high + 1 + room, 7, content.dtype)
    outside = np.ones(len(buffer), bool)

    def laid_out(whole: np.ndarray) -> np.ndarray:
        in_bytes = [s * whole.itemsize for s in steps]
        first = (room - low) * whole.itemsize
        return np.ndarray(content.shape, whole.dtype, whole.view(np.uint8), first, in_bytes)

    laid_out(outside)[...] = False
    view = laid_out(buffer)
    view[...] = content
    return Placed(view, buffer, outside)


@st.composite
def placed(draw: Any, shape: tuple[int, ...], dtype: Any, *, shared: bool = False) -> Placed:
    """An array of any values, anywhere in memory."""
    content = draw(values(shape, np.dtype(dtype)))
    return put(content, draw(strides(shape, shared=shared)), draw(st.integers(0, 5)))


# --- Hyperparameters.


@dataclass(frozen=True)
class Alternating:
    """A function of the user, which can be pickled but is not a schedule of instep."""

    values: tuple[float, ...]

    def __call__(self, step: int) -> float:
        return self.values[step % len(self.values)]


#: Tried on every hyperparameter; `accepted` leaves out the values that a rule refuses.
plain_numbers = st.one_of(
    st.floats(0.0, 1.0, exclude_max=True),
    st.sampled_from([0.0, 1e-60, 1e-45, 1e-8, 0.125, 1.0, 3.0, 1e4, 1e30, 1e300]),
)


@st.composite
def scheduled_numbers(draw: Any, of: st.SearchStrategy[float]) -> Any:
    """A schedule of instep, or a function; all its values are among the numbers drawn."""
    some = draw(st.lists(of, min_size=1, max_size=3))
    if draw(st.booleans()):
        return Alternating(tuple(some))
    constant = schedules.PiecewiseConstant(some, list(range(1, len(some))))
    return schedules.Warmup(constant, 1, init=some[0]) if draw(st.booleans()) else constant


any_number = st.one_of(plain_numbers, scheduled_numbers(plain_numbers))


def settings_of(variant: Variant) -> dict[str, Any]:
    """Names and values of the hyperparameters of a group of this variant."""
    group = dict(variant.make(np.zeros(1)).param_groups[0])
    del group["params"]
    return group


def replacing(variant: Variant, name: str, value: Any) -> st.SearchStrategy[Any]:
    """Values other than the present value of a hyperparameter."""
    if isinstance(value, bool):
        return st.booleans()
    usual = st.just(number_of(variant.rule, name)) if name in NUMBERS else st.nothing()
    if isinstance(value, tuple):
        return st.one_of(usual, st.tuples(*[any_number] * len(value)))
    # A limit of 1e-60 is zero in float32, and shows the sign of the zeros that result.
    off = st.sampled_from([None, 1e-60]) if value is None else st.nothing()
    return st.one_of(usual, any_number, off)


@st.composite
def changes(draw: Any, variant: Variant, options: Mapping[str, Any]) -> dict[str, Any]:
    """Values for some of the hyperparameters that the rule accepts with these options."""
    now = {**settings_of(variant), **options}
    given: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(now)), max_size=3, unique=True)):
        value = draw(replacing(variant, name, now[name]))
        if all(accepts(variant, {**options, **given, name: v}) for v in (value, *ever(value))):
            given[name] = value
    return given


def ever(value: Any) -> list[Any]:
    """The values of a hyperparameter over the steps."""
    return [at(value, step) for step in range(4)]


def accepts(variant: Variant, options: dict[str, Any]) -> bool:
    try:
        variant.make(np.zeros(1), **options)
    except (TypeError, ValueError):
        return False
    return True


# --- Optimizers.

letters = st.text(max_size=2)


@dataclass
class Group:
    """The container of some parameters, and the hyperparameters of these parameters alone."""

    kind: str
    names: list[str]
    settings: dict[str, Any] = field(default_factory=dict)

    def contain(self, items: Mapping[str, Any]) -> Any:
        chosen = [items[name] for name in self.names]
        if self.kind == "array":
            return chosen[0]
        if self.kind == "dict":
            return dict(zip(self.names, chosen, strict=True))
        return chosen if self.kind == "list" else tuple(chosen)

    def items(self, container: Any) -> dict[str, Any]:
        """The items that `contain` was given."""
        if self.kind == "dict":
            return dict(container)
        chosen = [container] if self.kind == "array" else container
        return dict(zip(self.names, chosen, strict=True))


@dataclass
class Setup:
    """All arguments of an optimizer."""

    variant: Variant
    options: dict[str, Any]
    grouped: bool
    groups: list[Group]
    params: dict[str, Placed]
    copies: dict[str, Placed | None]
    extras: dict[str, Any]

    def contain(self, items: Mapping[str, Any]) -> Any:
        """Items, one for each parameter, in a container as for parameters, gradients and copies."""
        each = [group.contain(items) for group in self.groups]
        return each if self.grouped else each[0]

    def items(self, container: Any) -> dict[str, Any]:
        each = container if self.grouped else [container]
        pairs = zip(self.groups, each, strict=True)
        return {name: item for group, part in pairs for name, item in group.items(part).items()}

    def optimizer(self, params: Mapping[str, np.ndarray], copies: Mapping[str, Any]) -> Any:
        given, options = self.contain(params), self.options
        if self.grouped:
            pairs = zip(self.groups, given, strict=True)
            given = [{"params": part, **group.settings} for group, part in pairs]
        else:
            options = {**options, **self.groups[0].settings}
        copy_to = self.contain(copies) if any(c is not None for c in copies.values()) else None
        return self.variant.make(given, **options, **self.extras, copy_to=copy_to)

    def reference(self) -> Reference:
        own = {name: group.settings for group in self.groups for name in group.names}
        return Reference(
            self.variant.rule.__name__,
            {name: placed.view for name, placed in self.params.items()},
            **{**self.variant.options, **self.options},
            **self.extras,
            copy_dtype={n: c and c.buffer.dtype for n, c in self.copies.items()},
            groups={name: settings for name, settings in own.items() if settings},
        )


@st.composite
def containers(draw: Any) -> tuple[bool, list[Group]]:
    """Whether there are groups, and the groups."""
    grouped = draw(st.booleans())
    groups: list[Group] = []
    taken = 0
    for k in range(draw(st.integers(1, 3)) if grouped else 1):
        kind = draw(st.sampled_from(["array", "list", "tuple", "dict"]))
        count = 1 if kind == "array" else draw(st.integers(1, 3))
        numbered = [str(taken + i) for i in range(count)]
        named = [f"{k}.{i}{draw(letters)}" for i in range(count)] if kind == "dict" else numbered
        groups.append(Group(kind, named))
        taken += count
    return grouped, groups


def narrower(dtypes: Iterable[np.dtype], than: int) -> list[np.dtype]:
    return [dtype for dtype in dtypes if dtype.itemsize < than]


@st.composite
def setups(
    draw: Any, variants: Sequence[Variant] = VARIANTS, *, exact: bool = False, **fixed: Any
) -> Setup:
    """Any rule with any options for any parameters; `fixed` are extras that are not drawn.

    `exact`: without 8-bit states and remainders, which other libraries do not have.
    """
    variant = draw(st.sampled_from(variants))
    options = draw(changes(variant, variant.options))
    grouped, groups = draw(containers())
    if grouped:
        alike = variant.rule._alike  # what groups can't have of their own
        for group in groups:
            own = draw(changes(variant, {**variant.options, **options}))
            group.settings = {name: own[name] for name in own if name not in alike}
    params, copies, kinds = {}, {}, []
    for owner, name in ((group, name) for group in groups for name in group.names):
        params[name] = draw(placed(draw(shapes), draw(dtypes)))
        narrow = narrower(DTYPES, params[name].view.itemsize)
        wanted = draw(st.sampled_from([None, None, *narrow]))
        copies[name] = wanted and draw(placed(params[name].view.shape, wanted))
        settings = {**settings_of(variant), **options, **owner.settings}
        mine = settings, params[name].view.dtype
        kinds.append((owner, *mine))
    averages = st.none() | fractions | scheduled_numbers(fractions)
    extras = {
        "clip_norm": st.none() | st.just(math.inf) | limits | scheduled_numbers(limits),
        "nonfinite": st.sampled_from(["propagate", "propagate", "skip", "raise"]),
        "ema_decay": st.none() if RULES[variant.rule.__name__].average else averages,
    }
    drawn = {name: draw(each) for name, each in extras.items() if name not in fixed}
    drawn |= draw(storages(variant, [mine for _, *mine in kinds], exact))
    if grouped and not exact and draw(st.booleans()):
        own = [mine for owner, *mine in kinds if owner is groups[-1]]
        groups[-1].settings["state_dtype"] = draw(state_dtypes(variant, own, exact))
    return Setup(variant, options, grouped, groups, params, copies, drawn | fixed)


limits = st.floats(1e-3, 100.0)
fractions = st.floats(0.0, 1.0, exclude_max=True)
scales = st.sampled_from([1.0, 1.0, 0.5, 1 / 3, 1024.0, 1e-30, 1e30])
absent = st.sampled_from([False] * 5 + [True])


@st.composite
def gradients(draw: Any, setup: Setup) -> dict[str, Any]:
    """By name: an array of any dtype and layout; a number, for a parameter without axes; or None."""
    grads: dict[str, Any] = {}
    for name, param in setup.params.items():
        if draw(absent):
            grads[name] = None
            continue
        grad = draw(placed(param.view.shape, draw(dtypes), shared=True)).view
        if not param.view.shape and draw(st.booleans()):
            grad = grad[()] if draw(st.booleans()) else float(grad)
        grads[name] = grad
    return grads
