"""The reference against every formula once more (`by_hand`), and against small numbers by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from by_hand import BY_HAND, Single
from by_hand.single import root as root_of
from by_hand.single import sign, size
from by_hand.stored import (
    bfloat16_by_hand,
    byte_of,
    decode_by_hand,
    encode_by_hand,
    float16_by_hand,
    half_of,
    join_by_hand,
    split_by_hand,
    word,
)
from cases import BFLOAT16, DTYPES, rng_for
from kept import CODED
from kinds import KINDS
from reference import RULES, Reference, assert_same_bits, compute_type, store

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
# double shows, and in one of the other formats in turn; each rule once in every format.
HALF = np.dtype(np.float16)
CODES = {"state_dtype": CODED, "min_8bit_size": 1}
HAND_FORMATS = [(dtype, {}) for dtype in DTYPES] + [
    (DTYPES[0], {"state_dtype": HALF}),
    (DTYPES[0], {"state_dtype": HALF, "rounding": "nearest"}),
    (DTYPES[0], {"state_dtype": DTYPES[1]}),
    (DTYPES[1], {"state_dtype": BFLOAT16, "seed": 5}),
    (DTYPES[1], {"state_dtype": BFLOAT16, "rounding": "nearest"}),
    (BFLOAT16, {"state_dtype": HALF, "param_rounding": "stochastic"}),
    (HALF, {"param_rounding": "stochastic", **CODES}),
    (DTYPES[1], {**CODES, "seed": 2**64 - 1}),
    (DTYPES[1], {**CODES, "rounding": "nearest"}),
    (BFLOAT16, {"master_bits": 32, **CODES}),
    (BFLOAT16, {"master_bits": 24}),
    (BFLOAT16, {"master_bits": 24, "param_rounding": "stochastic"}),
]
OTHER_FORMATS = [HAND_FORMATS[0], *HAND_FORMATS[2:]]


def put_by_hand(T, kept, values, root, draw):
    """Round all elements of a state or parameter; `draw` has 16 random bits for each, or is None."""
    rounded = []
    for i, value in enumerate(values):
        x = root_of(T, value) if root else value
        if draw is None:
            x = T(store(x, kept.dtype))
        else:
            by_hand = bfloat16_by_hand if kept.dtype == BFLOAT16 else float16_by_hand
            x = T(np.uint16(by_hand(Single(x), draw(i))).view(kept.dtype))
        assert T(kept[i]) == x, f"element {i}"
        rounded.append(x * x if root else x)
    return rounded


def put_state_by_hand(T, arrays, kept, values, random):
    """The same for a state in any format; returns what the next step reads."""
    k, kind, own = kept.number, kept.kind, arrays[kept.name].ravel()
    if kept.dtype is not None:
        draw = (lambda i: half_of(*random, k, i)) if kept.at_random else None
        root = kind.root and kept.dtype == HALF
        return put_by_hand(T, own, values, root, draw)
    assert len(values) <= 64
    at = [(byte_of(*random, k, i) + 0.5) / 256 for i in range(len(values))]
    places = at if kept.at_random else [0.5] * len(values)
    codes, unit = encode_by_hand(values, kind.signed, places)
    assert own.tolist() == codes
    assert arrays[f"{kept.name}_unit"].tolist() == [unit]
    return [decode_by_hand(q, unit, kind.signed) for q in codes]


def put_parameter_by_hand(T, array, arrays, values, storing, random):
    """The same for a parameter."""
    at_random = storing.get("param_rounding") == "stochastic"
    master = storing.get("master_bits")
    if master is None:
        draw = (lambda i: word(*random, 1, i) >> 16) if at_random else None
        return put_by_hand(T, array, values, False, draw)
    words = [word(*random, 1, i) if at_random else None for i in range(len(values))]
    pairs = [split_by_hand(v, master, h) for v, h in zip(values, words, strict=True)]
    found = zip(array.view(np.uint16).tolist(), arrays["remainder"].ravel().tolist(), strict=True)
    assert list(found) == pairs
    return [join_by_hand(*pair, master) for pair in pairs]


@pytest.mark.parametrize(
    ("rule", "options", "dtype", "storing"),
    [
        pytest.param(*case.values, *formats, id="-".join([str(case.id), *map(name_of, formats)]))
        for case, other in zip(HAND_CASES, itertools.cycle(OTHER_FORMATS))
        for formats in (HAND_FORMATS[1], other)
    ]
    + [
        pytest.param(rule, {}, *formats, id="-".join([rule, "plain", *map(name_of, formats)]))
        for rule in BY_HAND
        for formats in HAND_FORMATS[4:]
    ],
)
def test_bits_by_hand(rule, options, dtype, storing):
    T = float if dtype == np.float64 else Single
    rng = rng_for(rule, dtype)
    by_hand = BY_HAND[rule]
    start = rng.standard_normal(by_hand.shape).astype(dtype)
    options = by_hand.numbers | options
    # The first parameter has the place 0 in the random numbers, and this one the place 1.
    ours = Reference(rule, {"other": start[:0], "w": start}, **storing, **options)
    arrays, kept = ours.state["w"], ours.kept_states["w"]
    check_formats(rule, dtype, storing, arrays)
    p = [T(x) for x in start.ravel()]
    scalars = RULES[rule].scalars
    of_one = {key: 0.0 for key in scalars if key in arrays} | dict.fromkeys(kept, T(0))
    states = [dict(of_one) for _ in p]
    for t in range(1, 1 + by_hand.steps):
        grads = rng.standard_normal(by_hand.shape).astype(dtype)
        ours.step({"other": None, "w": grads})
        random = (storing.get("seed", 0), 1, t)
        grads = grads.ravel()
        o = dict(ours.options["w"])
        rows = [
            (p[i], gradient_by_hand(T, p[i], T(grads[i]), o, RULES[rule]), s)
            for i, s in enumerate(states)
        ]
        if by_hand.sums is not None:
            o |= by_hand.sums(T, rows, o, t)
        after = [by_hand.update(T, before, g, s, o, t) for before, g, s in rows]
        after = [shrunk_by_hand(T, x, o, RULES[rule]) for x in after]
        p = put_parameter_by_hand(T, ours.params["w"].ravel(), arrays, after, storing, random)
        for key in of_one:
            values = [s[key] for s in states]
            if key in scalars:
                assert {float(arrays[key])} == set(values), f"{key}, step {t}"
                continue
            read = put_state_by_hand(T, arrays, kept[key], values, random)
            for s, value in zip(states, read, strict=True):
                s[key] = value


def check_formats(rule, dtype, storing, arrays):
    """Every array has the dtype that the table of kinds says."""
    T, wanted = np.dtype(compute_type(dtype)), storing.get("state_dtype")
    for name, kind in KINDS[rule].items():
        if name in arrays:
            codes = np.dtype(np.int8 if kind.signed else np.uint8)
            narrow = (codes if kind.eight_bits else T) if wanted == CODED else wanted
            stays = kind.narrow == "iterate" or wanted is None
            assert arrays[name].dtype == (T if stays else narrow), name
            coded = wanted == CODED and arrays[name].dtype == codes
            assert (f"{name}_unit" in arrays) == coded
    assert all(arrays[name].dtype == np.float64 for name in RULES[rule].scalars if name in arrays)


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
