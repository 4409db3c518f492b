"""The methods: one function a rule, made from its class, with the class's arguments and their descriptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from instep import rules
from instep._support import documentation
from instep.minimize import arguments
from instep.minimize.host import optimize
from instep.minimize.objective import Objective
from instep.minimize.progress import progress
from instep.minimize.run import Run
from instep.minimize.stored import Store
from instep.optimizers import Optimizer

__all__ = ["METHODS"]

_DOCSTRING = """Minimize a function with the steps of `instep.{rule}`, which has the formula and the paper.

    This is a ``method`` of `scipy.optimize.minimize`, and can be called directly. Each iteration
    evaluates the function and its gradient after a step. The start is evaluated, too.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns the number to minimize. It may be stochastic.
    x0 : array
        The first point; it is copied. The steps are computed in float32 if x0 is of float32, and in
        float64 otherwise.
    args : tuple
        Further arguments of fun and jac.
    jac : callable, True, "2-point" or None
        ``jac(x, *args)`` returns the gradient, of x's shape. With True, fun returns the number and
        the gradient. With "2-point" or None, the gradient is computed by
        `scipy.optimize.approx_fprime`, in float64, by one more evaluation for each element of x:
        too slow for long vectors, and too imprecise for a stochastic function.
    hess, hessp
        Ignored, with a warning.
    bounds, constraints
        Refused unless they are empty.
    callback : callable, optional
        Called after each iteration, as ``callback(intermediate_result=result)`` if this is the name
        of its only argument, otherwise as ``callback(x)``. ``result`` has ``x``, ``fun``, ``jac``,
        ``nit``, ``nfev`` and ``njev`` of the present point. StopIteration ends the run.
    tol : float, optional
        The run ends if no element of the gradient exceeds this, at the point where it is taken.
    maxiter : int
        The number of steps, those before a checkpoint included.
    disp : bool
        Show the progress on stderr: a bar if tqdm is installed and stderr is a terminal or a
        notebook, a line every two seconds otherwise.
    checkpoint : str or path, optional
        The run is saved to this file by `instep.checkpoint`: at its start, at its end, at any
        exception (Ctrl-C as well), and in between. If the file is there, the run goes on from it,
        with the same bits as without interruption; then x0 must be the same. Hyperparameters are
        those of the call.
    checkpoint_interval : float
        Seconds between two saves.
    {keywords}
        As for `{rule}`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        With ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``success``, ``status`` and
        ``message``. {x_is}
        ``success`` is False if the run ended before ``tol`` was reached, because fun or its gradient
        was not finite, or by StopIteration.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what fun or jac returns, can't be used.
    CheckpointError, OSError, ImportError
        As `instep.checkpoint.load` and `instep.checkpoint.save`.

    Warns
    -----
    OptimizeWarning
        For options that are not listed here, which are ignored.

    Examples
    --------
    >>> import numpy as np, instep
    >>> from scipy.optimize import minimize
    >>> def fun(x):
    ...     return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)
    >>> result = minimize(fun, [3.0, -1.0], method=instep.minimize.{method}, jac=True,
    ...                   options={{"maxiter": 200}})
    >>> result.nit, bool(result.fun < 8.0)
    (200, True)
    """
_OR_AVERAGE = """``x`` is the point at which fun was least, as observed. With
        ``ema_decay`` it is the moving average at the end, and ``fun`` and ``jac`` are evaluated there
        once more; if the run ended because fun was not finite, it is the best point."""
_AVERAGE = """``x`` is the average at the end that
        ``averaged()`` of the rule shows, and ``fun`` and ``jac`` are evaluated there once more; if the
        run ended because fun was not finite, it is the point at which fun was least."""


def _method(rule: type[Optimizer]) -> Callable[..., Any]:
    name = rule.__name__.lower()
    path = f"instep.minimize.{name}"
    taken = [n for n in documentation.keywords(rule) if n not in arguments.REFUSED]

    def method(
        fun: Callable[..., Any],
        x0: Any,
        args: Any = (),
        *,
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        tol: float | None = None,
        maxiter: int = 1000,
        disp: bool = False,
        checkpoint: Any = None,
        checkpoint_interval: float = 60.0,
        **options: Any,
    ) -> Any:
        arguments.refuse_limits(path, bounds, constraints)
        arguments.refuse_options(path, options)
        x = arguments.start(x0)
        objective = Objective(fun, jac, arguments.tuple_of(args))
        called_back = arguments.called_back(callback)
        maxiter = arguments.count("maxiter", maxiter)
        tol = None if tol is None else arguments.at_least_0("tol", tol)
        interval = arguments.at_least_0("checkpoint_interval", checkpoint_interval)
        optimizer = rule(x, **{n: options.pop(n) for n in taken if n in options})
        arguments.ignore_hessians(name, hess, hessp)
        arguments.warn_of_unknown(options, signature.parameters)
        run = Run(
            optimizer,
            x,
            objective,
            maxiter=maxiter,
            tol=tol,
            callback=called_back,
            store=None if checkpoint is None else Store(checkpoint, optimizer, x, interval),
        )
        return run.result(progress(path, maxiter, disp=bool(disp)))

    documentation.without_quotes(method)
    signature = _signature(method, rule, taken)
    whole: Any = method
    whole.__signature__ = signature
    whole.__name__ = whole.__qualname__ = name
    whole.__module__ = "instep.minimize"
    if rule.__doc__ is not None:  # as it is under python -OO
        whole.__doc__ = _docstring(rule, name, taken)
    return method


def _signature(
    method: Callable[..., Any], rule: type[Optimizer], taken: list[str]
) -> inspect.Signature:
    """Return a method's signature with the rule's own arguments in it."""
    *own, options = inspect.signature(method).parameters.values()
    known = inspect.signature(rule).parameters
    numbers = [known[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in taken]
    return inspect.Signature([*own, *numbers, options], return_annotation=optimize.OptimizeResult)


def _docstring(rule: type[Optimizer], name: str, taken: list[str]) -> str:
    x_is = _AVERAGE if rule._shows_iterate else _OR_AVERAGE
    written = _DOCSTRING.format(
        rule=rule.__name__, method=name, keywords=", ".join(taken), x_is=x_is
    )
    return documentation.completed(written, {rule.__name__: rule})


def _for_vectors() -> Iterator[type[Optimizer]]:
    for name in rules.__all__:
        rule = getattr(rules, name)
        try:
            rule(np.zeros(1))
        except ValueError:  # a rule of matrices
            continue
        yield rule


METHODS = {method.__name__: method for method in map(_method, _for_vectors())}
