"""A run in a file: what `instep.checkpoint` stores for the optimizer, and what is known of the function."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, NamedTuple

import numpy as np

from instep import checkpoint
from instep.checkpoint.document import path_text
from instep.optimizers import Optimizer
from instep.optimizers.containers import Array

__all__ = ["Point", "Seen", "Store"]

_KEY = "minimize"


class Point(NamedTuple):
    """A point, with the function and its gradient there."""

    x: Array
    fun: float
    jac: Array


class Seen(NamedTuple):
    """What is known after the evaluation that follows so many steps."""

    nit: int
    nfev: int
    njev: int
    fun: float
    jac: Array
    best: Point


class Store:
    """The checkpoint of a run."""

    def __init__(
        self, path: str | os.PathLike[str], optimizer: Optimizer, x: Array, interval: float
    ) -> None:
        self._path, self._optimizer, self._interval = (
            path_text(path, "checkpoint"),
            optimizer,
            interval,
        )
        self._start = hashlib.sha256(x.tobytes()).hexdigest()
        self._next = -float(
            "inf"
        )  # at once, so that a path that can't be written ends the run before its first step

    def load(self) -> Seen | None:
        """Go on from the file, if there is one; the hyperparameters stay those of the call."""
        if not os.path.exists(self._path):
            return None
        asked = self._optimizer._current.now
        extra = checkpoint.load(self._path, self._optimizer)
        self._optimizer._current.change(lambda _: asked)
        stored: Any = extra.get(_KEY) if isinstance(extra, dict) else None
        if not self._is_of_a_run(stored):
            raise checkpoint.CheckpointError(
                f"{self._path}: the checkpoint must be of a run of instep.minimize, got another; "
                "choose another path"
            )
        if stored.pop("start") != self._start:
            raise checkpoint.CheckpointError(
                f"{self._path}: the checkpoint must be of a run from this x0, got a run from another; "
                "remove the file to begin anew, or choose another path"
            )
        return Seen(**{**stored, "best": Point(**stored["best"])})

    def _is_of_a_run(self, stored: Any) -> bool:
        """Tell whether a run has stored this. Another program may have a key of the same name."""
        if not isinstance(stored, dict) or stored.keys() != {"start", *Seen._fields}:
            return False
        best, steps = stored["best"], self._optimizer.step_count
        counts = [stored[name] for name in ("nit", "nfev", "njev")]
        return (
            isinstance(best, dict)
            and best.keys() == set(Point._fields)
            and all(type(count) is int and count >= 0 for count in counts)
            and steps - 1 <= stored["nit"] <= steps
            and all(isinstance(number, float) for number in (stored["fun"], best["fun"]))
            and all(self._is_vector(array) for array in (stored["jac"], best["x"], best["jac"]))
        )

    def _is_vector(self, array: Any) -> bool:
        (x,) = self._optimizer.params.values()
        return isinstance(array, np.ndarray) and array.shape == x.shape and array.dtype.kind == "f"

    def save(self, seen: Seen) -> None:
        """Write the file."""
        own: dict[str, Any] = {**seen._asdict(), "best": seen.best._asdict(), "start": self._start}
        checkpoint.save(self._path, self._optimizer, {_KEY: own})

    def save_now_and_then(self, seen: Seen) -> None:
        """Write the file if it is older than the interval."""
        if time.monotonic() >= self._next:
            self.save(seen)
            self._next = time.monotonic() + self._interval
