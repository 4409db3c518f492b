"""What narrow states and parameters cost and save: a step in the caches beside float32's, and the bytes of each.

In the caches a step waits for its arithmetic, and fewer bytes only add to it. Beyond them it waits for its bytes; the
rows "gpt2-..." of step.py measure that.

    python bench/storage_speed.py [--elements 60000] [--seconds 10] [--page docs/storage.md] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from machine import describe
from package import options as allowed
from package import turns, workloads
from storage_formats import FORMATS
from tables import markdown_table, plain_table, put
from task import Task
from traffic import passes_of, state_bytes

TURN = 0.005
ELEMENTS = 60_000
RULE = "AdamW"
PLAIN = "float32"


def measure(seconds: float, elements: int = ELEMENTS) -> dict[str, Any]:
    """On one thread, in one process: instep alone takes part."""
    from peers.with_instep import Instep  # noqa: PLC0415 - the page is made without it

    tasks = {
        name: stored.of(Task(str(elements), rule=RULE, threads=1))
        for name, stored in FORMATS.items()
    }
    contestants = {}
    for name, task in tasks.items():
        params, grads = (workloads.filled(task.shapes, task.numpy_dtype, k) for k in range(2))
        step = Instep(task, params).call(grads)
        step()
        contestants[name] = partial(turns.pace, step, TURN)
    times = turns.take_turns(contestants, seconds, most=10 * turns.MOST)
    found = {
        name: {
            "time": turns.ratio(times[name], times[PLAIN]),
            "an element": min(times[name]) / elements,
            "states": sum(state_bytes(task)),
            "moved": sum(map(sum, passes_of(task))),
        }
        for name, task in tasks.items()
    }
    return {"elements": elements, "formats": found}


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    lines = [(f"{RULE} in", "bytes of states", "bytes moved", "an element", "time by float32's")]
    for name, one in found["formats"].items():
        each = f"{1e9 * one['an element']:.2f} ns"
        counts = (str(one["states"]), str(one["moved"]))
        lines.append((FORMATS[name].title, *counts, each, f"{one['time']:.2f}"))
    return lines


def section(pieces: Mapping[str, Any]) -> str:
    """What the page of a machine says, if it was measured."""
    if "storage" not in pieces:
        return ""
    found = pieces["storage"]
    return (
        f"## Fewer bytes, in the caches\n\n{RULE} over {found['elements']:,} elements on one thread: the bytes of its "
        "states and the bytes that a step moves, an element; the least time of an element; and a step's time by the "
        "time in float32. A remainder counts as a state. The units of 8-bit states, a sixteenth of a byte each, are "
        f"left out. Beyond the caches the bytes count: the rows of GPT-2 above.\n\n{markdown_table(rows(found))}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=allowed.count, default=ELEMENTS)
    parser.add_argument("--seconds", type=allowed.seconds, default=10.0, help="of turns")
    parser.add_argument("--page", type=Path, help="put the table into this page, too")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = measure(arguments.seconds, arguments.elements)
    print(f"{found['elements']:,} elements, one thread\n{plain_table(rows(found))}")
    if arguments.page:
        text = put(arguments.page.read_text(encoding="utf-8"), "speed", rows(found))
        arguments.page.write_text(text, encoding="utf-8")
    if arguments.json:
        report = {"machine": describe(), **found}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
