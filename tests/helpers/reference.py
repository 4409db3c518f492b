"""The arithmetic of a step in plain NumPy: the compiled library must equal this bit by bit.

`T` is the type of the arithmetic: float64 for float64 parameters, float32 for float32, float16 and
bfloat16 parameters. Every array operation below is one rounded operation in T. Scalars are computed
in double, as Python floats, and rounded once by `T(...)`. This also keeps NumPy's promotion rules,
old (value-based) and new (NEP 50), from choosing another type.

The rules are in `formulas`. Arguments are not validated here: the library does this, and other tests
check it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from formulas import RULES
from formulas.rule import maximum, minimum
from formulas.sums import CHUNK, pairwise_tree, sum_of_squares

# --- Around a rule: conversion, the gradient's terms, the norm.


def compute_type(dtype: Any) -> type[np.floating]:
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def load(x: Any, T: type[np.floating]) -> np.ndarray:
    """`x` in T: exact for the narrower formats; float64 to float32 rounds once."""
    return np.asarray(x).astype(T)


@np.errstate(all="ignore")
def store(x: Any, dtype: Any) -> np.ndarray:
    """Round `x` to `dtype` once, to nearest even.

    bfloat16 needs care: ml_dtypes converts float64 through float32 and so may round twice. The
    numbers of bfloat16 have 8 significant bits and are multiples of 2**-133. So the spacing around
    each element is scaled to 1, the element is rounded to an integer and scaled back. The result is
    exact in bfloat16, or too large for it, and the last conversion no longer rounds.
    """
    x = np.asarray(x)
    if x.dtype != dtype and np.dtype(dtype).name == "bfloat16":
        x = x.astype(np.float64)
        _, exponent = np.frexp(x)  # 0.5 * 2**exponent <= |x| < 2**exponent
        spacing = np.maximum(exponent - 8, -133)
        x = np.ldexp(np.rint(np.ldexp(x, -spacing)), spacing)
    return x.astype(dtype)


def put(kept: np.ndarray, value: Any, T: type[np.floating]) -> None:
    assert value.dtype == T, f"computed in {value.dtype}, not in {T.__name__}"
    kept[...] = store(value, kept.dtype)


def gradient(
    grad: Any, p: Any, h: SimpleNamespace, scale: float | None, l2: bool, l1: bool, T: Any
) -> Any:
    """The gradient that the rule gets: each line applies only if its option is set."""
    g = load(grad, T)
    if scale is not None:
        g = g * T(scale)
    if h.clip_value:
        g = minimum(maximum(g, -T(h.clip_value)), T(h.clip_value))
    if h.maximize:
        g = -g
    if l2 and h.weight_decay:
        g = g + T(h.weight_decay) * p
    if l1 and h.l1:
        g = g + T(h.l1) * np.sign(p)  # sign is +0 at either zero, NaN at NaN
    return g


def shrunk(p: Any, amount: float, T: Any) -> Any:
    """Decoupled L1: every element moves towards 0 by the amount, and stops there."""
    return np.sign(p) * maximum(np.abs(p) - T(amount), T(0))


def root_and_exponent(gradients: Iterable[np.ndarray]) -> tuple[float, int]:
    """The norm of all gradients (in their T) together, as root * 2**exponent; the exponent is nearly always 0.

    No chunk spans two gradients. If squares of finite gradients overflow or vanish, the gradients
    are scaled by a power of two that brings the largest below 1.
    """
    flat = [g.ravel(order="C") for g in gradients]
    chunks = [g[i : i + CHUNK] for g in flat for i in range(0, len(g), CHUNK)]
    if not chunks:
        return 0.0, 0
    total = pairwise_tree(np.concatenate([sum_of_squares(chunk) for chunk in chunks]))[0]
    largest = max(float(np.max(np.abs(chunk), initial=0)) for chunk in chunks)
    if not math.isfinite(largest) or largest == 0 or 2.0**-960 <= total < math.inf:
        return math.sqrt(total), 0
    exponent = math.frexp(largest)[1]
    scaled = [np.ldexp(chunk.astype(np.float64), -exponent) for chunk in chunks]
    total = pairwise_tree(np.concatenate([sum_of_squares(chunk) for chunk in scaled]))[0]
    return math.sqrt(total), exponent


@np.errstate(all="ignore")
def norm(gradients: Iterable[np.ndarray]) -> float:
    """The norm of all gradients (in their T) together."""
    root, exponent = root_and_exponent(gradients)
    return ldexp(root, exponent)


def ldexp(x: float, exponent: int) -> float:
    """x * 2**exponent, rounded once; infinite if it is too large."""
    return float(np.ldexp(x, exponent))


@np.errstate(all="ignore")
def limited(
    gradients: Iterable[np.ndarray],
    limit: float | None,
    grad_scale: float,
    nonfinite: str,
) -> tuple[float | None, float | None, bool]:
    """The factor of the gradients, the norm, which is that of the gradients times grad_scale, and whether to skip."""
    gradients = list(gradients)
    guarded = nonfinite != "propagate"
    bad = guarded and not all(np.isfinite(g).all() for g in gradients)
    if bad and nonfinite == "raise":
        raise FloatingPointError  # and nothing has changed
    grad_norm = None
    if limit or guarded:
        root, exponent = root_and_exponent(gradients)
        root = grad_scale * root
        grad_norm = ldexp(root, exponent)
        if limit and grad_norm > limit:
            return grad_scale * ldexp(limit / root, -exponent), grad_norm, bad
    return None if grad_scale == 1 else grad_scale, grad_norm, bad


def at(value: Any, step: int) -> Any:
    """An option's value at this step: schedules are called, numbers become Python floats."""
    if callable(value):
        value = value(step)
    if isinstance(value, (tuple, list)):
        return tuple(at(v, step) for v in value)
    return value if value is None or isinstance(value, (bool, str)) else float(value)


class Reference:
    """An optimizer over named arrays: `rule` and `options` as in the public classes.

    Any number among the options may be a callable of the number of completed steps. `groups` has,
    by a parameter's name, the options in which this parameter differs from the others. The states
    have `state_dtype`, or else their parameter's T. `copy_dtype` is one dtype for all parameters,
    or a dtype by name, None for a parameter without a copy. The caller's arrays are never written
    to.
    """

    def __init__(
        self,
        rule: str,
        params: Mapping[str, np.ndarray],
        *,
        state_dtype: Any = None,
        clip_norm: Any = None,
        nonfinite: str = "propagate",
        ema_decay: Any = None,
        copy_dtype: Any = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        self.rule = RULES[rule]
        if unknown := options.keys() - self.rule.defaults.keys():
            raise TypeError(f"{rule} has no option {', '.join(sorted(unknown))}")
        shared = {**self.rule.defaults, **options}
        own = groups or {}
        self.options = {n: {**shared, **own[n]} if n in own else shared for n in params}
        self.clip_norm, self.nonfinite, self.ema_decay = clip_norm, nonfinite, ema_decay
        self.params = {name: np.array(p) for name, p in params.items()}
        joint = {key: np.zeros(()) for key in self.rule.scalars if self.rule.joint}
        self.state = {
            name: {
                key: np.zeros(
                    p.shape,
                    compute_type(p.dtype)
                    if state_dtype is None or key in self.rule.iterates
                    else state_dtype,
                )
                for key, option in self.rule.states.items()
                # A schedule counts as true: its state is there from the start, even if the schedule
                # returns 0.
                if self._has(name, option)
            }
            | {
                key: joint.get(key, np.zeros(()))
                for key, option in self.rule.scalars.items()
                if self._has(name, option)
            }
            for name, p in self.params.items()
        }
        self.averages = {}
        if ema_decay is not None:
            self.averages = {n: load(p, compute_type(p.dtype)) for n, p in self.params.items()}
        by_name = (
            copy_dtype if isinstance(copy_dtype, Mapping) else dict.fromkeys(params, copy_dtype)
        )
        self.copies = {
            name: np.array(store(self.params[name], dtype))
            for name, dtype in by_name.items()
            if dtype is not None
        }
        self.accumulated: dict[str, np.ndarray] = {}
        self.steps = dict.fromkeys(self.params, 0)
        self.step_count = self.skipped_steps = 0
        self.grad_norm: float | None = None

    def _has(self, name: str, option: str | None) -> bool:
        """Whether a state that needs this option is there: a number for which None stands, or anything but 0."""
        if option is None:
            return True
        value = self.options[name][option]
        return value is not None if option in self.rule.none_is_off else bool(value)

    def accumulate(self, grads: Mapping[str, np.ndarray | None]) -> None:
        """Add to the gradients of the next step: the first gradient in T, each later gradient added in T."""
        self.accumulated = self._summed(grads)

    @np.errstate(all="ignore")
    def _summed(self, grads: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        sums = dict(self.accumulated)
        for name, p in self.params.items():
            if grads[name] is not None:
                g = load(grads[name], compute_type(p.dtype))
                sums[name] = sums[name] + g if name in sums else g
        return {name: sums[name] for name in self.params if name in sums}

    @np.errstate(all="ignore")
    def step(
        self, grads: Mapping[str, np.ndarray | None] | None = None, grad_scale: float = 1.0
    ) -> None:
        """One step; a parameter whose gradient is None keeps its value, states and count."""
        present = self.present(grads)
        limit = at(self.clip_norm, self.step_count)
        scale, self.grad_norm, bad = limited(present.values(), limit, grad_scale, self.nonfinite)
        self.accumulated = {}
        if bad:
            self.skipped_steps += 1
        else:
            self.update(present, scale)

    def present(self, grads: Mapping[str, np.ndarray | None] | None) -> dict[str, np.ndarray]:
        """The gradients of a step, in T; without given ones, the accumulated gradients."""
        return self.accumulated if grads is None else self._summed(grads)

    @np.errstate(all="ignore")
    def update(self, present: Mapping[str, np.ndarray], scale: float | None) -> None:
        """A step with these gradients, which are multiplied by scale if it isn't None."""
        shared = {id(options): options for options in self.options.values()}
        now = {
            key: SimpleNamespace(**{k: at(v, self.step_count) for k, v in options.items()})
            for key, options in shared.items()
        }
        parts = {
            name: self._part(name, grad, now[id(self.options[name])], scale)
            for name, grad in present.items()
        }
        if self.rule.joint and parts:
            scalars = self.rule.joint(list(parts.values()))
            for part in parts.values():
                part.s.update(scalars)
        for name, part in parts.items():
            self._update(name, part)
        self.step_count += 1

    @np.errstate(all="ignore")
    def shown(self) -> dict[str, np.ndarray]:
        """What averaged() shows: the moving averages, or the averages of the rule; empty without any."""
        shown = {name: store(e, self.params[name].dtype) for name, e in self.averages.items()}
        if self.rule.average is None:
            return shown
        for name, p in self.params.items():
            T, state = compute_type(p.dtype), self.state[name]
            s = {key: load(value, T) for key, value in state.items()}
            average = self.rule.average(load(p, T), s, SimpleNamespace(**self.options[name]), T)
            shown[name] = store(average, p.dtype) if self.steps[name] else p.copy()
        return shown

    def _part(
        self, name: str, grad: Any, h: SimpleNamespace, scale: float | None
    ) -> SimpleNamespace:
        """What the rule gets of a parameter, with a gradient after all its lines."""
        T = compute_type(self.params[name].dtype)
        self.steps[name] += 1
        p = load(self.params[name], T)
        scalars = self.rule.scalars
        s = {
            key: float(value) if key in scalars else load(value, T)
            for key, value in self.state[name].items()
        }
        h = SimpleNamespace(**vars(h), rate=h.lr)
        rule, t = self.rule, self.steps[name]
        g = gradient(grad, p, h, scale, rule.has_l2(h), not (rule.own_l1 or h.decoupled_l1), T)
        assert g.shape == p.shape, f"{name}: gradient {g.shape} for a parameter {p.shape}"
        return SimpleNamespace(p=p, g=g, s=s, h=h, t=t, T=T)

    def _update(self, name: str, part: SimpleNamespace) -> None:
        rule, T, h, s, scalars = self.rule, part.T, part.h, part.s, self.rule.scalars
        p = rule.update(part.p, part.g, s, h, part.t, T)
        if h.decoupled_l1 and h.l1 and not rule.own_l1 and h.rate is not None:
            p = shrunk(p, h.rate * h.l1, T)
        put(self.params[name], p, T)
        if self.averages:
            e = self.averages[name]
            rate = T(1 - at(self.ema_decay, self.step_count))
            put(e, p if rate == 1 else e + rate * (p - e), T)
        if name in self.copies:
            put(self.copies[name], p, T)
        for key, value in s.items():
            if key in scalars:
                self.state[name][key][...] = value
            else:
                put(self.state[name][key], value, T)


# --- Comparison.


@np.errstate(invalid="ignore")  # isnan of a signalling bfloat16 NaN warns
def different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The places where the bits differ; any NaN equals any NaN, as neither payload nor sign is promised."""
    bits = f"u{a.dtype.itemsize}"
    unequal = np.asarray(a.view(bits) != b.view(bits))
    return unequal & ~(np.isnan(a) & np.isnan(b)) if unequal.any() else unequal


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and not different(a, b).any()


def assert_same_bits(a: np.ndarray, b: np.ndarray, what: str = "") -> None:
    a, b = np.asarray(a), np.asarray(b)
    label = f"{what}: " if what else ""
    assert a.dtype == b.dtype, f"{label}dtype {a.dtype} against {b.dtype}"
    assert a.shape == b.shape, f"{label}shape {a.shape} against {b.shape}"
    unequal = different(a, b)
    if unequal.any():
        wrong = np.argwhere(unequal)
        first = tuple(int(i) for i in wrong[0])
        digits = 2 * a.dtype.itemsize
        values = [
            f"{float(x[first])!r} (0x{int(x[first].view(f'u{x.dtype.itemsize}')):0{digits}x})"
            for x in (a, b)
        ]
        raise AssertionError(
            f"{label}{len(wrong)} of {a.size} elements differ, "
            f"the first at {first}: {values[0]} against {values[1]}"
        )


def assert_follows(
    optimizer: Any, params: Mapping[str, np.ndarray], reference: Reference, what: str = ""
) -> None:
    """The optimizer has the caller's parameters; they, the states and averages have the reference's bits."""
    where = f" {what}" if what else ""
    assert optimizer.params.keys() == params.keys() == reference.params.keys()
    assert optimizer.averages.keys() == reference.averages.keys()
    for name, wanted in reference.params.items():
        assert optimizer.params[name] is params[name]
        assert_same_bits(params[name], wanted, f"{name}{where}")
        assert optimizer.state[name].keys() == reference.state[name].keys()
        for state, values in reference.state[name].items():
            assert_same_bits(optimizer.state[name][state], values, f"{state} of {name}{where}")
    for name, average in reference.averages.items():
        assert_same_bits(optimizer.averages[name], average, f"average of {name}{where}")
