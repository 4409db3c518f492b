"""The reference itself: against PyTorch, against arithmetic on single Python floats, by hand."""

from __future__ import annotations

import itertools
import math
import struct
import warnings

import ml_dtypes
import numpy as np
import pytest
from reference import RULES, Reference, assert_same_bits, norm, pairwise_tree, same_bits, store

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]
HALVES = DTYPES[2:]
name_of = str  # pytest's ids of dtypes


def rng_for(*key: object) -> np.random.Generator:
    return np.random.default_rng(list(repr(key).encode()))


# --- PyTorch, in float64: the rules and options it has.


def lr_schedule(step: int) -> float:
    return 0.05 / (1 + step)


def momentum_schedule(step: int) -> float:
    return 0.5 + 0.4 * step / 50


L2 = {"weight_decay": 0.03}
UP = {"maximize": True}
HEAVY = {"lr": lr_schedule, "momentum": momentum_schedule}
NESTEROV = {"momentum": 0.9, "nesterov": True}
TORCH_CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.05} | L2 | UP),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.6} | L2),
    ("SGD", {"lr": 0.05} | NESTEROV | L2 | UP),
    ("SGD", HEAVY),
    ("Momentum", {}),
    ("Momentum", {"lr": 0.05, "momentum": 0.7} | L2),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "alpha": 0.9} | L2 | UP),
    ("RMSprop", {"momentum": 0.9, "eps": 1e-3} | L2),
    ("RMSprop", {"centered": True, "eps": 1e-2} | HEAVY),
    ("Adam", {}),
    ("Adam", {"lr": lr_schedule, "betas": (0.8, 0.95), "eps": 1e-2} | L2 | UP),
    ("Adam", {"amsgrad": True, "betas": (0.9, 0.5), "lr": 0.05}),
    ("AdamW", {}),
    ("AdamW", {"lr": lr_schedule, "weight_decay": 0.3} | UP),
    ("AdamW", {"amsgrad": True, "betas": (0.9, 0.5), "lr": 0.05}),
]


def compare_with_torch(rule, options, *, before_step=None, **more):
    """50 steps with a gradient missing now and then; before_step edits PyTorch's gradients.

    What options leave out is PyTorch's default, and so compares the defaults, too.
    """
    torch = pytest.importorskip("torch")
    rng = rng_for(rule, sorted(options))
    params = {k: rng.standard_normal(shape) for k, shape in [("w", (4, 3)), ("b", 5), ("c", ())]}
    ours = Reference(rule, params, **options, **more)
    leaves = {k: torch.tensor(np.asarray(p), requires_grad=True) for k, p in params.items()}
    schedules = {k: v for k, v in options.items() if callable(v)}
    if rule == "Momentum":
        rule, options = "SGD", {"momentum": 0.9} | options
    first = {k: v(0) if callable(v) else v for k, v in options.items()}
    theirs = getattr(torch.optim, rule)(leaves.values(), **first)
    for step in range(50):
        grads = {k: rng.standard_normal(np.shape(p)) for k, p in params.items()}
        grads["b"] = None if step % 7 in (0, 3) else grads["b"]
        for k, leaf in leaves.items():
            leaf.grad = None if grads[k] is None else torch.tensor(grads[k])
        theirs.param_groups[0].update({k: v(step) for k, v in schedules.items()})
        if before_step:
            before_step(torch, list(leaves.values()))
        theirs.step()
        ours.step(grads)
    for k, leaf in leaves.items():
        close = {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(ours.params[k], leaf.detach().numpy(), **close)
        state = theirs.state[leaf]
        for name in ours.state[k]:
            if "lr_in_velocity" not in more:
                np.testing.assert_allclose(ours.state[k][name], state[name].numpy(), **close)
        if "step" in state:
            assert ours.steps[k] == int(state["step"])
    assert ours.steps["w"] == ours.step_count == 50 > ours.steps["b"]


@pytest.mark.parametrize(("rule", "options"), TORCH_CASES)
def test_equals_torch(rule, options):
    compare_with_torch(rule, options)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lr_in_velocity_is_torchs_rule_while_lr_is_constant(nesterov):
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov}
    compare_with_torch("SGD", options, lr_in_velocity=True)


def test_gradient_terms_equal_torch():
    def edit(torch, leaves):
        torch.nn.utils.clip_grad_value_(leaves, 0.7)
        for p in leaves:
            if p.grad is not None:
                p.grad -= 0.02 * p.detach().sign()  # maximize turns it round

    options = {"maximize": True}
    compare_with_torch("Adam", options, before_step=edit, clip_value=0.7, l1=0.02)


def test_clip_norm_equals_torch():
    def edit(torch, leaves):
        grads = [p.grad for p in leaves if p.grad is not None]
        total = torch.linalg.vector_norm(torch.cat([g.reshape(-1) for g in grads]))
        for g in grads:
            g.mul_(min(1.0, 4.0 / total))  # clip_grad_norm_ itself adds 1e-6 to the norm

    compare_with_torch("Momentum", {"lr": 0.05}, before_step=edit, clip_norm=4.0)


# --- Bits: every formula once more, on single Python floats, one element at a time. A Python float
# is an IEEE double, and one operation on floats rounded to float32 afterwards is the float32
# operation (53 >= 2 * 24 + 2 bits; the values here stay clear of subnormals).


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


BY_HAND = {
    "SGD": (sgd_by_hand, {"dampening": 0.6, "nesterov": True, "lr_in_velocity": True}),
    "Momentum": (sgd_by_hand, {"dampening": 0.6, "nesterov": True, "lr_in_velocity": True}),
    "RMSprop": (rmsprop_by_hand, {"centered": True, "eps_inside_sqrt": True, "momentum": 0.7}),
    "Adam": (adam_by_hand, {"amsgrad": True}),
    "AdamW": (adamw_by_hand, {"amsgrad": True}),
}
TERMS = {"clip_value": 0.8, "maximize": True, "weight_decay": 0.03, "l1": 0.007}
# Values that round differently in float32, and an epsilon that is felt.
COARSE = {
    "SGD": {"lr": 0.3, "momentum": 0.9},
    "Momentum": {"lr": 0.3},
    "RMSprop": {"eps": 1e-2},
    "Adam": {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2},
    "AdamW": {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2, "weight_decay": 2.2},
}


def subsets(options):
    for n in range(len(options) + 1):
        yield from map(dict, itertools.combinations(options.items(), n))


HAND_CASES = [
    pytest.param(rule, chosen | terms, id="-".join([rule, *chosen, *(["terms"] if terms else [])]))
    for rule, (_, options) in BY_HAND.items()
    for chosen in subsets(options)
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
    options = COARSE[rule] | options
    ours = Reference(rule, {"w": start}, state_dtype=state_dtype, **options)
    kept = {s.dtype for s in ours.state["w"].values()}
    assert kept == {np.dtype(state_dtype or T_dtype)} or rule == "SGD"
    p = [T(x) for x in start]
    states = [dict.fromkeys(ours.state["w"], T(0)) for _ in p]
    by_hand, _ = BY_HAND[rule]
    for t in (1, 2, 3):
        grads = rng.standard_normal(30).astype(dtype)
        ours.step({"w": grads})
        for i, s in enumerate(states):
            g = gradient_by_hand(T, p[i], T(grads[i]), ours.options, rule != "AdamW")
            p[i] = T(store(by_hand(T, p[i], g, s, ours.options, t), dtype))
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


# --- Exact by hand: powers of two, so that no operation rounds.


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


# --- The norm.


def tree_by_hand(a):
    if not a:
        return 0.0
    while len(a) > 1:
        a = [a[i] + a[i + 1] if i + 1 < len(a) else a[i] for i in range(0, len(a), 2)]
    return a[0]


@pytest.mark.parametrize("n", range(34))
def test_pairwise_tree(n):
    a = rng_for("tree").standard_normal((n, 100))
    expected = [tree_by_hand([float(x) for x in column]) for column in a.T]
    assert not n or [pairwise_tree(column)[0] for column in a.T] == expected
    assert len(pairwise_tree(np.zeros(n))) == min(n, 1)


def norm_by_hand(gradients):
    sums = []
    for g in gradients:
        values = [float(x) for x in g.flat]
        for start in range(0, len(values), 16384):
            lanes = [0.0] * 16
            for i, x in enumerate(values[start : start + 16384]):
                lanes[i % 16] += x * x
            sums.append(tree_by_hand(lanes))
    return math.sqrt(tree_by_hand(sums))


SIZES = [0, 1, 2, 3, 15, 16, 17, 16383, 16384, 16385, 3 * 16384 + 5]


@pytest.mark.parametrize("sizes", [*([n] for n in SIZES), SIZES, [], [5, 0, 16390]], ids=str)
def test_norm_order(sizes):
    rng = rng_for("norm", sizes)
    gradients = [rng.standard_normal(n) for n in sizes]
    found = norm(iter(gradients))
    assert found == norm_by_hand(gradients)
    exact = math.sqrt(math.fsum(float(x) ** 2 for g in gradients for x in g))
    assert found == pytest.approx(exact, rel=1e-12)
    assert type(found) is float


def test_norm_takes_logical_order_and_doubles():
    g = rng_for("logical").standard_normal((300, 200)).astype(np.float32)
    expected = norm_by_hand([g])
    assert (
        norm([g]) == norm([np.asfortranarray(g)]) == norm([g[::-1, ::-1][::-1, ::-1]]) == expected
    )
    assert norm([np.full(1, 1e30, np.float32)]) == float(np.float32(1e30))


def test_clip_norm():
    params = {"a": np.zeros(2, np.float32), "skipped": np.ones(1), "b": np.zeros(1)}
    grads = {"b": np.array([12.0]), "a": np.array([3.0, 4.0]), "skipped": None}
    for limit, scale in ((6.5, 0.5), (13.0, 1.0), (14.0, 1.0), (0.13, 0.13 / 13)):
        r = Reference("SGD", params, lr=1, clip_norm=limit)
        r.step(grads)
        assert r.grad_norm == 13.0
        assert_same_bits(r.params["a"], -np.float32([3, 4]) * np.float32(scale), f"{limit}")
        assert_same_bits(r.params["b"], np.array([-12 * scale]), f"{limit}")
    r.step({"a": np.zeros(2), "skipped": None, "b": np.zeros(1)})
    assert r.grad_norm == 0.0
    r = Reference("SGD", params, clip_norm=lambda step: [1.0, None][step])
    r.step(grads)
    assert r.grad_norm == 13.0
    r.step(grads)
    assert r.grad_norm is None


def test_clip_norm_comes_before_clip_value():
    r = Reference("SGD", {"w": np.zeros(2)}, lr=1, clip_norm=2.5, clip_value=1.75)
    r.step({"w": np.array([3.0, 4.0])})
    assert r.params["w"].tolist() == [-1.5, -1.75]


def test_norm_is_of_gradients_in_the_type_of_their_parameter():
    tenth = np.array([0.1])
    for dtype in DTYPES:
        r = Reference("SGD", {"w": np.zeros(1, dtype)}, clip_norm=1)
        r.step({"w": tenth})
        assert r.grad_norm == (0.1 if dtype == np.float64 else float(np.float32(0.1)))


def test_clip_norm_with_infinite_and_nan_gradients():
    for bad, expected in ((np.inf, [np.nan, 0.0]), (np.nan, [np.nan, -2.0])):
        r = Reference("SGD", {"w": np.zeros(2)}, lr=1, clip_norm=1)
        r.step({"w": np.array([bad, 2.0])})
        np.testing.assert_array_equal(r.params["w"], expected)


# --- Rounding on store: all 65,536 numbers of a format, the middles between them, and their
# neighbours in float64, which a conversion through float32 gets wrong.


def finite_numbers(dtype):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        every = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float64)
    return np.unique(every[np.isfinite(every)])


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_keeps_every_number(dtype):
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    for T in (np.float32, np.float64):
        with np.errstate(invalid="ignore"):  # signalling NaNs
            x = every.astype(T)
        assert_same_bits(store(x, dtype), every, T.__name__)


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_rounds_once_to_nearest_even(dtype):
    numbers = finite_numbers(dtype)
    low, high = numbers[:-1], numbers[1:]
    middle = (low + high) / 2
    above, below = np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)
    even = np.where(low.astype(dtype).view(np.uint16) % 2 == 0, low, high)
    for x, expected in ((middle, even), (above, high), (below, low)):
        np.testing.assert_array_equal(store(x, dtype).astype(np.float64), expected)
    single = middle.astype(np.float32)
    assert np.array_equal(single, middle) or dtype == BFLOAT16  # 2**-134 is a float32, too
    np.testing.assert_array_equal(store(single, dtype).astype(np.float64), even)


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_overflow_sign_nan(dtype):
    top, before = finite_numbers(dtype)[[-1, -2]]
    limit = top + (top - before) / 2
    x = [np.nextafter(limit, 0), limit, np.finfo(np.float64).max, np.inf, 5e-324, 0.0]
    expected = np.array([top, np.inf, np.inf, np.inf, 0.0, 0.0]).astype(dtype)
    assert_same_bits(store(np.array(x[2:]), dtype), expected[2:], "far")
    with np.errstate(over="ignore", under="ignore"):
        assert_same_bits(store(np.array(x), dtype), expected)
        assert_same_bits(store(-np.array(x), dtype), -expected, "negative")
    assert np.isnan(store(np.array([np.nan, -np.nan]), dtype).astype(np.float64)).all()
    assert store(np.float64(1.0), dtype).shape == ()


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_random(dtype):
    numbers = finite_numbers(dtype)
    rng = rng_for("store", dtype)
    x = rng.standard_normal(50_000) * 2.0 ** rng.integers(-150, 130, 50_000)
    x = x[np.abs(x) < numbers[-1]]
    at = np.searchsorted(numbers, x)
    low, high = numbers[at - 1], numbers[at]
    expected = np.where(x - low < high - x, low, high)  # no middle among these
    np.testing.assert_array_equal(store(x, dtype).astype(np.float64), expected)


def test_store_float32_rounds_once():
    x = rng_for("single").standard_normal(1000)
    assert store(x, np.float32).tolist() == [Single(v) for v in x.tolist()]


# --- What a step leaves alone, and the edges.


@pytest.mark.parametrize("rule", RULES)
def test_skipped_parameter_stands_still(rule):
    calls = []

    def lr(step):
        calls.append(step)
        return 0.125

    params = {"a": np.ones(3), "b": np.ones(3, np.float32)}
    grad = np.array([1.0, -2.0, 3.0])
    r = Reference(rule, params, lr=lr)
    r.step({"a": grad, "b": None})
    assert_same_bits(r.params["b"], params["b"])
    assert all(not s.any() for s in r.state["b"].values())
    r.step({"a": None, "b": grad})
    r.step({"a": None, "b": None})
    assert (r.steps, r.step_count, calls) == ({"a": 1, "b": 1}, 3, [0, 1, 2])
    alone = Reference(rule, {"b": params["b"]}, lr=0.125)
    alone.step({"b": grad})  # its own first step, whatever the others did
    assert_same_bits(r.params["b"], alone.params["b"])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("rule", RULES)
def test_callers_arrays_strides_and_shapes(rule, dtype):
    rng = rng_for("strides", rule, dtype)
    shapes = {"matrix": (5, 7), "scalar": (), "empty": (0, 3), "reversed": (9,), "wide": (4, 6)}
    params = {k: np.asarray(rng.standard_normal(s)).astype(dtype) for k, s in shapes.items()}
    steps = [{k: np.asarray(rng.standard_normal(s)) for k, s in shapes.items()} for _ in "123"]
    for grads in steps:
        grads["wide"][1:] = grads["wide"][0]
    strided = params | {"matrix": np.asfortranarray(params["matrix"])}
    strided["reversed"] = params["reversed"][::-1].copy()[::-1]
    before = {k: p.copy() for k, p in strided.items()}
    plain, odd = (Reference(rule, p, lr=0.25, clip_norm=1, l1=0.1) for p in (params, strided))
    for grads in steps:
        kept = {k: g.copy() for k, g in grads.items()}
        plain.step(grads)
        other = grads | {"matrix": np.asfortranarray(grads["matrix"])}
        other["wide"] = np.broadcast_to(grads["wide"][0], (4, 6))  # a stride of zero
        odd.step(other)
        for k, g in grads.items():
            assert_same_bits(g, kept[k], f"gradient {k}")
    for k, p in plain.params.items():
        assert_same_bits(p, odd.params[k], k)
        assert p.shape == shapes[k]
        assert not p.size or not same_bits(p, before[k])
        assert_same_bits(strided[k], before[k], f"the caller's {k}")
        assert plain.steps[k] == 3
        for key, s in plain.state[k].items():
            assert_same_bits(s, odd.state[k][key], f"{k}, {key}")
            assert s.shape == shapes[k]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_gradient_dtypes_and_kinds_of_number(rule, dtype):
    """Each dtype of gradient is converted first; a NumPy scalar as an option widens nothing."""
    start = {"w": rng_for(rule).standard_normal(20).astype(dtype)}
    T = np.float64 if dtype == np.float64 else np.float32
    for given in DTYPES:
        g = rng_for(given).standard_normal(20).astype(given)
        plain = Reference(rule, start, lr=0.1, l1=0.3, clip_norm=0.7)
        odd = Reference(
            rule, start, lr=lambda step: np.float64(0.1), l1=np.float64(0.3), clip_norm=0.7
        )
        for _ in range(2):
            plain.step({"w": g})
            odd.step({"w": g.astype(T)})
        assert_same_bits(plain.params["w"], odd.params["w"], str(given))
        assert plain.grad_norm == odd.grad_norm > 0.7


def test_float32_scalars_as_options_narrow_nothing():
    narrow = {
        "lr": np.float32(0.1),
        "weight_decay": np.float32(0.3),
        "betas": np.float32([0.9, 0.8]),
    }
    wide = {"lr": float(np.float32(0.1)), "weight_decay": float(np.float32(0.3))}
    wide["betas"] = tuple(float(x) for x in narrow["betas"])
    narrow["betas"] = tuple(narrow["betas"])
    results = [Reference("AdamW", {"w": np.ones(3)}, **options) for options in (narrow, wide)]
    for _ in range(3):
        for r in results:
            r.step({"w": np.array([1.0, -2.0, 3.0])})
    assert_same_bits(results[0].params["w"], results[1].params["w"])


def test_options_at_zero_leave_their_line_out():
    """An infinite parameter would make NaN of a term multiplied by zero."""
    start, grad = {"w": np.array([np.inf, 1.0])}, {"w": np.array([1.0, 1.0])}
    for rule in ("SGD", "Adam"):
        zero = dict.fromkeys(("weight_decay", "l1", "clip_value"), lambda step: 0.0)
        r = Reference(rule, start, lr=0.5, clip_norm=0.0, **zero)
        r.step(grad)
        assert r.params["w"].tolist() == [np.inf, pytest.approx(0.5, rel=1e-6)]
        assert r.grad_norm is None
    r = Reference("AdamW", start, lr=lambda step: np.inf, weight_decay=lambda step: 0.0)
    r.step({"w": np.array([-1.0, -1.0])})
    assert r.params["w"].tolist() == [np.inf, np.inf]


def test_betas_follow_schedules():
    first = Reference("Adam", {"w": np.ones(2)}, betas=(lambda step: 0.5 + step / 10, 0.99))
    second = Reference("Adam", {"w": np.ones(2)}, betas=lambda step: (0.5 + step / 10, 0.99))
    third = Reference("Adam", {"w": np.ones(2)}, betas=(0.5, 0.99))
    for _ in range(2):
        for r in (first, second, third):
            r.step({"w": np.array([1.0, -3.0])})
    assert_same_bits(first.params["w"], second.params["w"])
    assert not same_bits(first.params["w"], third.params["w"])


def test_nan_signed_zero_and_maximum():
    nan = np.nan
    r = Reference("SGD", {"w": np.array([0.0, -0.0, nan, 1.0])}, lr=1, l1=0.5)
    r.step({"w": np.array([-0.0, -0.0, 1.0, nan])})
    assert_same_bits(r.params["w"], np.array([0.0, -0.0, nan, nan]))  # g = -0 + 0 = +0
    r = Reference("SGD", {"w": np.zeros(2)}, lr=1, clip_value=1)
    r.step({"w": np.array([nan, np.inf])})
    assert_same_bits(r.params["w"], np.array([nan, -1.0]))
    r = Reference("SGD", {"w": np.zeros(2)}, lr=1, momentum=0.5, lr_in_velocity=True)
    r.step({"w": np.array([-0.0, 0.0])})  # the buffer starts at 0, and 0 + -0 is +0
    assert_same_bits(r.state["w"]["momentum_buffer"], np.zeros(2))
    r = Reference("SGD", {"w": np.zeros(2)}, lr=1, momentum=0.5)
    r.step({"w": np.array([-0.0, 0.0])})  # here it starts as the gradient
    assert_same_bits(r.state["w"]["momentum_buffer"], np.array([-0.0, 0.0]))
    r = Reference("Adam", {"w": np.zeros(1)}, amsgrad=True)
    for g in (1.0, nan, 1.0):
        r.step({"w": np.array([g])})
    assert np.isnan(r.state["w"]["max_exp_avg_sq"]).all()
    r = Reference("RMSprop", {"w": np.ones(2)}, centered=True)
    r.step({"w": np.array([nan, np.inf])})
    assert np.isnan(r.params["w"]).all()


def test_centered_variance_does_not_go_below_zero():
    r = Reference("RMSprop", {"w": np.ones(100)}, centered=True, eps=1e-3, alpha=0.9)
    g = rng_for("variance").standard_normal(100)
    for _ in range(400):
        r.step({"w": g})
    s = r.state["w"]
    assert (s["square_avg"] - s["grad_avg"] * s["grad_avg"] < 0).any()
    assert np.isfinite(r.params["w"]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("rule", RULES)
def test_no_floating_point_warnings(rule, dtype):
    eps = {"eps": 0.0} if "eps" in RULES[rule].defaults else {}
    grads = {"w": np.array([np.inf, np.nan, np.finfo(np.float64).max, 5e-324, 0.0])}
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        r = Reference(rule, {"w": np.ones(5, dtype)}, lr=1e300, **eps)
        r.step(grads)
        r.step(grads)
        w = r.params["w"].astype(np.float64)
    assert np.isnan(w[:2]).any()


def test_unknown_option():
    with pytest.raises(TypeError, match="SGD has no option betas"):
        Reference("SGD", {}, betas=(0.9, 0.999))


def test_a_gradient_of_another_shape_is_no_broadcast():
    with pytest.raises(AssertionError, match="w"):
        Reference("SGD", {"w": np.ones((2, 3))}).step({"w": np.ones(3)})


# --- The comparison.


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_same_bits(dtype):
    a = np.array([[1.0, -0.0], [np.nan, np.inf]]).astype(dtype)
    assert same_bits(a, a.copy())
    assert same_bits(a, np.asfortranarray(a))
    assert same_bits(a, np.where(np.isnan(a), -a, a).astype(dtype))  # the sign of a NaN
    assert same_bits(a[0, 0], a[0, 0].copy())
    assert same_bits(a[:0], a[:0])
    assert not same_bits(a, np.abs(a))  # -0
    assert not same_bits(a, np.where(np.isnan(a), a[0, 0], a).astype(dtype))
    assert not same_bits(a, a[:1])
    assert not same_bits(a, a.ravel())
    assert not same_bits(a, a.astype(np.float64 if dtype != np.float64 else np.float32))


def test_assert_same_bits_says_where():
    a = np.array([[1, 2], [3, 4]], np.float32)
    assert_same_bits(a, a.copy())
    b = a + np.float32([[0, 0], [1, 1]])
    message = r"x: 2 of 4 elements differ, the first at \(1, 0\): "
    message += r"3\.0 \(0x40400000\) against 4\.0 \(0x40800000\)"
    with pytest.raises(AssertionError, match=message):
        assert_same_bits(a, b, "x")
    with pytest.raises(AssertionError, match=r"at \(\): 0\.0 \(0x0000\) against -0\.0 \(0x8000\)"):
        assert_same_bits(np.zeros((), BFLOAT16), -np.zeros((), BFLOAT16))
    with pytest.raises(AssertionError, match="x: dtype float32 against float64"):
        assert_same_bits(a, a.astype(np.float64), "x")
    with pytest.raises(AssertionError, match=r"shape \(2, 2\) against \(4,\)"):
        assert_same_bits(a, a.ravel())
