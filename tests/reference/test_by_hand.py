"""The reference against every formula once more, on single Python floats, and against small numbers by hand.

A Python float is an IEEE double, and one operation on floats rounded to float32 afterwards is the
float32 operation (53 >= 2 * 24 + 2 bits; the values here stay clear of subnormals).
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, rng_for
from reference import RULES, Reference, assert_same_bits, store

name_of = str  # pytest's ids of dtypes


class Single(float):
    def __new__(cls, x):
        return super().__new__(cls, struct.unpack("f", struct.pack("f", x))[0])

    def __add__(self, other):
        return Single(float(self) + float(other))

    def __sub__(self, other):
        return Single(float(self) - float(other))

    def __mul__(self, other):
        return Single(float(self) * float(other))

    def __truediv__(self, other):
        return Single(float(self) / float(other))

    def __neg__(self):
        return Single(-float(self))


def gradient_by_hand(T, p, g, o, l2):
    if o["clip_value"]:
        g = min(max(g, -T(o["clip_value"])), T(o["clip_value"]))
    if o["maximize"]:
        g = -g
    if l2 and o["weight_decay"]:
        g = g + T(o["weight_decay"]) * p
    if o["l1"]:
        g = g + T(o["l1"]) * T((p > 0) - (p < 0))
    return g


def sgd_by_hand(T, p, g, s, o, t):
    lr, mu, b = T(o["lr"]), T(o["momentum"]), s.get("momentum_buffer")
    if b is None:
        return p - lr * g
    if o["lr_in_velocity"]:
        b = s["momentum_buffer"] = (mu * b) + (lr * g)
        if o["nesterov"]:
            return p - ((mu * b) + (lr * g))
        return p - b
    b = g if t == 1 else (mu * b) + (T(1 - o["dampening"]) * g)
    s["momentum_buffer"] = b
    return p - (lr * (g + (mu * b))) if o["nesterov"] else p - (lr * b)


def rmsprop_by_hand(T, p, g, s, o, t):
    alpha, rest, eps, lr = T(o["alpha"]), T(1 - o["alpha"]), T(o["eps"]), T(o["lr"])
    u = s["square_avg"] = (alpha * s["square_avg"]) + (rest * (g * g))
    if o["centered"]:
        a = s["grad_avg"] = (alpha * s["grad_avg"]) + (rest * g)
        u = max(u - (a * a), T(0))
    d = T(math.sqrt(u + eps)) if o["eps_inside_sqrt"] else T(math.sqrt(u)) + eps
    if "momentum_buffer" not in s:
        return p - (lr * (g / d))
    b = s["momentum_buffer"] = (T(o["momentum"]) * s["momentum_buffer"]) + (g / d)
    return p - (lr * b)


def adam_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    w = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    if o["amsgrad"]:
        w = s["max_exp_avg_sq"] = max(s["max_exp_avg_sq"], w)
    top = T(o["lr"] / (1 - math.pow(beta1, t))) * m
    bottom = (T(math.sqrt(w)) * T(1 / math.sqrt(1 - math.pow(beta2, t)))) + T(o["eps"])
    return p - (top / bottom)


def adamw_by_hand(T, p, g, s, o, t):
    if o["weight_decay"]:
        p = p * T(1 - o["lr"] * o["weight_decay"])
    return adam_by_hand(T, p, g, s, o, t)


class ByHand(NamedTuple):
    update: Any
    options: dict[str, Any]  # of which each choice is worked
    numbers: dict[str, Any]  # that round differently in float32, and an epsilon that is felt


SGD_OPTIONS = {"dampening": 0.6, "nesterov": True, "lr_in_velocity": True}
ADAM_NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
BY_HAND = {
    "SGD": ByHand(sgd_by_hand, SGD_OPTIONS, {"lr": 0.3, "momentum": 0.9}),
    "Momentum": ByHand(sgd_by_hand, SGD_OPTIONS, {"lr": 0.3}),
    "RMSprop": ByHand(
        rmsprop_by_hand,
        {"centered": True, "eps_inside_sqrt": True, "momentum": 0.7},
        {"eps": 1e-2},
    ),
    "Adam": ByHand(adam_by_hand, {"amsgrad": True}, ADAM_NUMBERS),
    "AdamW": ByHand(adamw_by_hand, {"amsgrad": True}, ADAM_NUMBERS | {"weight_decay": 2.2}),
}


TERMS = {"clip_value": 0.8, "maximize": True, "weight_decay": 0.03, "l1": 0.007}


def subsets(options):
    for n in range(len(options) + 1):
        yield from map(dict, itertools.combinations(options.items(), n))


HAND_CASES = [
    pytest.param(rule, chosen | terms, id="-".join([rule, *chosen, *(["terms"] if terms else [])]))
    for rule, by_hand in BY_HAND.items()
    for chosen in subsets(by_hand.options)
    for terms in ({}, TERMS)
    if not ("lr_in_velocity" in chosen and "dampening" in chosen)
]


def test_every_rule_is_worked_by_hand():
    assert BY_HAND.keys() == RULES.keys()


@pytest.mark.parametrize("state_dtype", [None, np.dtype(np.float16), BFLOAT16], ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(("rule", "options"), HAND_CASES)
def test_bits_by_hand(rule, options, dtype, state_dtype):
    T, T_dtype = (float, np.float64) if dtype == np.float64 else (Single, np.float32)
    rng = rng_for(rule, dtype)
    start = rng.standard_normal(30).astype(dtype)
    by_hand = BY_HAND[rule]
    options = by_hand.numbers | options
    ours = Reference(rule, {"w": start}, state_dtype=state_dtype, **options)
    kept = {s.dtype for s in ours.state["w"].values()}
    assert kept <= {np.dtype(state_dtype or T_dtype)}
    p = [T(x) for x in start]
    states = [dict.fromkeys(ours.state["w"], T(0)) for _ in p]
    for t in (1, 2, 3):
        grads = rng.standard_normal(30).astype(dtype)
        ours.step({"w": grads})
        for i, s in enumerate(states):
            g = gradient_by_hand(T, p[i], T(grads[i]), ours.options["w"], not RULES[rule].decoupled)
            p[i] = T(store(by_hand.update(T, p[i], g, s, ours.options["w"], t), dtype))
            assert T(ours.params["w"][i]) == p[i], f"element {i}, step {t}"
            for key in s:
                s[key] = T(store(s[key], state_dtype or T_dtype))
                assert T(ours.state["w"][key][i]) == s[key], f"{key}, element {i}, step {t}"


def test_momentum_zero_has_no_state_but_a_schedule_has():
    for rule in ("SGD", "RMSprop"):
        plain = Reference(rule, {"w": np.ones(3)})
        scheduled = Reference(rule, {"w": np.ones(3)}, momentum=lambda step: 0.0)
        assert "momentum_buffer" not in plain.state["w"]
        for k in (1.0, 2.0):
            scheduled.step({"w": np.array([k, -k, k])})
        assert_same_bits(np.sign(scheduled.state["w"]["momentum_buffer"]), np.array([1.0, -1, 1]))


# Exact by hand: powers of two, so that no operation rounds.


def stepped(rule, p, *grads, **options):
    r = Reference(rule, {"w": np.array(p, np.float32)}, **options)
    for g in grads:
        r.step({"w": np.array(g, np.float32)})
    state = {k: v.tolist() for k, v in r.state["w"].items()}
    return r.params["w"].tolist(), state


def test_sgd_exact():
    assert stepped("SGD", [1, -2], [0.5, 4], lr=0.5) == ([0.75, -4], {})
    p, state = stepped("SGD", [1], [2], [4], lr=0.5, momentum=0.5, dampening=0.25)
    assert (p, state) == ([-2.0], {"momentum_buffer": [4.0]})  # b: 2, 1 + 3; p: 1 - 1 - 2
    p, _ = stepped("Momentum", [1], [2], [4], lr=0.5, momentum=0.5, nesterov=True)
    assert p == [-3.75]  # b: 2, 5; d: 2 + 1, 4 + 2.5; p: 1 - 1.5 - 3.25


def test_lr_in_velocity_exact():
    halved = {"lr": lambda step: 0.5 ** (step + 1), "momentum": 0.5}
    p, state = stepped("SGD", [1], [2], [4], **halved, lr_in_velocity=True)
    assert (p, state) == ([-1.5], {"momentum_buffer": [1.5]})  # b: 1, 0.5 + 1; p: 1 - 1 - 1.5
    p, _ = stepped("SGD", [1], [2], [4], **halved, lr_in_velocity=True, nesterov=True)
    assert p == [-2.25]  # p: 1 - (0.5 + 1) - (0.75 + 1)


def test_rmsprop_exact():
    options = {"lr": 0.5, "alpha": 0.75}
    assert stepped("RMSprop", [1], [2], eps=1, **options) == ([0.5], {"square_avg": [1.0]})
    inside, _ = stepped("RMSprop", [1], [2], eps=3, eps_inside_sqrt=True, **options)
    assert inside == [0.5]  # 1 - 0.5 * 2 / sqrt(1 + 3)
    p, state = stepped("RMSprop", [1], [4], alpha=0.5, lr=0.5, centered=True, eps=0, momentum=0.5)
    assert state == {"square_avg": [8.0], "grad_avg": [2.0], "momentum_buffer": [2.0]}
    assert p == [0.0]  # u = 8 - 2 * 2, b = 4 / 2


def test_adam_exact():
    options = {"lr": 0.75, "betas": (0.5, 0.0), "eps": 1}
    p, state = stepped("Adam", [1], [1], [3], **options)
    assert state == {"exp_avg": [1.75], "exp_avg_sq": [9.0]}
    assert p == [1 - 0.75 / 2 - 1.75 / 4]  # lr / (1 - beta1^t): 1.5, 1
    _, state = stepped("Adam", [1], [3], [1], amsgrad=True, **options)
    assert (state["exp_avg_sq"], state["max_exp_avg_sq"]) == ([1.0], [9.0])
    p, _ = stepped("AdamW", [4], [1], weight_decay=2 / 3, **options)
    assert p == [4 * 0.5 - 0.75 / 2]


def test_gradient_terms_exact():
    p, g = [1, -1, 0, -0.0, 2], [8, -8, 1, 1, -1]
    assert stepped("SGD", p, g, lr=1, clip_value=2)[0] == [-1, 1, -1, -1, 3]
    assert stepped("SGD", p, g, lr=1, clip_value=2, maximize=True)[0] == [3, -3, 1, 1, 1]
    assert stepped("SGD", p, g, lr=1, maximize=True, weight_decay=0.5)[0] == [8.5, -8.5, 1, 1, 0]
    assert stepped("SGD", p, g, lr=1, maximize=True, l1=0.5)[0] == [8.5, -8.5, 1, 1, 0.5]


def test_store_float32_rounds_once():
    x = rng_for("single").standard_normal(1000)
    assert store(x, np.float32).tolist() == [Single(v) for v in x.tolist()]
