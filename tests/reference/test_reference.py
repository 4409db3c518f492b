"""The reference itself: what a step leaves alone, the edges, and the comparison of bits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, rng_for
from reference import RULES, Reference, assert_same_bits, same_bits

name_of = str  # pytest's ids of dtypes
OF_ANY_SHAPE = [name for name, rule in RULES.items() if not rule.matrices]


@pytest.mark.parametrize("rule", OF_ANY_SHAPE)
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
    assert all(not s.any() for s in r.state["b"].values() if s.shape or not RULES[rule].joint)
    r.step({"a": None, "b": grad})
    r.step({"a": None, "b": None})
    assert (r.steps, r.step_count, calls) == ({"a": 1, "b": 1}, 3, [0, 1, 2])
    if RULES[rule].joint:  # whose first step depends on the others
        return
    alone = Reference(rule, {"b": params["b"]}, lr=0.125)
    alone.step({"b": grad})  # its own first step, whatever the others did
    assert_same_bits(r.params["b"], alone.params["b"])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("rule", OF_ANY_SHAPE)
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
    # Steps of these are short: they must change a bfloat16 number.
    lr = {"LARS": 64.0, "Prodigy": 1e6}.get(rule, 0.25)
    plain, odd = (Reference(rule, p, lr=lr, clip_norm=1, l1=0.1) for p in (params, strided))
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
            assert s.shape == (() if key in RULES[rule].scalars else shapes[k])


@pytest.mark.parametrize("rule", OF_ANY_SHAPE)
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
@pytest.mark.parametrize("rule", OF_ANY_SHAPE)
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
