"""What extras cost a step out of cache: bytes that they move, against time measured.

Float32 Adam moves 28 bytes an element, and each extra adds its own. If memory is what a step waits for and each buffer
is read once and written once, time grows as the bytes do. Memory itself may not: the last columns are the time of a
loop over the same streams with next to no arithmetic, by that of the plain step's, and by that of the step itself.

    python bench/extras.py [--elements 20000000] [--seconds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from machine import describe
from package import options as allowed
from package import turns, workloads
from tables import plain_table
from task import numpy_dtype

TURN = 0.02
PLAIN = "plain"
PLAIN_BYTES = 28


class Extra(NamedTuple):
    """Arguments, bytes an element more, and what the memory limit does likewise: passes, and whether a copy."""

    settings: dict[str, Any]
    more_bytes: int
    passes: tuple[tuple[int, int], ...] = ((4, 3),)
    copied: bool = False

    @property
    def limit(self) -> str:
        """The contestant's name: extras that move the same bytes have the same one."""
        return f"memory limit of {self.passes}{' and a copy' if self.copied else ''}"


ALL = {"clip_norm": 1.0, "ema_decay": 0.999}
ALL_PASSES = ((1, 0), (5, 4))
# The norm reads the gradient once more (4), an average is read and written (8), a copy of half the width written (2).
EXTRAS = {
    PLAIN: Extra({}, 0),
    "weight_decay": Extra({"weight_decay": 0.01}, 0),
    "clip_norm": Extra({"clip_norm": 1.0}, 4, ((1, 0), (4, 3))),
    "ema_decay": Extra({"ema_decay": 0.999}, 8, ((5, 4),)),
    "copy_to float16": Extra({"copy_to": "float16"}, 2, copied=True),
    "copy_to bfloat16": Extra({"copy_to": "bfloat16"}, 2, copied=True),
    "all three, float16": Extra({**ALL, "copy_to": "float16"}, 14, ALL_PASSES, copied=True),
    "all three, bfloat16": Extra({**ALL, "copy_to": "bfloat16"}, 14, ALL_PASSES, copied=True),
}


def measure(elements: int, seconds: float) -> dict[str, Any]:
    # One process: instep's threads sleep between steps, and there is nobody else's.
    import numpy as np  # noqa: PLC0415

    import instep  # noqa: PLC0415
    from instep.commands.bench.limit import MemoryLimit, stream_arrays  # noqa: PLC0415

    shapes = [(elements,)]
    grads = workloads.filled(shapes, "float32", 1)
    calls: dict[str, Callable[[], object]] = {}
    for name, extra in EXTRAS.items():
        settings = dict(extra.settings)
        if "copy_to" in settings:
            settings["copy_to"] = [np.empty(elements, numpy_dtype(settings["copy_to"]))]
        step = instep.Adam(workloads.filled(shapes, "float32", 0), **settings).step
        calls[name] = partial(step, grads)
        if extra.limit not in calls:
            piece = stream_arrays(extra.passes, 4 * elements, copied=extra.copied)
            calls[extra.limit] = MemoryLimit(
                extra.passes, [piece], instep.get_num_threads(), copied=extra.copied
            )
    for call in calls.values():
        call()
    times = turns.take_turns(
        {name: partial(turns.turn_of(call), TURN) for name, call in calls.items()}, seconds
    )
    found = {
        name: {
            "bytes": (PLAIN_BYTES + extra.more_bytes) / PLAIN_BYTES,
            "time": turns.ratio(times[name], times[PLAIN]),
            "memory limit": turns.ratio(times[extra.limit], times[EXTRAS[PLAIN].limit]),
            "reached": turns.ratio(times[extra.limit], times[name]),
        }
        for name, extra in EXTRAS.items()
    }
    return {"elements": elements, "extras": found}


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [
        ("Adam, float32, with", "bytes", "time", "time / bytes", "memory limit", "of it reached")
    ]
    for name, extra in found["extras"].items():
        factors = [f"x {extra[key]:.2f}" for key in ("bytes", "time")]
        over = f"{extra['time'] / extra['bytes']:.2f}"
        limit = (f"x {extra['memory limit']:.2f}", f"{extra['reached']:.2f}")
        lines.append((name, *factors, over, *limit))
    return lines


def as_text(found: dict[str, Any]) -> str:
    return f"{found['elements']:,} elements\n{plain_table(rows(found))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=allowed.count, default=20_000_000)
    parser.add_argument("--seconds", type=allowed.seconds, default=30.0, help="of turns")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = measure(arguments.elements, arguments.seconds)
    print(as_text(found))
    if arguments.json:
        report = {"machine": describe(), **found}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
