"""The pieces of a report: who takes part in them on which terms, and what is kept of what they find."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import bench_folder  # noqa: F401 - makes these modules importable
import pytest

import instep

results = importlib.import_module("results")
tables = importlib.import_module("tables")
task = importlib.import_module("task")


@pytest.mark.parametrize("keeps", [True, False])
def test_a_worker_keeps_freed_memory_where_its_task_says_so(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = importlib.import_module("worker")
    kept: list[str] = []
    monkeypatch.setattr(worker.turns, "keep_freed_memory", lambda: kept.append("kept"))
    asked = task.Task("tiny", batch=2, keeps_freed_memory=keeps)
    requests = io.StringIO(json.dumps({"do": "prepare", "task": asked.as_dict()}) + "\n")
    answers = io.StringIO()
    worker.serve("instep", requests, answers)
    assert json.loads(answers.getvalue()) == {"versions": {"instep": instep.__version__}}
    assert kept == (["kept"] if keeps else [])


def test_who_takes_part_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = importlib.import_module("loop")
    rounds: list[tuple[list[Any], float]] = []

    def compare(pool: Any, entries: list[Any], seconds: float, turn: float, found: Any) -> None:
        rounds.append((entries, seconds))

    monkeypatch.setattr(loop, "compare", compare)
    loop.measure(64, 12.0, starts=4)
    assert len(rounds) == 4
    entries, seconds = rounds[-1]
    assert seconds == 3.0
    tasks = {entry.label: entry.task for entry in entries}
    assert {t.batch for t in tasks.values()} == {64}
    assert [k for k, t in tasks.items() if t.keeps_freed_memory] == [loop.NO_FAULTS]
    assert [k for k, t in tasks.items() if t.threads == 1] == [loop.ONE_THREAD, loop.LIMITS[1]]
    peers = {entry.label: entry.peer for entry in entries}
    assert [peers[label] for label in loop.LIMITS] == ["memory limit, same arrays"] * 2
    assert set(loop.NUMPY_AT_ITS_BEST) < set(tasks)


@pytest.mark.parametrize(
    ("name", "starts"), [("one1M", 1), ("resnet50", 1), ("gpt2-clip", 3), ("gpt2-lamb", 1)]
)
def test_who_takes_part_in_a_row_and_how_often_anew(
    name: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time other processes have the arrays made, and another contestant is the first."""
    step = importlib.import_module("step")
    row = step.ROWS[name]
    rounds: list[tuple[list[str], float]] = []
    dropped: list[str] = []

    class Pool:
        def drop(self, label: str) -> None:
            dropped.append(label)

    def compare(pool: Any, entries: list[Any], seconds: float, found: Any, least: int) -> None:
        assert least == (3 if name == "gpt2-lamb" else 7)
        rounds.append(([entry.label for entry in entries], seconds))

    monkeypatch.setattr(step, "compare", compare)
    step.measure(Pool(), row, 12.0)
    assert [seconds for _, seconds in rounds] == [12.0 / starts] * starts
    assert [labels[0] for labels, _ in rounds] == list(row.peers)[:starts]
    assert all(sorted(labels) == sorted(row.peers) for labels, _ in rounds)
    assert sorted(dropped) == sorted(row.peers * (starts - 1))


def test_extras_are_held_against_the_limit_of_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = importlib.import_module("extras")
    limits = []

    def limit(passes: Any, pieces: Any, threads: int, *, copied: bool) -> Any:
        ((*streams, last),) = pieces
        assert all(stream.nbytes == 4000 for stream in streams)
        assert len(streams) == max(read for read, _ in passes) - (not copied)
        assert last.nbytes == (2000 if copied else 4000)
        limits.append((passes, copied))
        return lambda: None

    def take_turns(contestants: dict[str, Any], seconds: float) -> dict[str, list[float]]:
        assert seconds == 1.0
        return {name: [float(k)] for k, name in enumerate(contestants, 1)}

    monkeypatch.setattr("instep.commands.bench.limit.MemoryLimit", limit)
    monkeypatch.setattr(extras.turns, "take_turns", take_turns)
    found = extras.measure(1000, 1.0)["extras"]
    update, norm, average = (4, 3), (1, 0), (5, 4)
    assert limits == [
        ((update,), False),
        ((norm, update), False),
        ((average,), False),
        ((update,), True),
        ((norm, average), True),
    ]
    # In the order of turns: plain 1, its limit 2, weight_decay 3, clip_norm 4 and 5, ema_decay 6 and 7, copy_to
    # float16 8 and 9, bfloat16 10, all three with float16 11 and 12, with bfloat16 13.
    got = {name: (f["time"], f["memory limit"], f["reached"]) for name, f in found.items()}
    assert got == {
        "plain": (1, 1, 2),
        "weight_decay": (3, 1, 2 / 3),
        "clip_norm": (4, 5 / 2, 5 / 4),
        "ema_decay": (6, 7 / 2, 7 / 6),
        "copy_to float16": (8, 9 / 2, 9 / 8),
        "copy_to bfloat16": (10, 9 / 2, 9 / 10),
        "all three, float16": (11, 6, 12 / 11),
        "all three, bfloat16": (13, 6, 12 / 13),
    }


def test_typical_values() -> None:
    passes = [
        {"median": 1.0, "quartiles": [0.5, 2.0], "left out": {"a": "no"}, "when": "10:00"},
        {"median": 9.0, "quartiles": [0.1, 9.0], "left out": {}, "when": "11:00", "new": 7},
        {"median": 2.0, "quartiles": [0.9, 4.0], "left out": {"b": "nor it"}, "when": "12:00"},
    ]
    assert results.typical(passes) == {
        "median": 2.0,
        "quartiles": [0.5, 4.0],
        "left out": {"a": "no", "b": "nor it"},
        "when": "12:00",
        "new": 7,
    }
    assert [str(results.typical(values)) for values in ([3, 4], [3.0, 4.0])] == ["3", "3.5"]


def test_results_of_another_build_are_not_gone_on_with(tmp_path: Path) -> None:
    found = results.Results(tmp_path, {"build": "a"})
    found.add("call", {"tiny": 1.0}, ["step/tiny", "call"])
    found.add("step/tiny", {"contestants": {}}, ["step/tiny", "call"])
    found.add("call", {"tiny": 2.0}, ["step/tiny", "call"])
    again = results.Results(tmp_path, {"build": "a"})
    assert list(json.loads(found.path.read_text("utf-8"))["pieces"]) == ["step/tiny", "call"]
    assert [list(one) for one in again.passes] == [["step/tiny", "call"], ["call"]]
    assert again.together["call"]["tiny"] == 1.5
    assert again.times("call") == 2
    assert again.times("loop/64") == 0
    assert len(again.whens) == 3
    assert again.is_of({"build": "a"})
    other = results.Results(tmp_path, {"build": "b"})
    assert not other.is_of({"build": "b"})
    other.start_afresh({"build": "b"})
    assert other.is_of({"build": "b"})
    assert other.passes == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5e-7, "0.25 us"),
        (1.234e-6, "1.23 us"),
        (9.996e-5, "100 us"),
        (9.999e-4, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (2.5, "2.50 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text
