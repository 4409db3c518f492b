"""The rules as methods of scipy.optimize.minimize: the result, its bits and its counts."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
from cases import FEW, MATRIX_OPTIMIZERS, OPTIMIZERS, Variant, labels

import instep
from instep import schedules

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed: instep[scipy]")
methods = instep.minimize
NAMES = sorted(methods.__all__)
START = [-1.5, 2.0, 0.3]


def quadratic(x: np.ndarray) -> tuple[float, np.ndarray]:
    scales = np.arange(1.0, len(x) + 1.0).astype(x.dtype)
    return float(np.sum(scales * (x - 1) ** 2) / 2), scales * (x - 1)


# With which a rule comes near the minimum within some thousand steps, where its defaults are for networks.
TUNED: dict[str, dict[str, Any]] = {
    "adadelta": {"lr": 10.0},
    "adagrad": {"lr": 0.5},
    "adamw": {"weight_decay": 0.0},
    "ademamix": {"lr": 0.01, "alpha": 1.0, "weight_decay": 0.0},
    "asgd": {"lr": 0.1, "lambd": 0.0},
    "ftrl": {"lr": 0.5},
    "lamb": {"lr": 0.01, "weight_decay": 0.0},
    "lars": {"lr": 0.1, "trust_ratio": False},
    "prodigy": {"lr": 1.0},
}


def settings_of(name: str) -> dict[str, Any]:
    known = inspect.signature(getattr(methods, name)).parameters
    return {n: v for n, v in {"lr": 0.05, **TUNED.get(name, {})}.items() if n in known}


def test_there_is_a_method_for_each_rule_of_vectors() -> None:
    assert {rule.__name__.lower() for rule in OPTIMIZERS} == set(NAMES)
    for rule in MATRIX_OPTIMIZERS:
        assert not hasattr(methods, rule.__name__.lower())
    assert dir(methods) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_minimum_of_a_quadratic(name: str) -> None:
    found = optimize.minimize(
        quadratic,
        START,
        jac=True,
        method=getattr(methods, name),
        options={"maxiter": 2000, **settings_of(name)},
    )
    assert found.success
    assert found.fun < 1e-2
    assert np.allclose(found.x, 1.0, atol=0.1)


ROSENBROCK: dict[str, dict[str, Any]] = {
    "adadelta": {"lr": 1.0},
    "asgd": {"lr": 1e-3},
    "radam": {"lr": 1e-3},
    "momentum": {"lr": 1e-3},
    "schedulefreesgd": {"lr": 1e-3},
    "sgd": {"lr": 1e-3},
    "lars": {"lr": 1e-3},
    "lion": {"lr": schedules.Linear(0.01, 1e-5, steps=5000), "weight_decay": 0.0},
    "signum": {"lr": schedules.Linear(0.01, 1e-5, steps=5000)},
}


@pytest.mark.parametrize("name", NAMES)
def test_down_the_valley_of_rosenbrock(name: str) -> None:
    settings = {**settings_of(name), **ROSENBROCK.get(name, {})}
    start = [-1.0, 1.5]
    found = optimize.minimize(
        optimize.rosen,
        start,
        jac=optimize.rosen_der,
        method=getattr(methods, name),
        options={"maxiter": 5000, **settings},
    )
    assert found.fun < 0.3 < optimize.rosen(start)  # round the bend
    assert found.fun == optimize.rosen(found.x)
    assert np.array_equal(found.jac, optimize.rosen_der(found.x))


DOWNHILL = [variant for variant in FEW if not variant.options.get("maximize")]
DOWNHILL += [
    Variant(v.rule, {n: o for n, o in v.options.items() if n != "maximize"}, v.label)
    for v in FEW
    if v.options.get("maximize")
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("variant", DOWNHILL, ids=labels)
def test_the_bits_of_a_loop_by_hand(variant: Variant, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal(50).astype(dtype), rng.standard_normal((8, 50))
    points: list[np.ndarray] = []
    grads = iter(noise)

    def jac(x: np.ndarray) -> np.ndarray:
        points.append(x)
        return x + next(grads)

    settings = {"clip_norm": 3.0, "maxiter": 6, **variant.options}
    method = getattr(methods, variant.rule.__name__.lower())
    found = optimize.minimize(lambda x: 0.0, start, jac=jac, method=method, options=settings)

    w, by_hand = start.copy(), []
    opt = variant.make(w, clip_norm=3.0)
    for k in range(7):
        by_hand.append(w.copy())
        if k < 6:
            opt.step(w + noise[k])
    assert [p.tobytes() for p in points[:7]] == [p.tobytes() for p in by_hand]
    assert all(p.dtype == dtype for p in points)
    assert found.nit == 6
    if opt._shows_iterate:
        with opt.averaged():
            assert found.x.tobytes() == w.tobytes()
        assert points[7].tobytes() == found.x.tobytes()
    else:
        assert found.x.tobytes() == start.tobytes()  # no later point is better


def test_schedules_are_asked_for_each_step() -> None:
    lr = schedules.CosineDecay(0.1, steps=20)
    found = methods.adam(quadratic, START, jac=True, lr=lr, maxiter=20)
    w = np.array(START)
    opt = instep.Adam(w, lr=lr)
    for _ in range(20):
        opt.step(quadratic(w)[1])
    assert np.array_equal(found.x, w)


def test_the_callers_x0_is_copied_and_fun_may_change_and_keep_its_x() -> None:
    start = np.array(START)
    kept = []

    def fun(x: np.ndarray) -> float:
        value = quadratic(x)[0]
        kept.append(x)
        x[...] = np.nan
        return value

    def jac(x: np.ndarray) -> np.ndarray:
        gradient = quadratic(x)[1]
        x[...] = np.nan
        return gradient

    found = methods.sgd(fun, start, jac=jac, lr=0.1, maxiter=5)
    assert np.array_equal(start, START)
    assert len({id(x) for x in kept}) == 6
    assert np.array_equal(found.x, methods.sgd(quadratic, start, jac=True, lr=0.1, maxiter=5).x)
    found.x[...] = 0
    assert np.array_equal(start, START)


@pytest.mark.parametrize(
    ("x0", "dtype", "shape"),
    [
        ([1, 2], np.float64, (2,)),
        (3.0, np.float64, (1,)),
        (np.float32([1, 2]), np.float32, (2,)),
        (np.array([1, 2], ">f4"), np.float32, (2,)),
        (np.float16([1, 2]), np.float64, (2,)),
        (np.arange(8.0)[::2], np.float64, (4,)),
    ],
    ids=str,
)
def test_the_type_of_the_steps(x0: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    seen = []

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        seen.append((x.dtype, x.shape, x.flags.c_contiguous))
        return quadratic(x)

    for found in (
        methods.sgd(fun, x0, jac=True, maxiter=1),
        optimize.minimize(fun, x0, jac=True, method=methods.sgd, options={"maxiter": 1}),
    ):
        assert found.x.shape == shape
        assert found.x.dtype == dtype
    assert set(seen) == {(np.dtype(dtype), shape, True)}


class Counted:
    def __init__(self) -> None:
        self.fun = self.jac = 0

    def value(self, x: np.ndarray, scale: float = 1.0) -> float:
        self.fun += 1
        return scale * quadratic(x)[0]

    def gradient(self, x: np.ndarray, scale: float = 1.0) -> np.ndarray:
        self.jac += 1
        return scale * quadratic(x)[1]

    def both(self, x: np.ndarray, scale: float = 1.0) -> tuple[float, np.ndarray]:
        return self.value(x, scale), self.gradient(x, scale)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("jac", ["function", "pair", "2-point", None, False])
def test_counts(jac: Any, direct: bool) -> None:
    calls = Counted()
    fun = calls.both if jac == "pair" else calls.value
    how = {"function": calls.gradient, "pair": True}.get(jac, jac)
    if direct:
        found = methods.adam(fun, START, 2.0, jac=how, maxiter=10)
    else:
        found = optimize.minimize(
            fun, START, 2.0, jac=how, method=methods.adam, options={"maxiter": 10}
        )
    assert (found.nit, found.nfev, found.njev) == (
        (10, 11, 11) if how not in (None, False, "2-point") else (10, 44, 11)
    )
    assert calls.fun == found.nfev
    assert calls.jac == (11 if how not in (None, False, "2-point") else 0)
    assert np.allclose(found.jac, 2 * quadratic(found.x)[1], atol=1e-6)
    assert found.fun == 2 * quadratic(found.x)[0]


def test_differences_in_float32_reach_the_minimum() -> None:
    start = np.array(START, np.float32)
    found = methods.adam(lambda x: quadratic(x)[0], start, lr=0.05, maxiter=500)
    assert found.fun < 1e-6


def test_the_best_point_not_the_last() -> None:
    points: list[np.ndarray] = []
    found = methods.sgd(
        lambda x: (points.append(x), quadratic(x))[1], [3.0, 3.0], jac=True, lr=1.5, maxiter=9
    )
    values = [quadratic(x)[0] for x in points]
    assert found.fun == min(values) < values[-1]
    assert np.array_equal(found.x, points[int(np.argmin(values))])
    assert np.array_equal(found.jac, quadratic(found.x)[1])


def test_the_gradient_of_the_result_is_a_copy_of_the_callers_buffer() -> None:
    buffer = np.empty(2)

    def jac(x: np.ndarray) -> np.ndarray:
        buffer[...] = quadratic(x)[1]
        return buffer

    found = methods.sgd(lambda x: quadratic(x)[0], [3.0, 3.0], jac=jac, lr=1.5, maxiter=9)
    assert np.array_equal(found.jac, quadratic(found.x)[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"ema_decay": 0.9}),
        ("schedulefreesgd", {}),
        ("schedulefreeadamw", {}),
        ("asgd", {"t0": 0}),
    ],
)
def test_the_result_of_averages_is_the_average(name: str, settings: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).standard_normal((100, 2))
    grads = iter(noise)
    rule = {m.__name__.lower(): m for m in OPTIMIZERS}[name]
    calls = []

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        calls.append(x)
        return float(x @ x), 2 * x + next(grads)

    found = methods.__dict__[name](fun, [2.0, 1.0], jac=True, lr=0.1, maxiter=50, **settings)
    w = np.array([2.0, 1.0])
    opt = rule(w, lr=0.1, **settings)
    for k in range(50):
        opt.step(2 * w + noise[k])
    with opt.averaged():
        assert np.array_equal(found.x, w)
    assert (found.nit, found.nfev, found.njev) == (50, 52, 52)
    assert len(calls) == 52
    assert found.fun == found.x @ found.x
    assert np.array_equal(found.jac, 2 * found.x + noise[51])


def test_a_stochastic_function_comes_to_rest_in_the_average() -> None:
    rng = np.random.default_rng(0)

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = x - 1.0 - rng.standard_normal(3)
        return float(at @ at), 2 * at

    average = schedules.UniformAverage(start=500)
    found = methods.adam(fun, START, jac=True, lr=0.05, maxiter=3000, ema_decay=average)
    assert abs(found.x - 1).max() < 0.1


# ---- why a run ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [True, False])
def test_tol_is_the_largest_element_of_the_gradient(direct: bool) -> None:
    options = {"lr": 0.1, "maxiter": 1000}
    if direct:
        found = methods.sgd(quadratic, START, jac=True, tol=1e-3, **options)
    else:
        found = optimize.minimize(
            quadratic, START, jac=True, method=methods.sgd, tol=1e-3, options=options
        )
    assert (found.success, found.status) == (True, 0)
    assert found.message == "max|gradient| is at most tol, 0.001."
    assert abs(found.jac).max() <= 1e-3
    before = methods.sgd(quadratic, START, jac=True, lr=0.1, maxiter=found.nit - 1)
    assert abs(before.jac).max() > 1e-3
    assert methods.sgd(quadratic, found.x, jac=True, tol=1e-3).nit == 0


def test_the_end_by_maxiter_is_a_success_unless_tol_was_asked_for() -> None:
    found = methods.sgd(quadratic, START, jac=True, maxiter=3)
    assert (found.success, found.status, found.message) == (True, 0, "All 3 steps were taken.")
    found = methods.sgd(quadratic, START, jac=True, maxiter=3, tol=0)
    assert (found.success, found.status) == (False, 1)
    assert found.message == "Maximum number of iterations has been exceeded."
    found = methods.sgd(quadratic, START, jac=True, maxiter=0)
    assert (found.nit, found.nfev, found.x.tolist()) == (0, 1, START)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["fun", "gradient"])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("name", ["sgd", "asgd"])
def test_what_is_not_finite_ends_the_run(value: float, where: str, at: int, name: str) -> None:
    calls = 0

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        number, gradient = quadratic(x)
        if calls == at + 1:
            if where == "fun":
                number = value
            else:
                gradient[1] = value
        return number, gradient

    found = methods.__dict__[name](fun, START, jac=True, lr=0.1, maxiter=10)
    assert (found.success, found.status, found.nit, found.nfev) == (False, 3, at, at + 1)
    what = "fun" if where == "fun" else "the gradient"
    assert found.message.startswith(f"{what} must be finite, got ")
    assert f"after {at} steps" in found.message
    if where == "fun" and at:
        good = methods.sgd(quadratic, START, jac=True, lr=0.1, maxiter=at - 1)
        if name == "sgd":
            assert np.array_equal(found.x, good.x)
        assert math.isfinite(found.fun)
        assert np.isfinite(found.x).all()


def test_a_first_point_that_is_not_finite_is_no_best_point() -> None:
    def fun(x: np.ndarray) -> float:
        return math.inf

    found = methods.adam(fun, START)  # without differences of infinities, of which NumPy would warn
    assert (found.status, found.nfev, found.njev, found.fun) == (3, 1, 0, math.inf)


def test_methods_have_names_that_pickle_finds() -> None:
    for name in NAMES:
        method = getattr(methods, name)
        assert pickle.loads(pickle.dumps(method)) is method
        assert method.__module__ == "instep.minimize"


def test_signatures_have_the_arguments_of_the_rules() -> None:
    left_out = {"params", "copy_to", "state_storage", "maximize", "nonfinite"}
    left_out |= {"master_bits", "param_rounding"}  # of narrower parameters
    for rule in OPTIMIZERS:
        method = getattr(methods, rule.__name__.lower())
        known = inspect.signature(method).parameters
        for name, parameter in inspect.signature(rule).parameters.items():
            assert (name in known) is (name not in left_out)
            if name in known:
                assert known[name].default == parameter.default
        documented = inspect.getdoc(method) or ""
        assert "As for" not in documented.partition("Returns\n")[0]
        for name in known:
            assert f"{name}" in documented or name == "options"
