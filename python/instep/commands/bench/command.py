"""The command ``instep bench``: the speed of steps on this machine, compared with NumPy."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from instep import Adam
from instep.commands.bench import options as allowed
from instep.commands.bench.limit import MemoryLimit, stream_arrays
from instep.commands.bench.turns import keep_freed_memory, ratio, take_turns, turn_of
from instep.commands.bench.workloads import WORKLOADS, elements, filled, shapes_of
from instep.commands.demo.numpy_adamw import NumpyAdamW
from instep.machine.configuration import config
from instep.machine.threads import get_num_threads

__all__ = ["add_arguments", "run"]

_DEFAULT = ("tiny", "mlp", "one1M", "resnet50")
_TURN = 0.005  # seconds
_MOST_PARAMETERS = 10**9
_LEAST_BYTES = 1 << 20  # below this, a step waits for the call, not for memory


class _Result(NamedTuple):
    """Seconds for a step, and ratios to instep; None if there is no memory limit."""

    workload: str
    parameters: int
    numpy: float
    instep: float
    numpy_by_instep: float
    memory_limit: float | None
    limit_by_instep: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    parser.add_argument(
        "workloads",
        nargs="*",
        type=_workload,
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}, or a number of parameters ({' '.join(_DEFAULT)})",
    )
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=3.0, help="for each workload (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _workload(text: str) -> str:
    is_count = text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_PARAMETERS
    if text not in WORKLOADS and not is_count:
        raise argparse.ArgumentTypeError(
            f"a workload must be one of {', '.join(WORKLOADS)}, or a number of parameters from 1 to "
            f"{_MOST_PARAMETERS}, got {text!r}"
        )
    return text


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and return the exit status."""
    keep_freed_memory()
    results = [_measure(name, arguments.seconds) for name in arguments.workloads or _DEFAULT]
    if arguments.json:
        print(json.dumps({"config": config(), "results": [r._asdict() for r in results]}, indent=2))
    else:
        print(_setting(), end="\n\n")
        print(_table(results))
    return 0


def _measure(workload: str, seconds: float) -> _Result:
    shapes = shapes_of(workload)
    size = elements(shapes)
    grads = filled(shapes, np.float32, 1)
    numpys = {str(i): p for i, p in enumerate(filled(shapes, np.float32, 0))}
    numpy_step = NumpyAdamW(numpys, lambda step: 1e-3, weight_decay=0.0).step
    instep_step = Adam(filled(shapes, np.float32, 0), lr=1e-3).step
    calls: dict[str, Callable[[], object]] = {
        "NumPy": partial(numpy_step, dict(zip(numpys, grads, strict=True))),
        "instep": partial(instep_step, grads),
    }
    if 4 * 4 * size >= _LEAST_BYTES:
        passes = [(4, 3)]
        arrays = stream_arrays(passes, 4 * size)
        calls["memory limit"] = MemoryLimit(passes, [arrays], get_num_threads())
    for call in calls.values():
        call()  # a first step allocates
    turns = {name: partial(turn_of(call), _TURN) for name, call in calls.items()}
    times = take_turns(turns, seconds, least=3)
    medians = {name: statistics.median(found) for name, found in times.items()}
    limited = "memory limit" in times
    return _Result(
        workload,
        size,
        medians["NumPy"],
        medians["instep"],
        ratio(times["NumPy"], times["instep"]),
        medians["memory limit"] if limited else None,
        ratio(times["memory limit"], times["instep"]) if limited else None,
    )


def _setting() -> str:
    how = config()
    threads = get_num_threads()
    return (
        f"Adam, float32: time of a step, median over turns. instep {how['version']}, {how['isa']['used']}, "
        f"{threads} thread{'' if threads == 1 else 's'}; NumPy {how['numpy']}.\n"
        "Memory limit: a loop that moves the same bytes and computes next to nothing. Speed-up and reached: medians\n"
        "of the ratios within a turn; what else computes here disturbs both by turns, so reached may exceed 100 %."
    )


def _table(results: Sequence[_Result]) -> str:
    header = ("workload", "parameters", "NumPy", "instep", "speed-up", "memory limit", "reached")
    rows = [header, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _row(result: _Result) -> tuple[str, ...]:
    limit, reached = result.memory_limit, result.limit_by_instep
    return (
        result.workload,
        f"{result.parameters:,}",
        _time(result.numpy),
        _time(result.instep),
        f"{result.numpy_by_instep:.1f} x",
        "-" if limit is None else _time(limit),
        "-" if reached is None else f"{100 * reached:.0f} %",
    )


def _time(seconds: Any) -> str:
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-4 else f"{seconds * 1e3:,.2f} ms"
