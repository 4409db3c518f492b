"""How far a run is, on stderr, for ``disp=True``."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from typing import Any, Protocol, TextIO

__all__ = ["Progress", "progress"]

_SECONDS = 2.0  # between two lines, where a bar would fill a log


class Progress(Protocol):
    """Shows numbers of the run after each evaluation, and why it has ended."""

    def show(self, nit: int, fun: float, largest: float) -> None:
        """Show the steps so far, the function's value and the gradient's largest element."""

    def close(self, message: str) -> None:
        """Show the last message, and leave the stream as it was."""


def progress(method: str, maxiter: int, *, disp: bool) -> Progress:
    """Return a bar of tqdm for terminals and notebooks if tqdm is installed; otherwise a line now and then."""
    stream = sys.stderr
    if not disp or stream is None:  # as in a program without a console
        return _Nothing()
    if _is_terminal(stream) or "ipykernel" in sys.modules:
        with contextlib.suppress(ImportError):
            tqdm = importlib.import_module("tqdm").tqdm
            return _Bar(method, tqdm(total=maxiter, desc=method, file=stream, dynamic_ncols=True))
    return _Lines(method, maxiter, stream)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # of an object that has only write, or is closed
        return False


def _numbers(fun: float, largest: float) -> str:
    return f"fun {fun:.6g}, max|gradient| {largest:.3g}"


class _Nothing:
    def show(self, nit: int, fun: float, largest: float) -> None:
        pass

    def close(self, message: str) -> None:
        pass


class _Bar:
    def __init__(self, method: str, bar: Any) -> None:
        self._method, self._bar = method, bar

    def show(self, nit: int, fun: float, largest: float) -> None:
        self._bar.set_postfix_str(_numbers(fun, largest), refresh=False)
        self._bar.update(nit - self._bar.n)

    def close(self, message: str) -> None:
        self._bar.set_description_str(f"{self._method}: {message}")
        self._bar.close()


class _Lines:
    def __init__(self, method: str, maxiter: int, stream: TextIO) -> None:
        self._method, self._maxiter, self._stream = method, maxiter, stream
        self._next = time.monotonic() + _SECONDS
        self._last = ""

    def show(self, nit: int, fun: float, largest: float) -> None:
        self._last = f"{nit}/{self._maxiter} steps, {_numbers(fun, largest)}"
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS
            self._print(self._last)

    def close(self, message: str) -> None:
        self._print(f"{self._last}: {message}" if self._last else message)

    def _print(self, text: str) -> None:
        # A pipe that nobody reads ends no run, and neither does an object that can't flush.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            print(f"{self._method}: {text}", file=self._stream, flush=True)
