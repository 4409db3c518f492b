"""What storage_training.py compares: ways to store states and parameters, and the optimizers that they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

import instep

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Choice:
    """One way to store states and parameters."""

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the optimizer
    bfloat16: bool = False  # the parameters
    # A float32 state that is encoded in 8 bits and decoded after every step, by a rounding: what its storage would do.
    tried: tuple[str, str] | None = None
    nudged: bool = False  # the weights of the start are changed in their last place


FLOAT32 = Choice("float32")
# What chance alone does: a run is chaotic, and rounding is one more nudge.
NUDGED = Choice("float32, from a start one last place away", nudged=True)


def _states(label: str, state_dtype: Any) -> list[Choice]:
    return [
        Choice(f"{label}, {rounding}", {"state_dtype": state_dtype, "rounding": rounding})
        for rounding in ("nearest", "stochastic")
    ]


def _parameters() -> list[Choice]:
    found = [
        Choice(
            "bfloat16 parameters, remainder of 16 bits, float32 states",
            {"master_bits": 32},
            bfloat16=True,
        )
    ]
    for bits, what in (
        (32, "remainder of 16 bits"),
        (24, "remainder of 8 bits"),
        (None, "no remainder"),
    ):
        for rounding in ("nearest",) if bits == 32 else ("nearest", "stochastic"):
            options = {"state_dtype": "8bit", "master_bits": bits, "param_rounding": rounding}
            rounded = "" if bits == 32 else f", {rounding}"
            label = f"bfloat16 parameters, {what}{rounded}, 8-bit states"
            found.append(Choice(label, options, bfloat16=True))
    return found


STATES = [
    *_states("bfloat16 states", "bfloat16"),
    *_states("float16 states", "float16"),
    *_states("8-bit states", "8bit"),
]
PARAMETERS = _parameters()


def _tried(state: str, options: Mapping[str, Any]) -> list[Choice]:
    return [
        Choice(f"`{state}` in 8 bits, {rounding}", options, tried=(state, rounding))
        for rounding in ("nearest", "stochastic")
    ]


ADANS_OTHERS = {"state_dtype": dict.fromkeys(("exp_avg", "exp_avg_diff", "exp_avg_sq"), "8bit")}


NETWORKS = ("digits", "convolutions", "characters")


@dataclass(frozen=True)
class Setting:
    """A rule, and the choices that are compared under it; the first is what all are compared with."""

    rule: str
    hyperparameters: Mapping[str, Any]
    choices: list[Choice]
    lr: float | None = None  # the problem's
    problems: tuple[str, ...] = NETWORKS
    steps: int | None = None  # the problem's

    @property
    def tracked(self) -> Tracked | None:
        make = TRACKED.get(self.rule)
        return make(self.hyperparameters) if make else None


class Tracked:
    """The second moment that a run would have in float32, from the same gradients."""

    state: str

    def __init__(self, hyperparameters: Mapping[str, Any]) -> None:
        self.values: Arrays = {}

    def see(self, grads: Arrays) -> None:
        for name, grad in grads.items():
            self.values[name] = self.next(name, self.values.get(name, np.float32(0)), grad)

    def next(self, name: str, value: np.ndarray | np.float32, grad: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class OfAdam(Tracked):
    state = "exp_avg_sq"

    def __init__(self, hyperparameters: Mapping[str, Any]) -> None:
        super().__init__(hyperparameters)
        beta = hyperparameters["betas"][-1]
        self.kept, self.new = np.float32(beta), np.float32(1 - beta)

    def next(self, name: str, value: np.ndarray | np.float32, grad: np.ndarray) -> np.ndarray:
        return self.kept * value + self.new * (grad * grad)


class OfAdan(OfAdam):
    def __init__(self, hyperparameters: Mapping[str, Any]) -> None:
        super().__init__(hyperparameters)
        self.share = np.float32(hyperparameters["betas"][1])
        self.previous: Arrays = {}

    def next(self, name: str, value: np.ndarray | np.float32, grad: np.ndarray) -> np.ndarray:
        change = grad - self.previous.get(name, grad)
        self.previous[name] = grad
        return super().next(name, value, grad + self.share * change)


class OfAdagrad(Tracked):
    state = "sum"

    def next(self, name: str, value: np.ndarray | np.float32, grad: np.ndarray) -> np.ndarray:
        return value + grad * grad


TRACKED: dict[str, Callable[[Mapping[str, Any]], Tracked]] = {
    "AdamW": OfAdam,
    "Adan": OfAdan,
    "Adagrad": OfAdagrad,
}
SETTINGS = {
    "AdamW, beta2 0.999": Setting(
        "AdamW", {"betas": (0.9, 0.999)}, [FLOAT32, NUDGED, *STATES, *PARAMETERS]
    ),
    "AdamW, beta2 0.95": Setting(
        "AdamW", {"betas": (0.9, 0.95)}, [FLOAT32, NUDGED, *STATES, *PARAMETERS]
    ),
    "Adan": Setting(
        "Adan",
        {"betas": (0.98, 0.92, 0.99)},
        [
            FLOAT32,
            NUDGED,
            Choice("8-bit states, `previous_grad` in float32", ADANS_OTHERS),
            *_tried("previous_grad", ADANS_OTHERS),
        ],
    ),
    "Adagrad": Setting(
        "Adagrad",
        {},
        [FLOAT32, NUDGED, STATES[1], *_tried("sum", {})],
        lr=0.02,
        problems=(*NETWORKS, "clicks"),
    ),
}

# Every other rule with states that have fewer bits, at a rate that suits the perceptron.
RATES = {
    "Momentum": 0.1,
    "LARS": 2.0,
    "Signum": 0.003,
    "Lion": 0.001,
    "Adadelta": 2.0,
    "RMSprop": 0.002,
    "Adam": 0.005,
    "Adamax": 0.01,
    "NAdam": 0.005,
    "RAdam": 0.005,
    "AdaBelief": 0.005,
    "Yogi": 0.01,
    "ADOPT": 0.005,
    "AdEMAMix": 0.005,
    "ScheduleFreeAdamW": 0.01,
    "LAMB": 0.005,
    "Prodigy": 1.0,
}
BY_DEFAULT = [
    FLOAT32,
    Choice("8-bit states", {"state_dtype": "8bit"}),
    Choice("bfloat16 states", {"state_dtype": "bfloat16"}),
]
OTHERS = {rule: Setting(rule, {}, BY_DEFAULT, lr, ("digits",), 1000) for rule, lr in RATES.items()}
SETTINGS |= OTHERS

# --- An optimizer with a choice


class Stepper:
    """An optimizer over a network's parameters, which hold what it has stored after every step."""

    def __init__(
        self, setting: Setting, choice: Choice, params: Arrays, more: Mapping[str, Any], seed: int
    ) -> None:
        self._choice, self._params = choice, params
        self.stored = params
        if choice.nudged:
            for w in params.values():
                np.nextafter(w, np.float32(2), out=w)
        if choice.bfloat16:
            self.stored = {k: w.astype(ml_dtypes.bfloat16) for k, w in params.items()}
            self._show()
        options = {**setting.hyperparameters, **more, **choice.options}
        if options.keys() & {"rounding", "param_rounding", "state_dtype"}:
            options["seed"] = seed
        self.optimizer = getattr(instep, setting.rule)(self.stored, **options)
        self._rng = np.random.default_rng(seed)

    def step(self, grads: Arrays) -> None:
        self.optimizer.step(grads)
        if self._choice.bfloat16:
            self._show()
        if self._choice.tried:
            state, rounding = self._choice.tried
            signed = state == "previous_grad"
            for states in self.optimizer.state.values():
                if states[state].size >= LEAST_CODED:
                    states[state][...] = through_8_bits(
                        states[state], signed, self._rng if rounding == "stochastic" else None
                    )

    def _show(self) -> None:
        for name, stored in self.stored.items():
            self._params[name][...] = stored

    def narrow(self, state: str) -> dict[str, np.ndarray]:
        """The state's values, of the parameters for which it is stored in fewer bits than float32 has."""
        found = {}
        for name, states in self.optimizer.state.items():
            values = states[state]
            if f"{state}_unit" in states:
                values = instep.storage.decode(values, states[f"{state}_unit"])
            elif values.dtype == np.float16:
                root = values.astype(np.float32)
                values = root * root
            elif not (self._choice.tried and self._choice.tried[0] == state):
                if values.dtype == np.float32:
                    continue
                values = values.astype(np.float32)
            found[name] = values
        return found


BLOCK, MOST_SIGNED, MOST = 64, 127, 255
LEAST_CODED = 4096  # elements of a parameter whose states are coded (min_8bit_size)


def through_8_bits(values: np.ndarray, signed: bool, rng: np.random.Generator | None) -> np.ndarray:
    """What is left of float32 values that are stored in 8 bits: at random with a generator, else to nearest.

    docs/semantics.md has the code, of which this is a plain form.
    """
    most = np.float32(MOST_SIGNED if signed else MOST)
    blocks = math.ceil(values.size / BLOCK)
    x = np.zeros((blocks, BLOCK), np.float32)
    x.reshape(-1)[: values.size] = values.ravel()
    roots = np.sqrt(np.abs(x))
    largest = roots.max(axis=1, keepdims=True)
    scaled = roots * np.divide(most, largest, out=np.zeros_like(largest), where=largest > 0)
    added = np.float32(0.5) if rng is None else (rng.integers(256, size=x.shape) + 0.5) / 256
    codes = np.minimum(np.trunc(scaled + added), most).astype(np.float32)
    if not signed:
        codes = np.where(x > 0, np.maximum(codes, 1), codes)
    decoded = codes * (largest / most)
    decoded = np.copysign(decoded * decoded, x)
    return decoded.reshape(-1)[: values.size].reshape(values.shape)
