"""Training in PyTorch: an iteration, a user's loop and a step, with instep.torch and with torch.optim.

Each contestant has a process of its own, in which it trains with default settings on the threads given, a few
milliseconds at a time. Beside the iterations one without a step takes part: less is not to be had by a better step.

    python bench/training.py [PIECE ...] [--seconds 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import LIMIT, SAME_ARRAYS, Comparison, Entry, Pool, compare
from machine import describe
from models import MATRICES
from package import options as allowed
from programs import FOREACH, FORMS, FUSED, ITERATION, LOOP, PROGRAMS, STEP, THEIR_CLIPPING
from rows import FUSED as FUSED_RULES
from tables import contestants_table, duration, markdown_table
from task import NO_STEP, OURS, Task

THREADS = (1, 2)
TORCH = tuple(FORMS)
# Turns long enough for several iterations.
TURN = {STEP: 0.01, ITERATION: 0.05, LOOP: 0.05}
STARTS = 2


class Training(NamedTuple):
    """A model, as its users train it."""

    model: str
    rule: str
    batch: int


ACTOR_CRITIC = Training("actor-critic", "Adam", 64)
TRANSFORMER = Training("transformer-160", "AdamW", 4)
TRAININGS = (ACTOR_CRITIC, TRANSFORMER)
# Each rule of PyTorch's that instep has, and what is set other than the defaults.
RULES: dict[str, dict[str, Any]] = {
    "Adam": {},
    "AdamW": {},
    "SGD": {"momentum": 0.9},
    "RMSprop": {},
    "Adagrad": {},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "Adadelta": {},
    "Rprop": {},
    "ASGD": {},
    "Muon": {},
}
# By name the rows of a piece: all are measured by the same processes.
PIECES: dict[str, dict[str, list[Entry]]] = {}


def _entries(task: Task, limits: Sequence[str]) -> list[Entry]:
    labels = [OURS, *(form for form in TORCH if form != FUSED or task.rule in FUSED_RULES)]
    if task.rule == "Muon":
        labels.remove(FOREACH)  # there is none
    if task.program in (ITERATION, LOOP):
        labels.append(NO_STEP)
    if task.program == LOOP:
        labels.append(THEIR_CLIPPING)
    entries = [Entry(label, label, task) for label in labels]
    alone = Task(task.workload, task.rule, settings=task.settings, threads=task.threads)
    return entries + [Entry(limit, limit, alone) for limit in limits]


def _pieces() -> Iterator[tuple[str, dict[str, list[Entry]]]]:
    for training in TRAININGS:
        # Over arrays as small as an actor-critic's a step waits for calls, not for memory.
        limits = (LIMIT, SAME_ARRAYS) if training == TRANSFORMER else ()
        for threads in THREADS:
            found = {}
            for program in PROGRAMS:
                batch = None if program == STEP else training.batch
                task = Task(
                    training.model, training.rule, threads=threads, batch=batch, program=program
                )
                found[program] = _entries(task, limits if program == STEP else ())
            yield f"{training.model}/{threads}", found
    for training in TRAININGS:
        found = {}
        for rule, settings in RULES.items():
            workload = training.model + (MATRICES if rule == "Muon" else "")
            task = Task(workload, rule, settings=settings, threads=1, program=STEP)
            found[rule] = _entries(task, ())
        yield f"{training.model}/rules", found


PIECES |= _pieces()


def measure(piece: str, seconds: float, starts: int = STARTS) -> dict[str, Any]:
    """Measure the rows of a piece, each for about so many seconds."""
    rows = PIECES[piece]
    found = {name: Comparison() for name in rows}
    load = [os.getloadavg()[0]]
    for _ in range(starts):
        with Pool() as pool:
            for name, entries in rows.items():
                turn = TURN[entries[0].task.program]
                compare(pool, entries, seconds / starts, turn, found=found[name])
    load.append(os.getloadavg()[0])
    whole: dict[str, Any] = {"load average": load, "versions": {}, "left out": {}, "rows": {}}
    for name, comparison in found.items():
        row = whole["rows"][name] = comparison.summary()
        whole["versions"] |= row.pop("versions")
        whole["left out"] |= row["left out"]
    return whole


def as_text(piece: str, found: Mapping[str, Any]) -> str:
    before, after = found["load average"]
    lines = [f"{piece}: load average {before:.1f} before, {after:.1f} after"]
    for name, row in found["rows"].items():
        lines += [f"\n{name}", contestants_table(row, "a call", OURS)]
    return "\n".join(lines)


# --- The page


def section(pieces: Mapping[str, Any], picture: str) -> str:
    """What the page of a machine says, if anything of it was measured."""
    trained = {name: found for name in PIECES if (found := pieces.get(f"torch/{name}"))}
    if not trained:
        return ""
    labels = (OURS, *TORCH, THEIR_CLIPPING, NO_STEP, LIMIT, SAME_ARRAYS)
    table = [("", *labels)]
    for training in TRAININGS:
        for threads in THREADS:
            rows = trained.get(f"{training.model}/{threads}", {}).get("rows", {})
            on = f"{training.model}, {threads} thread{'s' if threads > 1 else ''}"
            table += [
                (f"{on}: {name}", *_cells(row["contestants"], labels)) for name, row in rows.items()
            ]
    rules = [("", *(f"{t.model}, {who}" for t in TRAININGS for who in (OURS, *TORCH)))]
    for rule in RULES:
        cells = [rule]
        for training in TRAININGS:
            rows = trained.get(f"{training.model}/rules", {}).get("rows", {})
            cells += _cells(rows.get(rule, {}).get("contestants", {}), (OURS, *TORCH))
        if any(cells[1:]):
            rules.append(tuple(cells))
    shown = f"![Bars by program]({picture})\n\n" if len(table) > 1 else ""
    loads = [load for found in trained.values() for load in found["load average"]]
    parts = [
        "## Training in PyTorch\n\ninstep.torch's time, and the others' by it: above 1, instep is faster. The "
        "actor-critic is two perceptrons, 4-64-64-2 and 4-64-64-1, in 12 tensors, at batch 64, with Adam; the "
        "transformer has 13 layers of width 64 in 160 tensors, at batch 4 of 32 letters each, with AdamW. A loop with "
        "all that belongs to it clips the gradients and sets the rate at every step: with `clip_grad_norm_` and a "
        "scheduler of PyTorch's; instep with `clip_norm=`, and in a column of its own with `clip_grad_norm_`. Beside "
        f"them other programs ran: load averages from {min(loads):.1f} to {max(loads):.1f}.\n"
    ]
    if len(table) > 1:
        parts.append(f"{shown}{markdown_table(table)}\n")
    if len(rules) > 1:
        parts.append(
            "A step of each rule alone, on one thread; Muon on the matrices. No form of PyTorch's is missing but those "
            f"that it does not have.\n\n{markdown_table(rules)}\n"
        )
    return "\n".join(parts)


def _cells(contestants: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    cells = []
    for label in labels:
        one = contestants.get(label)
        figure = "" if one is None else f"{one['by instep']:.2f}"
        cells.append(duration(one["median"]) if one is not None and label == OURS else figure)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)} (all)")
    parser.add_argument(
        "--seconds", type=allowed.seconds, default=8.0, help="of turns, for each row"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    for name in arguments.pieces:
        if name not in PIECES:
            parser.error(f"a piece must be one of {', '.join(PIECES)}, got {name!r}")
    report: dict[str, Any] = {"machine": describe(), "pieces": {}}
    for name in arguments.pieces or PIECES:
        found = report["pieces"][name] = measure(name, arguments.seconds)
        print(as_text(name, found), end="\n\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
