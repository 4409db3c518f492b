"""The reference against every formula once more (`by_hand`), and against small numbers by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from by_hand import BY_HAND, Single
from by_hand.single import sign, size
from cases import BFLOAT16, DTYPES, rng_for
from reference import RULES, Reference, assert_same_bits, store

name_of = str  # pytest's ids of dtypes


def gradient_by_hand(T, p, g, o, rule):
    if o["clip_value"]:
        g = min(max(g, -T(o["clip_value"])), T(o["clip_value"]))
    if o["maximize"]:
        g = -g
    if o["weight_decay"] and rule.has_l2(SimpleNamespace(**o)):
        g = g + T(o["weight_decay"]) * p
    if o["l1"] and not (rule.own_l1 or o["decoupled_l1"]):
        g = g + T(o["l1"]) * sign(T, p)
    return g


def shrunk_by_hand(T, p, o, rule):
    """Decoupled L1, after the rule."""
    rate = o.get("rate", o["lr"])
    if not o["decoupled_l1"] or not o["l1"] or rule.own_l1 or rate is None:
        return p
    return sign(T, p) * max(size(p) - T(rate * o["l1"]), T(0))


TERMS = {"clip_value": 0.8, "maximize": True, "weight_decay": 0.03, "l1": 0.007}


def choices(options):
    """Up to two of the options, and nearly all."""
    for n in range(len(options) + 1):
        if n <= 2 or n >= len(options) - 1:
            yield from map(dict, itertools.combinations(options.items(), n))


# The terms of the gradient do not depend on the options: most choices are worked with all terms alone.
HAND_CASES = [
    pytest.param(rule, terms | chosen, id="-".join([rule, *chosen, *list(terms)[3:]]))
    for rule, by_hand in BY_HAND.items()
    for chosen in choices(by_hand.options)
    for terms in (TERMS, {}, TERMS | {"decoupled_l1": True})[: 3 if len(chosen) < 2 else 1]
    if not ("lr_in_velocity" in chosen and "dampening" in chosen)
]


def test_every_rule_is_worked_by_hand():
    assert BY_HAND.keys() == RULES.keys()


# How a format is rounded does not depend on the rule: each case is worked in float32, where a number that is left in
# double shows, and in one of the other formats in turn.
HAND_FORMATS = [(dtype, None) for dtype in DTYPES] + [
    (DTYPES[0], np.dtype(np.float16)),
    (DTYPES[1], BFLOAT16),
    (BFLOAT16, np.dtype(np.float16)),
]
OTHER_FORMATS = [HAND_FORMATS[0], *HAND_FORMATS[2:]]


@pytest.mark.parametrize(
    ("rule", "options", "dtype", "state_dtype"),
    [
        pytest.param(*case.values, *formats, id="-".join([str(case.id), *map(name_of, formats)]))
        for case, other in zip(HAND_CASES, itertools.cycle(OTHER_FORMATS))
        for formats in (HAND_FORMATS[1], other)
    ],
)
def test_bits_by_hand(rule, options, dtype, state_dtype):
    T, T_dtype = (float, np.float64) if dtype == np.float64 else (Single, np.float32)
    rng = rng_for(rule, dtype)
    by_hand = BY_HAND[rule]
    start = rng.standard_normal(by_hand.shape).astype(dtype)
    options = by_hand.numbers | options
    ours = Reference(rule, {"w": start}, state_dtype=state_dtype, **options)
    for name, state in ours.state["w"].items():
        wide = np.dtype(np.float64) if name in RULES[rule].scalars else np.dtype(T_dtype)
        stays = {*RULES[rule].iterates, *RULES[rule].scalars}
        assert state.dtype == (wide if name in stays or state_dtype is None else state_dtype)
    p = [T(x) for x in start.ravel()]
    scalars = RULES[rule].scalars
    states = [{key: 0.0 if key in scalars else T(0) for key in ours.state["w"]} for _ in p]
    for t in range(1, 1 + by_hand.steps):
        grads = rng.standard_normal(by_hand.shape).astype(dtype)
        ours.step({"w": grads})
        grads, found = grads.ravel(), ours.params["w"].ravel()
        o = dict(ours.options["w"])
        rows = [
            (p[i], gradient_by_hand(T, p[i], T(grads[i]), o, RULES[rule]), s)
            for i, s in enumerate(states)
        ]
        if by_hand.sums is not None:
            o |= by_hand.sums(T, rows, o, t)
        for i, (before, g, s) in enumerate(rows):
            after = by_hand.update(T, before, g, s, o, t)
            p[i] = T(store(shrunk_by_hand(T, after, o, RULES[rule]), dtype))
            assert T(found[i]) == p[i], f"element {i}, step {t}"
            for key in s:
                kept = ours.state["w"][key]
                if key in scalars:
                    assert float(kept) == s[key], f"{key}, step {t}"
                    continue
                s[key] = T(store(s[key], kept.dtype))
                assert T(kept.ravel()[i]) == s[key], f"{key}, element {i}, step {t}"


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
