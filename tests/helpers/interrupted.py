"""Ctrl-C, or a change by another thread, before every bytecode of a call."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dis import opname
from types import CodeType, FrameType
from typing import Any

# Where an exception is about to count as caught, or no longer to. Python handles no signal there, and would keep the
# exception for good.
AT_A_HANDLER = ("PUSH_EXC_INFO", "POP_EXCEPT")


def ctrl_c() -> None:
    """Do what a signal handler does."""
    raise KeyboardInterrupt


def traced(action: Callable[[], Any], trace: Any) -> None:
    """Call it under a trace function, which may raise KeyboardInterrupt."""
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


def interrupted_at_each_point(
    action: Callable[[], Any], interrupt: Callable[[], None] = ctrl_c
) -> Iterator[Callable[[], None]]:
    """Yield a call that runs `interrupt` before a bytecode of what it calls, for each that it runs.

    A bytecode that runs many times, in a loop or a function of everybody's, is interrupted at the first time and at the
    last. All calls must be made. The first two are whole: the second finds all caches filled, and tells what runs.
    """
    times: Counter[tuple[CodeType, int]] = Counter()
    # Before which time of which bytecode the interrupt comes; every opcode of other functions goes untraced.
    target: CodeType | None = None
    offset = left = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "call":
            # No signal of Python's is handled between a `with` and its block, where a trace can raise.
            looked_at = target in (None, frame.f_code) and frame.f_code.co_name != "load_state_dict"
            frame.f_trace_opcodes, frame.f_trace_lines = looked_at, False
        elif event == "opcode" and target is None:
            times[frame.f_code, frame.f_lasti] += 1
        elif event == "opcode" and frame.f_lasti == offset:
            left -= 1
            if left == 0:
                interrupt()
        return trace

    def call() -> None:
        traced(action, trace)

    yield call
    times.clear()
    yield call
    missed = 0
    for place, most in times.items():
        target, offset = place
        if opname[target.co_code[offset]] in AT_A_HANDLER:
            continue
        for left in sorted({1, most}):
            yield call
            missed += left > 0
            assert sys.exc_info()[1] is None, (
                "an exception is left behind, for the context of every later one"
            )
    assert missed < len(times) / 2, "the call runs less each time"  # Python 3.13 leaves some out
