"""Tails, subnormals, the caller's flush-to-zero on every thread, long runs, zeros: docs/faults.md."""

from __future__ import annotations

import math
import platform
import time
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest
from cases import CHUNK, DTYPES, OPTIMIZERS, labels, numbers
from interpreters import run
from reference import RULES, Reference, assert_follows, assert_same_bits, compute_type

import instep
from instep.machine.threads import available_cpus

# ---- tails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_every_tail_on_every_number_of_threads(dtype: Any) -> None:
    """Lengths 0 to 64 alone and after a whole chunk, on one thread to more than there are CPUs."""
    rng = np.random.default_rng(40)
    sizes = [*range(65), *(CHUNK + tail for tail in range(65))]
    start = {f"{k}: {size}": numbers(rng, size, dtype) for k, size in enumerate(sizes)}
    grads = [{n: numbers(rng, p.size, dtype) for n, p in start.items()} for _ in range(2)]
    reference = Reference("Adam", start, clip_norm=5.0)
    for grad in grads:
        reference.step(grad)
    for threads in range(1, max(4, available_cpus() + 1) + 1):
        instep.set_num_threads(threads)
        params = {name: p.copy() for name, p in start.items()}
        optimizer = instep.Adam(params, clip_norm=5.0)
        for grad in grads:
            optimizer.step(grad)
        assert optimizer.grad_norm == reference.grad_norm
        assert_follows(optimizer, params, reference, f"on {threads} threads")


# ---- subnormals ----------------------------------------------------------------------------------------

# Betas with which every state is subnormal before the end, in each of the arithmetic's types.
LONG: list[tuple[str, Any, dict[str, Any]]] = [
    ("Adam", np.float32, {"betas": (0.9, 0.999)}),
    ("Adam", np.float64, {"betas": (0.99, 0.99)}),
    ("SGD", np.float32, {"momentum": 0.999}),
]


@pytest.mark.parametrize(("rule", "dtype", "options"), LONG, ids=str)
def test_a_hundred_thousand_steps_into_subnormals(rule: str, dtype: Any, options: Any) -> None:
    """Gradients that have become zero: the states shrink, are kept as subnormals, and come to rest above zero."""
    steps, T = 100_000, compute_type(dtype)
    rng = np.random.default_rng(41)
    w, first, none = numbers(rng, 19, dtype), numbers(rng, 19, dtype), np.zeros(19, dtype)
    optimizer = getattr(instep, rule)({"w": w}, **options)
    update = RULES[rule].update
    settings = SimpleNamespace(**{**RULES[rule].defaults, **options})
    settings.rate = settings.lr
    p, states = w.copy(), {name: array.copy() for name, array in optimizer.state["w"].items()}
    began = time.process_time()
    for t in range(steps):
        optimizer.step({"w": none if t else first})
    assert time.process_time() - began < 60
    with np.errstate(all="ignore"):
        for t in range(steps):
            p = update(p, none if t else first, states, settings, t + 1, T)
    assert_same_bits(w, p)
    for name, values in states.items():
        assert_same_bits(optimizer.state["w"][name], values, name)
        small = np.abs(values[first * first != 0])
        assert (small < np.finfo(dtype).tiny).all(), f"{name} is not subnormal yet"
        assert (small > 0).all(), f"{name} rests above zero"


def test_the_cost_of_subnormals_is_bounded() -> None:
    """Processors are slower on them, by a factor, not without end; docs/faults.md has the factor."""

    def seconds(value: float) -> float:
        optimizer = instep.Adam(np.ones(200_000, "f4"), betas=(0.9, 0.9))
        for array in optimizer.state["0"].values():
            array[...] = value
        began = time.process_time()
        for _ in range(20):
            optimizer.step(np.zeros(200_000, "f4"))
        return time.process_time() - began

    assert seconds(1e-42) < 300 * max(seconds(1.0), 0.001)


TEAM = """
    import ctypes, threading
    import numpy as np
    import instep
    from instep import _core
    from float_flags import FTZ_AND_DAZ, flags, mxcsr
    from reference import Reference, assert_follows

    library = ctypes.CDLL(instep.config()["openmp"]["library"])
    if not hasattr(library, "GOMP_parallel"):
        raise SystemExit("no GOMP_parallel")
    seen = {}
    together = threading.Barrier(2, timeout=30)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def look(_):
        together.wait()
        seen[library.omp_get_thread_num()] = mxcsr() & FTZ_AND_DAZ

    _core.testing.set_least_work(1)
    instep.set_num_threads(2)
    rng = np.random.default_rng(0)
    w = np.where(rng.random(200_000) < 0.5, 1e-41, 1.0).astype("f4")
    reference = Reference("Adam", {"0": w}, clip_norm=1.0, betas=(0.5, 0.5))
    optimizer = instep.Adam(w, clip_norm=1.0, betas=(0.5, 0.5))
    g = np.where(np.arange(200_000) % 2 == 0, 1e-42, 1e-3).astype("f4")
    with flags(FTZ_AND_DAZ):  # the team is made now and takes this over from its maker
        for k in range(3):
            optimizer.step(g)
        assert mxcsr() & FTZ_AND_DAZ == FTZ_AND_DAZ
        library.GOMP_parallel(look, None, 2, 0)
    assert _core.testing.counters()["parallel_regions"] > 0
    assert seen == {0: FTZ_AND_DAZ, 1: FTZ_AND_DAZ}, seen
    for k in range(3):
        reference.step({"0": g})
    assert_follows(optimizer, {"0": w}, reference)
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="sets MXCSR through glibc",
)
@pytest.mark.skipif(not instep.config()["openmp"]["version"], reason="built without OpenMP")
def test_flush_to_zero_on_the_threads_of_the_team(request: pytest.FixtureRequest) -> None:
    """Set by the caller before the team is made: no bit changes, and every thread has it set afterwards."""
    helpers = str(request.path.parents[1] / "helpers")
    done = run(TEAM, PYTHONPATH=helpers)
    if "no GOMP_parallel" in done.stderr:
        pytest.skip("the OpenMP runtime is not GNU's")
    assert done.returncode == 0, done.stderr


# ---- long runs -----------------------------------------------------------------------------------------

COUNTS = [1, 2, 10, 1000, 10**6, 2**31 - 1, 2**31, 2**31 + 1, 2**40]
BETAS = [(0.9, 0.999), (0.0, 0.0), (0.5, 0.999999), (0.999999, 1 - 1e-9), (1 - 1e-9, 1 - 2**-40)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("betas", BETAS, ids=str)
def test_bias_correction_of_a_long_run(count: int, betas: tuple[float, float]) -> None:
    """The step numbered count against the formula in 60 digits, to the rounding that the formula has in float64."""
    lr, eps, g = 0.01, 1e-8, 0.3
    w = np.zeros(1)
    optimizer = instep.Adam(w, lr=lr, betas=betas, eps=eps)
    state = optimizer.state_dict()
    state["step_count"], state["steps"] = count - 1, {"0": count - 1}
    state["state"]["0"] = {"exp_avg": np.array([0.2]), "exp_avg_sq": np.array([0.05])}
    optimizer.load_state_dict(state)
    optimizer.step(np.array([g]))
    assert (optimizer.step_count, optimizer.state_dict()["steps"]) == (count, {"0": count})
    with mpmath.workdps(60):
        b1, b2 = map(mpmath.mpf, betas)
        m = b1 * mpmath.mpf(0.2) + mpmath.mpf(1 - betas[0]) * mpmath.mpf(g)
        v = b2 * mpmath.mpf(0.05) + mpmath.mpf(1 - betas[1]) * mpmath.mpf(g) ** 2
        corrections = [1 - b1**count, 1 - b2**count]
        denominator = mpmath.sqrt(v) / mpmath.sqrt(corrections[1]) + mpmath.mpf(eps)
        exact = -mpmath.mpf(lr) / corrections[0] * m / denominator
        # 1 - beta^t has the rounding of beta^t, which is exact for t = 1, over itself.
        lost = sum(b**count / c for b, c in zip((b1, b2), corrections, strict=True))
        unit = mpmath.mpf(2) ** -53
        bound = unit * (10 + (2 * lost if count > 1 else 0))
        assert abs((mpmath.mpf(float(w[0])) - exact) / exact) <= bound


def test_after_very_many_steps_nothing_is_corrected() -> None:
    rng = np.random.default_rng(42)
    g = numbers(rng, 1000, "f4")
    results = []
    for count in (10**6, 2**31, 2**31 + 1, 2**53 - 1):
        w = np.zeros(1000, "f4")
        optimizer = instep.Adam(w, lr=instep.schedules.CosineDecay(0.1, steps=1000, end=0.01))
        state = optimizer.state_dict()
        state["step_count"], state["steps"] = count, {"0": count}
        optimizer.load_state_dict(state)
        optimizer.step(g)
        assert optimizer.step_count == count + 1
        results.append(w)
    for w in results[1:]:
        assert_same_bits(w, results[0])


# ---- zeros ---------------------------------------------------------------------------------------------

ZERO_BETA: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"betas": (0.0, 0.0)}),
    ("AdamW", {"betas": (0.0, 0.999), "amsgrad": True}),
    ("Adam", {"betas": (0.9, 0.0)}),
    ("RMSprop", {"alpha": 0.0}),
    ("RMSprop", {"alpha": 0.0, "centered": True, "momentum": instep.schedules.Constant(0.0)}),
    ("SGD", {"momentum": instep.schedules.Constant(0.0)}),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize(("rule", "options"), ZERO_BETA, ids=str)
def test_a_beta_of_zero(rule: str, options: dict[str, Any], dtype: Any) -> None:
    """Remembers nothing: 0^t is 0, so that nothing is corrected either."""
    rng = np.random.default_rng(43)
    start = {"w": numbers(rng, 300, dtype)}
    w = start["w"].copy()
    optimizer = getattr(instep, rule)({"w": w}, **options)
    reference = Reference(rule, start, **options)
    for _ in range(3):
        g = {"w": numbers(rng, 300, dtype)}
        optimizer.step(g)
        reference.step(g)
    assert_follows(optimizer, {"w": w}, reference)


def test_adam_without_memory_steps_by_the_sign() -> None:
    w = np.zeros(3)
    optimizer = instep.Adam(w, lr=0.5, betas=(0.0, 0.0), eps=0.0)
    optimizer.step(np.array([2.0, -8.0, 0.25]))
    assert w.tolist() == [-0.5, 0.5, -0.5]
    optimizer.state["0"]["exp_avg"][0] = np.inf
    optimizer.step(np.ones(3))
    assert math.isnan(w[0]), "0 * infinity"


NO_EPS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"eps": 0.0}),
    ("AdamW", {"eps": 0.0, "amsgrad": True}),
    ("RMSprop", {"eps": 0.0}),
    ("RMSprop", {"eps": 0.0, "centered": True, "momentum": 0.9}),
    ("RMSprop", {"eps": 0.0, "eps_inside_sqrt": True}),
    ("Adam", {"eps": 1e-50}),  # nothing in float32
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("rule", "options"), NO_EPS, ids=str)
def test_no_eps_and_no_gradient(rule: str, options: dict[str, Any], dtype: str) -> None:
    """0/0 is NaN; x/0, where the square of a tiny gradient has underflowed, infinite; docs/semantics.md says so."""
    tiny = 1e-200 if dtype == "f8" else 1e-30
    start = {"w": np.ones(4, dtype)}
    grads = [{"w": np.array([0.0, 1.0, tiny, -2.0], dtype)}, {"w": np.zeros(4, dtype)}]
    w = start["w"].copy()
    optimizer = getattr(instep, rule)({"w": w}, **options)
    reference = Reference(rule, start, **options)
    optimizer.step(grads[0])
    reference.step(grads[0])
    assert_same_bits(w, reference.params["w"])
    if options["eps"] and dtype == "f8":
        assert w[0] == 1.0
    else:
        assert math.isnan(w[0])
        assert w[2] == -math.inf
    assert np.isfinite(w[[1, 3]]).all()
    optimizer.step(grads[1])
    reference.step(grads[1])
    assert_same_bits(w, reference.params["w"])
    assert np.isfinite(w[[1, 3]]).all(), "once there was a gradient"


@pytest.mark.parametrize("rule", [r.__name__ for r in OPTIMIZERS if hasattr(r, "eps")])
def test_the_usual_eps_and_no_gradient(rule: str) -> None:
    w = np.zeros(1, "f4")
    getattr(instep, rule)(w).step(np.zeros(1))
    least = 1e-4 if rule == "Yogi" else 0.0  # its mean of gradients starts above zero
    assert abs(w[0]) <= least
