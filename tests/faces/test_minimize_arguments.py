"""The methods of instep.minimize: what SciPy passes, callbacks, warnings, and what is refused in one line."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import numpy as np
import pytest
from interpreters import python

import instep

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed: instep[scipy]")
sgd = instep.minimize.sgd


def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
    return float(x @ x), 2 * x


START = np.array([1.0, -2.0])
RUN: dict[str, Any] = {"jac": True, "maxiter": 3}


def by_scipy(fun: Any = bowl, x0: Any = START, **more: Any) -> Any:
    known = {"args", "jac", "hess", "hessp", "bounds", "constraints", "callback", "tol"}
    given = {**RUN, **more}
    options = {name: given.pop(name) for name in list(given) if name not in known}
    return optimize.minimize(fun, x0, method=sgd, options=options, **given)


def directly(fun: Any = bowl, x0: Any = START, **more: Any) -> Any:
    return sgd(fun, x0, **{**RUN, **more})


BOTH = pytest.mark.parametrize("minimize", [by_scipy, directly])


# ---- refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"bounds": [(0, 1), (None, None)]}, ValueError, "bounds must be None for instep.minimize.sgd, got a list; "),
        ({"bounds": optimize.Bounds([0, -np.inf])}, ValueError, "bounds must be None .*, got a Bounds"),
        ({"bounds": [1.0, 2.0]}, ValueError, "bounds must be None .*, got a list"),
        ({"constraints": {"type": "eq", "fun": sum}}, ValueError, "constraints must be empty .*, got a dict; use"),
        ({"constraints": optimize.LinearConstraint([[1, 1]], 0, 1)}, ValueError, "got a LinearConstraint"),
        ({"maximize": True}, ValueError, "maximize must be left out for instep.minimize.sgd, got True; pass a .* -fun"),
        ({"nonfinite": "skip"}, ValueError, "nonfinite must be left out .*, got 'skip'; a run ends"),
        ({"copy_to": np.zeros(2)}, ValueError, "copy_to must be left out"),
        ({"state_storage": "folder"}, ValueError, "state_storage must be left out"),
        ({"maxiter": 2.5}, TypeError, "maxiter must be an int of at least 0, got 2.5"),
        ({"maxiter": -1}, ValueError, "maxiter must be at least 0, got -1"),
        ({"tol": "small"}, TypeError, "tol must be a number of at least 0, got 'small'"),
        ({"tol": -1.0}, ValueError, "tol must be a number of at least 0, got -1.0"),
        ({"tol": np.nan}, ValueError, "tol must be a number of at least 0, got nan"),
        ({"checkpoint": 7}, TypeError, "checkpoint must be a str or a path of str, got an int"),
        ({"checkpoint_interval": -1}, ValueError, "checkpoint_interval must be a number of at least 0, got -1"),
        ({"callback": 3}, TypeError, "callback must be a function or None, got an int"),
        ({"lr": -1.0}, ValueError, "lr must be a finite number of at least 0, got -1.0"),
        ({"x0": ["a", "b"]}, TypeError, "x0 must be an array of real numbers, got "),
        ({"x0": np.array([1j, 2])}, TypeError, "x0 must be .*, got an ndarray of dtype complex128"),
        ({"x0": []}, ValueError, "x0 must have at least one element, got none"),
        ({"fun": lambda x: (x, x)}, TypeError, r"fun must return one real number, got an ndarray of shape \(2,\)"),
        ({"fun": lambda x: (1j, x)}, TypeError, "fun must return one real number, got a complex"),
        ({"fun": lambda x: (None, x)}, TypeError, "fun must return one real number, got None"),
        ({"fun": lambda x: (1.0, x[:1])}, ValueError, r"must return a gradient of shape \(2,\), like x0, .* \(1,\)"),
        ({"fun": lambda x: (1.0, x * 1j)}, TypeError, "must return a gradient of real numbers, .* complex128"),
        ({"fun": lambda x: (np.ma.masked, x)}, TypeError, "fun must return one real number, got a MaskedConstant"),
        ({"fun": lambda x: (1.0, np.ma.array(x, mask=[0, 1]))}, TypeError, "must be a plain array, got a MaskedArray"),
        ({"fun": lambda x: (1.0, [[1], [1, 2]])}, ValueError, "got a list, of which NumPy makes none"),
        ({"jac": lambda x: None}, TypeError, "fun must return one real number, got a tuple"),
        ({"fun": lambda x: 1.0, "jac": lambda x: 2.0}, ValueError, "jac must return a gradient of shape"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)  # fmt: skip
@BOTH
def test_refused_in_one_line(
    minimize: Any, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = START.copy()
    with pytest.raises(error) as caught:
        minimize(**given)
    line = str(caught.value)
    assert re.search(text, line)
    assert "\n" not in line
    assert np.array_equal(START, before)


def test_refused_where_scipy_does_not_ask() -> None:
    with pytest.raises(
        ValueError, match=r"x0 must have one dimension, got shape \(2, 1\); pass x0.ravel"
    ):
        directly(x0=np.ones((2, 1)))
    with pytest.raises(TypeError, match="x0 must be a plain array, got a MaskedArray"):
        directly(x0=np.ma.array(START, mask=[False, True]))
    with pytest.raises(ValueError, match=r"jac must be a function, True .*, got '3-point'"):
        directly(jac="3-point")
    with pytest.raises(TypeError, match="fun must be a function, got an int"):
        directly(3)
    for alone in (bowl(START)[0], (1.0, START, 2.0), [1.0]):
        with pytest.raises(
            TypeError, match="fun must return a number and its gradient with jac=True, got"
        ):
            directly(lambda x, alone=alone: alone)


def test_arguments_are_checked_before_fun_is_called() -> None:
    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        pytest.fail("called")

    for wrong in ({"bounds": [(0, 1)]}, {"lr": -1}, {"maxiter": 0.5}, {"checkpoint": 3}):
        with pytest.raises((TypeError, ValueError)):
            directly(fun, **wrong)


# ---- accepted --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"bounds": []},
        {"bounds": [(None, None), (-np.inf, np.inf)]},
        {"bounds": optimize.Bounds()},
        {"constraints": []},
        {"constraints": {}},
        {"fun": lambda x: (np.array([x @ x]), list(2 * x))},
        {"fun": lambda x: (np.array(x @ x), np.longdouble(2) * x)},
        {"fun": lambda x: (x @ x, (2 * x).astype(">f8"))},
    ],
)
@BOTH
def test_what_limits_nothing_and_results_of_other_kinds(
    minimize: Any, given: dict[str, Any]
) -> None:
    found, plain = minimize(**given), directly()
    assert found.x.tobytes() == plain.x.tobytes()
    assert (found.fun, found.nit) == (plain.fun, plain.nit)
    assert isinstance(found.fun, float)


def test_no_constraints_as_none() -> None:
    assert directly(constraints=None).x.tobytes() == directly().x.tobytes()


def test_an_int_beyond_all_floats_is_an_infinity() -> None:
    found = directly(lambda x: (10**400, 2 * x))
    assert found.message.startswith("fun must be finite, got inf after 0 steps")
    assert directly(lambda x: (-(10**400), 2 * x)).fun == -np.inf


def test_a_misaligned_gradient_is_copied() -> None:
    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        buffer = np.zeros(x.nbytes + 1, "u1")
        gradient = buffer[1:].view(x.dtype)
        gradient[:] = 2 * x
        return float(x @ x), gradient

    assert directly(fun).x.tobytes() == directly(bowl).x.tobytes()


def test_a_gradient_of_whole_numbers_and_one_of_a_single_number() -> None:
    found = directly(lambda x: (float(x[0]), 1), [3.0], lr=1.0)
    assert found.x == [0.0]
    found = directly(lambda x: (float(x.sum()), np.array([1, 1])), [3.0, 4.0], lr=1.0)
    assert found.x.tolist() == [0.0, 1.0]


# ---- warnings -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("given", "category", "text"),
    [
        ({"hess": lambda x: np.eye(2)}, RuntimeWarning, "Method sgd does not use Hessian information (hess)."),
        (
            {"hessp": lambda x, p: p},
            RuntimeWarning,
            "Method sgd does not use Hessian-vector product information (hessp).",
        ),
        ({"gtol": 1e-3}, optimize.OptimizeWarning, "Unknown solver options: gtol; did you mean 'tol'?"),
        (
            {"learning_rate": 1e-3, "xyz": 1},
            optimize.OptimizeWarning,
            "Unknown solver options: learning_rate, xyz; did you mean 'lr'?",
        ),
    ],
)  # fmt: skip
def test_warnings_in_scipys_words(
    minimize: Any, given: dict[str, Any], category: type[Warning], text: str
) -> None:
    with pytest.warns(category) as caught:
        found = minimize(**given)
    (warning,) = caught
    assert str(warning.message) == text
    assert warning.filename == __file__  # where the user called SciPy, or the method
    assert found.x.tobytes() == directly().x.tobytes()


def test_scipys_own_methods_warn_of_unknown_options_in_these_words() -> None:
    with pytest.warns(optimize.OptimizeWarning, match="Unknown solver options: learning_rate"):
        optimize.minimize(bowl, START, jac=True, method="BFGS", options={"learning_rate": 1})


# ---- callbacks ------------------------------------------------------------------------------------


@BOTH
def test_callbacks_of_both_signatures(minimize: Any) -> None:
    by_x: list[np.ndarray] = []
    by_result: list[Any] = []

    def see_result(intermediate_result: Any) -> None:
        by_result.append(intermediate_result)

    minimize(callback=by_x.append, lr=0.25)
    minimize(callback=see_result, lr=0.25)
    expected = [START * 0.5**k for k in (1, 2, 3)]
    assert [x.tolist() for x in by_x] == [x.tolist() for x in expected]
    assert [r.x.tolist() for r in by_result] == [x.tolist() for x in expected]
    assert [r.fun for r in by_result] == [x @ x for x in expected]
    assert [r.jac.tolist() for r in by_result] == [(2 * x).tolist() for x in expected]
    assert [(r.nit, r.nfev, r.njev) for r in by_result] == [(1, 2, 2), (2, 3, 3), (3, 4, 4)]


@BOTH
def test_a_callback_that_calls_fun_changes_nothing(minimize: Any) -> None:
    """fun may write each gradient into the same memory."""
    gradient = np.empty(2)

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        np.multiply(2, x, out=gradient)
        return float(x @ x), gradient

    found = minimize(fun, callback=lambda x: fun(np.array([50.0, 50.0])))
    assert found.x.tobytes() == minimize(bowl).x.tobytes()


@BOTH
def test_a_callback_that_changes_its_x_changes_nothing(minimize: Any) -> None:
    def spoil(intermediate_result: Any) -> None:
        intermediate_result.x[...] = intermediate_result.jac[...] = np.nan

    assert minimize(callback=spoil).x.tobytes() == minimize().x.tobytes()


@BOTH
@pytest.mark.parametrize("signature", ["x", "result"])
def test_stop_iteration_ends_the_run(minimize: Any, signature: str) -> None:
    steps = []

    def stop(x: Any) -> None:
        steps.append(x)
        if len(steps) == 2:
            raise StopIteration

    def stop_by_result(intermediate_result: Any) -> None:
        stop(intermediate_result.x)

    callback = stop if signature == "x" else stop_by_result
    found = minimize(callback=callback, maxiter=10)
    assert (found.nit, found.success, len(steps)) == (2, False, 2)
    assert np.array_equal(found.x, minimize(maxiter=2).x)
    steps.clear()
    of_scipy = optimize.minimize(optimize.rosen, START, method="BFGS", callback=callback)
    assert (found.status, found.message) == (of_scipy.status, of_scipy.message)


@BOTH
def test_other_exceptions_are_raised_unchanged(minimize: Any) -> None:
    error = ZeroDivisionError("mine")

    def fail(*args: Any) -> Any:
        raise error

    for given in ({"callback": fail}, {"fun": fail}, {"lr": fail}):
        with pytest.raises(ZeroDivisionError) as caught:
            minimize(**given)
        assert caught.value is error


def test_a_callback_whose_signature_is_none() -> None:
    class Callback:
        __signature__ = 3

        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def __call__(self, x: np.ndarray) -> None:
            self.seen.append(x)

    callback = Callback()
    directly(callback=callback)
    assert len(callback.seen) == 3


def test_a_callback_without_a_signature() -> None:
    class InC:
        """As functions in C that don't tell their arguments."""

        @property
        def __signature__(self) -> Any:
            raise ValueError

        def __call__(self, x: Any) -> None:
            seen.append(x)

    seen: list[Any] = []
    directly(callback=InC())
    assert len(seen) == 3


# ---- SciPy ----------------------------------------------------------------------------------------


def test_scipy_is_imported_with_the_face_alone() -> None:
    there = "print('scipy' in sys.modules)"
    done = python("-c", f"import sys, instep; {there}; instep.minimize.adam; {there}")
    assert done.stdout == "False\nTrue\n", done.stderr


def test_without_scipy() -> None:
    program = """
import sys
sys.modules["scipy"] = None
import instep
try:
    instep.minimize
except ImportError as error:
    print(error)
"""
    done = python("-c", program)
    text = "instep.minimize needs SciPy, which is missing; pip install 'instep[scipy]'\n"
    assert done.stdout == text, done.stderr


def test_docstrings_are_left_out_with_oo() -> None:
    done = python("-OO", "-c", "import instep; print(instep.minimize.adam.__doc__)")
    assert done.stdout == "None\n", done.stderr


def test_basinhopping_with_a_method_of_instep() -> None:
    """One of SciPy's functions that take a method."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = optimize.basinhopping(
            lambda x: (x[0] ** 4 - 3 * x[0] ** 2 + x[0], np.array([4 * x[0] ** 3 - 6 * x[0] + 1])),
            [1.0],
            niter=10,
            stepsize=3.0,
            **{
                "rng" if "rng" in inspect.signature(optimize.basinhopping).parameters else "seed": 0
            },
            minimizer_kwargs={
                "method": instep.minimize.adam,
                "jac": True,
                "tol": 1e-6,
                "options": {"lr": 0.1, "maxiter": 1000},
            },
        )
    assert abs(found.x[0] - -1.3008395) < 1e-4
