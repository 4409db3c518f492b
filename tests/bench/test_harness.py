"""The harness: contestants in processes of their own, of which one runs at a time; heats, rests and medians."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_folder import BENCH

import instep
from instep.commands.bench import turns

harness = importlib.import_module("harness")
task = importlib.import_module("task")


def entries(*sizes: int) -> list[Any]:
    names = ["instep", "memory limit", "memory limit, same arrays", *"abcdefgh"]
    return [
        harness.Entry(name, name, task.Task(str(size)))
        for name, size in zip(names, sizes, strict=False)
    ]


@pytest.mark.skipif(not harness.CAN_STOP, reason="no signals to stop a process by")
def test_a_program_that_is_told_to_end_ends_its_contestants() -> None:
    code = """
        import time
        from harness import Pool
        with Pool() as pool:
            print(pool.get("a", "NumPy").pid, flush=True)
            time.sleep(60)
    """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=BENCH,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        contestant = int(program.stdout.readline())
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(contestant, 0)


def test_heats_hold_no_more_than_fits_and_always_instep() -> None:
    def split(memory: int) -> list[list[str]]:
        found = harness.heats(entries(1, 1, 1, 1, 1, 1), memory * 16)
        return [[entry.label for entry in heat] for heat in found]

    ours = ["instep", "memory limit", "memory limit, same arrays"]
    assert split(6) == [[*ours, "a", "b", "c"]]
    assert split(5) == [[*ours, "a", "b"], [*ours, "c"]]
    assert split(1) == [[*ours, "a"], [*ours, "b"], [*ours, "c"]]
    turned = [*entries(1, 1, 1, 1, 1)[3:], *entries(1, 1, 1)]
    assert list(harness.heats(turned, 6 * 16)) == [turned]


def test_who_is_slow_rests() -> None:
    takes = {"instep": 0.1, "b": 0.4, "NumPy": 0.6, "gone": math.nan}
    asked = []

    def take_turn(label: str) -> float:
        asked.append(label)
        return takes[label]

    rounds = harness.in_rounds(list(takes), take_turn, seconds=0.0)
    quick = {"instep": 0.1, "b": 0.4}
    assert rounds == [quick | {"NumPy": 0.6}, quick, quick] * 7
    assert asked[:8] == ["instep", "b", "NumPy", "gone", "instep", "b", "instep", "b"]
    assert len(harness.in_rounds(list(takes), take_turn, seconds=60.0)) == turns.MOST
    takes.update({"instep": 0.001, "b": 0.004, "NumPy": 0.006})  # a turn is as long, whoever's
    assert (
        harness.in_rounds(list(takes)[:3], take_turn, seconds=0.0)
        == [{"instep": 0.001, "b": 0.004, "NumPy": 0.006}] * 7
    )
    assert len(harness.in_rounds(list(takes)[:3], take_turn, seconds=0.0, least=3)) == 3
    del takes["instep"]
    assert len(harness.in_rounds(list(takes)[:2], take_turn, seconds=0.0)) == 7


def test_a_comparison_takes_medians_and_pairs() -> None:
    found = harness.Comparison(
        rounds=[
            {"instep": 1.0, "a": 2.0},
            {"instep": 4.0, "a": 12.0},
            {"instep": 2.0, "a": 10.0},
            {"instep": 2.0, "b": 1.0},
            {"instep": 2.0, "b": 1.0},
        ],
        left_out={"c": "too large"},
    )
    assert found.labels == ["b", "instep", "a"]
    summary = found.summary()
    assert summary["contestants"]["a"]["median"] == statistics.median([2.0, 12.0, 10.0])
    assert summary["contestants"]["a"]["by instep"] == 3.0
    assert summary["contestants"]["b"]["by instep"] == 0.5
    assert summary["contestants"]["instep"]["rounds"] == 5
    assert summary["left out"] == {"c": "too large"}
    assert json.loads(json.dumps(summary)) == summary


def test_contestants_in_processes_and_who_cannot_take_part() -> None:
    can, cannot = task.Task("tiny"), task.Task("tiny", rule="SGD")
    asked = [
        harness.Entry("instep", "instep", can),
        harness.Entry("NumPy", "NumPy", can),
        harness.Entry("NumPy's SGD", "NumPy", cannot),
        harness.Entry("nobody", "nobody", can),
    ]
    with harness.Pool() as pool:
        found = harness.compare(pool, asked, seconds=0.0, turn=0.001)
        again = harness.compare(pool, asked[:2], seconds=0.0, turn=0.001)
    assert set(found.labels) == {"instep", "NumPy"} == set(again.labels)
    assert found.left_out == {
        "NumPy's SGD": "AssertionError: NumPy has no adapter for SGD",
        "nobody": "KeyError: 'nobody'",
    }
    assert len(found.rounds) == 7
    assert all(1e-8 < took < 10 for together in found.rounds for took in together.values())
    assert found.versions == {"instep": instep.__version__, "NumPy": np.__version__}


@pytest.mark.skipif(not harness.CAN_STOP, reason="this system has no SIGSTOP")
def test_only_the_process_whose_turn_it_is_runs() -> None:
    with harness.Pool() as pool:
        worker = pool.get("NumPy", "NumPy")
        state = Path(f"/proc/{worker.pid}/stat")
        if not state.exists():
            pytest.skip("this system has no /proc")

        def stopped() -> bool:
            return state.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"

        assert stopped()
        worker.prepare(task.Task("tiny"))
        assert stopped()
        assert worker.turn(0.001) > 0
        assert stopped()
