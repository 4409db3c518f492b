"""Ctrl-C, or a change by another thread, before every bytecode of a call."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any


def ctrl_c() -> None:
    """Do what a signal handler does."""
    raise KeyboardInterrupt


def interrupted_at_each_point(
    action: Callable[[], Any], interrupt: Callable[[], None] = ctrl_c, stride: int = 1
) -> Any:
    """Yield a call that runs `interrupt` before the k-th bytecode of what it calls, for every k.

    Or for every k that is a multiple of `stride`. From 4,000 on for every 29th: a load has 14,000,
    and each call goes through all before.
    """
    k, reached, called = 0, True, True
    while reached:
        assert called, "a call that is left out would end the loop"
        reached = called = False
        left = k

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left, reached
            # No signal of Python's is handled between a `with` and its block, where a trace can raise.
            frame.f_trace_opcodes = frame.f_code.co_name != "load_state_dict"
            if event == "opcode":
                if left == 0 and not reached:
                    reached = True
                    interrupt()
                left -= 1
            return trace

        def call() -> None:
            nonlocal called
            called = True
            before = sys.gettrace()
            gc.disable()  # or it would be raised in what others want called then
            sys.settrace(trace)
            try:
                action()
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
                gc.enable()

        yield call
        k += stride if k < 4000 else max(stride, 29)
