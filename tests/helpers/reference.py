"""The arithmetic of a step in plain NumPy: the compiled library must equal this bit by bit.

`T` is the type of the arithmetic: float64 for float64 parameters, float32 for float32, float16 and
bfloat16 parameters. Every array operation below is one rounded operation in T. Scalars are computed
in double, as Python floats, and rounded once by `T(...)`. This also keeps NumPy's promotion rules,
old (value-based) and new (NEP 50), from choosing another type.

The rules are in `formulas`. Arguments are not validated here: the library does this, and other tests
check it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from formulas import RULES
from formulas.rule import maximum, minimum
from kept import Storage, put
from norms import limited
from random_numbers import Draws
from rounding import compute_type, load, store

# --- Around a rule: the gradient's terms.


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
    by a parameter's name, the options in which this parameter differs from the others; `state_dtype`
    may be among them. `state_dtype`, `rounding`, `param_rounding`, `master_bits` and `min_8bit_size`
    are as in `Storage`. `copy_dtype` is one dtype for all parameters, or a dtype by name, None for a
    parameter without a copy. The caller's arrays are never written to.
    """

    def __init__(
        self,
        rule: str,
        params: Mapping[str, np.ndarray],
        *,
        state_dtype: Any = None,
        rounding: str = "stochastic",
        param_rounding: str = "nearest",
        seed: int = 0,
        master_bits: int | None = None,
        min_8bit_size: int = 4096,
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
        own = {name: dict(settings) for name, settings in (groups or {}).items()}
        storage = Storage(state_dtype, rounding, param_rounding, master_bits, min_8bit_size)
        storages = {
            n: storage._replace(state_dtype=settings.pop("state_dtype"))
            for n, settings in own.items()
            if "state_dtype" in settings
        }
        self.options = {n: {**shared, **own[n]} if own.get(n) else shared for n in params}
        self.seed = seed
        self.clip_norm, self.nonfinite, self.ema_decay = clip_norm, nonfinite, ema_decay
        self.params = {name: np.array(p) for name, p in params.items()}
        self.kept_params, self.kept_states = {}, {}
        for name, p in self.params.items():
            kept = storages.get(name, storage)
            states = kept.of_states(rule, p)
            self.kept_params[name] = kept.of_parameter(p)
            self.kept_states[name] = {
                key: states[key]
                for key, option in self.rule.states.items()
                if self.rule.has(option, self.options[name])
            }
        joint = {key: np.zeros(()) for key in self.rule.scalars if self.rule.joint}
        self.state = {name: self._made(name, p.shape, joint) for name, p in self.params.items()}
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

    def _made(
        self, name: str, shape: tuple[int, ...], joint: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """All arrays of a parameter, as the library shows them."""
        made = {}
        for state in self.kept_states[name].values():
            made |= state.made(shape)
        for key, option in self.rule.scalars.items():
            if self.rule.has(option, self.options[name]):
                made[key] = joint.get(key, np.zeros(()))
        return made | self.kept_params[name].made(shape)

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
            T = compute_type(p.dtype)
            h = SimpleNamespace(**self.options[name])
            average = self.rule.average(self.value(name), self._read(name), h, T)
            shown[name] = store(average, p.dtype) if self.steps[name] else p.copy()
        return shown

    def reset_remainders(self) -> None:
        """The parameters are what the caller's arrays are."""
        for arrays in self.state.values():
            if "remainder" in arrays:
                arrays["remainder"][...] = 0

    def value(self, name: str) -> np.ndarray:
        """A parameter in T, with its remainder."""
        return self.kept_params[name].read(self.params[name], self.state[name])

    def _read(self, name: str) -> dict[str, Any]:
        """The states of a parameter in T, and the states that are one double."""
        arrays, kept = self.state[name], self.kept_states[name]
        scalars = {key: float(arrays[key]) for key in self.rule.scalars if key in arrays}
        return {key: state.read(arrays) for key, state in kept.items()} | scalars

    def _part(
        self, name: str, grad: Any, h: SimpleNamespace, scale: float | None
    ) -> SimpleNamespace:
        """What the rule gets of a parameter, with a gradient after all its lines."""
        T = compute_type(self.params[name].dtype)
        self.steps[name] += 1
        p, s = self.value(name), self._read(name)
        h = SimpleNamespace(**vars(h), rate=h.lr)
        rule, t = self.rule, self.steps[name]
        g = gradient(grad, p, h, scale, rule.has_l2(h), not (rule.own_l1 or h.decoupled_l1), T)
        assert g.shape == p.shape, f"{name}: gradient {g.shape} for a parameter {p.shape}"
        return SimpleNamespace(p=p, g=g, s=s, h=h, t=t, T=T)

    def _update(self, name: str, part: SimpleNamespace) -> None:
        rule, T, h, s = self.rule, part.T, part.h, part.s
        draws = Draws(self.seed, list(self.params).index(name), part.t)
        p = rule.update(part.p, part.g, s, h, part.t, T)
        if h.decoupled_l1 and h.l1 and not rule.own_l1 and h.rate is not None:
            p = shrunk(p, h.rate * h.l1, T)
        self.kept_params[name].write(self.params[name], self.state[name], p, draws)
        if self.averages:
            e = self.averages[name]
            rate = T(1 - at(self.ema_decay, self.step_count))
            put(e, p if rate == 1 else e + rate * (p - e))
        if name in self.copies:
            put(self.copies[name], p)
        for key, value in s.items():
            if key in rule.scalars:
                self.state[name][key][...] = value
            else:
                self.kept_states[name][key].write(self.state[name], value, draws)


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
