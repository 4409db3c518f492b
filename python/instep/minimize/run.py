"""The loop: evaluate, ask whether to stop, step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from instep.minimize.host import optimize
from instep.minimize.objective import Objective
from instep.minimize.progress import Progress
from instep.minimize.stored import Point, Seen, Store
from instep.optimizers import Optimizer
from instep.optimizers.containers import Array

__all__ = ["Run"]


class Stop(NamedTuple):
    """Why a run has ended; the numbers of status are SciPy's."""

    status: int
    message: str

    @property
    def success(self) -> bool:
        """Whether the run has done what was asked for."""
        return self.status == _DONE


_DONE = 0
_MAXITER = 1
_NONFINITE = 3
_STOPPED = Stop(99, "`callback` raised `StopIteration`.")


class Run:
    """One minimization. What is known of the last point is replaced as a whole, so it can be saved at any moment."""

    def __init__(
        self,
        optimizer: Optimizer,
        x: Array,
        objective: Objective,
        *,
        maxiter: int,
        tol: float | None,
        callback: Callable[[Any], object] | None,
        store: Store | None,
    ) -> None:
        self._optimizer, self._x, self._objective = optimizer, x, objective
        self._maxiter, self._tol, self._callback, self._store = maxiter, tol, callback, store
        # The point to use is not the point of the steps if there are averages.
        self._averages = optimizer._shows_iterate or optimizer.ema_decay is not None
        self._seen = None if store is None else store.load()

    def result(self, progress: Progress) -> Any:
        """Go on to the end, and return SciPy's result. A run that is interrupted is saved."""
        stop: Stop | None = None
        try:
            stop = self._steps(progress)
            self._save()
            return self._result(stop)
        except BaseException:
            with contextlib.suppress(
                Exception
            ):  # the file of before stands, and the first error counts
                self._save()
            raise
        finally:
            progress.close("stopped by an exception" if stop is None else stop.message)

    def _steps(self, progress: Progress) -> Stop:
        while True:
            seen, anew = self._seen, False  # not anew: after loading
            if seen is None or seen.nit < self._optimizer.step_count:
                seen, anew = self._evaluated(), True
            largest = float(np.abs(seen.jac).max())
            progress.show(seen.nit, seen.fun, largest)
            if not (math.isfinite(seen.fun) and math.isfinite(largest)):
                return _nonfinite(seen, largest)
            if anew and seen.nit > 0 and self._asks_to_stop(seen):
                return _STOPPED
            if self._tol is not None and largest <= self._tol:
                return Stop(_DONE, f"max|gradient| is at most tol, {self._tol:g}.")
            if seen.nit >= self._maxiter:
                return self._at_the_end()
            if self._store is not None:
                self._store.save_now_and_then(seen)
            self._optimizer.step(seen.jac)

    def _at_the_end(self) -> Stop:
        if self._tol is None:
            return Stop(_DONE, f"All {self._seen.nit if self._seen else 0} steps were taken.")
        return Stop(_MAXITER, "Maximum number of iterations has been exceeded.")

    def _evaluated(self) -> Seen:
        """Evaluate at x, count, and remember the best point."""
        value, before = self._objective.at(self._x), self._seen
        if before is None:
            best = Point(self._x.copy(), value.fun, value.jac)
            nfev, njev = value.nfev, value.njev
        else:
            best = before.best
            nfev, njev = before.nfev + value.nfev, before.njev + value.njev
            if math.isfinite(value.fun) and value.fun < best.fun:
                best = Point(self._x.copy(), value.fun, value.jac)
        seen = Seen(self._optimizer.step_count, nfev, njev, value.fun, value.jac, best)
        self._seen = seen
        return seen

    def _asks_to_stop(self, seen: Seen) -> bool:
        if self._callback is None:
            return False
        now = optimize.OptimizeResult(
            x=self._x.copy(),
            fun=seen.fun,
            jac=seen.jac.copy(),
            nit=seen.nit,
            nfev=seen.nfev,
            njev=seen.njev,
        )
        try:
            self._callback(now)
        except StopIteration:
            return True
        return False

    def _save(self) -> None:
        if self._store is not None and self._seen is not None:
            self._store.save(self._seen)

    def _result(self, stop: Stop) -> Any:
        seen: Any = self._seen
        point, nfev, njev = seen.best, seen.nfev, seen.njev
        if self._averages and stop.status != _NONFINITE:
            with self._optimizer.averaged():
                x = self._x.copy()
            value = self._objective.at(x)
            point = Point(x, value.fun, value.jac)
            nfev, njev = nfev + value.nfev, njev + value.njev
        return optimize.OptimizeResult(
            x=point.x,
            fun=point.fun,
            jac=point.jac,
            nit=seen.nit,
            nfev=nfev,
            njev=njev,
            success=stop.success,
            status=stop.status,
            message=stop.message,
        )


def _nonfinite(seen: Seen, largest: float) -> Stop:
    fun_is = "fun" if not math.isfinite(seen.fun) else "the gradient"
    found = seen.fun if not math.isfinite(seen.fun) else largest
    return Stop(
        _NONFINITE,
        f"{fun_is} must be finite, got {found} after {seen.nit} steps; x is the best point so far.",
    )
