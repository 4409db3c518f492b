"""Ctrl-C before every bytecode of a call."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any


def interrupted_at_each_point(action: Callable[[], Any]) -> Any:
    """Yield a call that raises KeyboardInterrupt before the k-th bytecode of what it calls, for every k.

    From 4,000 on for every 29th: a load has 14,000, and each call goes through all before.
    """
    k, reached = 0, True
    while reached:
        reached = False
        left = k

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left, reached
            # No signal of Python's is handled between a `with` and its block, where a trace can raise.
            frame.f_trace_opcodes = frame.f_code.co_name != "load_state_dict"
            if event == "opcode":
                if left == 0 and not reached:
                    reached = True
                    raise KeyboardInterrupt
                left -= 1
            return trace

        def call() -> None:
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
        k += 1 if k < 4000 else 29
