"""Contestants in processes of their own that take turns.

Every contestant runs in a process of its own, as it does in its users' programs: two of them in one process would share
or disturb each other's thread pools, OpenMP runtimes and allocators. Between its turns a process is stopped (SIGSTOP),
with all its threads: PyTorch's, for one, go on spinning for a while after a step, and would take the cores from
whoever comes next. Only one process runs at a time, and its turn begins with calls that aren't counted (turns.pace).
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from package import turns
from task import OURS, Task
from traffic import memory_of

TURN = 0.005  # seconds
CAN_STOP = hasattr(signal, "SIGSTOP")
SETTLE = 0.3  # seconds until the threads of a contestant that can't be stopped have gone to sleep
DOZE = 0.1  # until those of NumPy's matrix products have, which look for work for a while
LIMIT = "memory limit"
SAME_ARRAYS = "memory limit, same arrays"
ARITHMETIC = "arithmetic"  # of the step, in the caches
ALWAYS = (OURS, LIMIT, SAME_ARRAYS)  # in every heat: others are compared with them
MEMORY = 12 << 30  # bytes that the contestants of one heat may hold together
# Who takes so many times as long as instep, and so many seconds, rests in so many rounds after each of its own: a round
# would be mostly theirs, and the others' ratios, near 1, need many.
SLOW, LONG, RESTS = 5, 0.1, 2


class Entry(NamedTuple):
    """A contestant of one comparison: its name there, whose it is, and its task."""

    label: str
    peer: str
    task: Task


@dataclass
class Comparison:
    """What came out of the rounds. A contestant may be missing in some: heats split those that don't fit together."""

    rounds: list[dict[str, float]] = field(default_factory=list)  # label -> seconds a call
    left_out: dict[str, str] = field(default_factory=dict)  # label -> why
    versions: dict[str, str] = field(default_factory=dict)

    def times(self, label: str) -> list[float]:
        return [found[label] for found in self.rounds if label in found]

    @property
    def labels(self) -> list[str]:
        """Who has taken part to the end, the fastest first."""
        seen = {label for found in self.rounds for label in found} - set(self.left_out)
        if OURS in seen:  # times of different heats don't compare
            return sorted(seen, key=lambda label: self.ratio(label, OURS))
        return sorted(seen, key=lambda label: statistics.median(self.times(label)))

    def ratio(self, label: str, other: str) -> float:
        """How many times as long as the other's a contestant's call takes."""
        both = [found for found in self.rounds if label in found and other in found]
        return turns.ratio([found[label] for found in both], [found[other] for found in both])

    def summary(self) -> dict[str, Any]:
        """All that is worth keeping; JSON can hold it."""
        contestants = {}
        for label in self.labels:
            low, median, high = statistics.quantiles(self.times(label), n=4, method="inclusive")
            contestants[label] = {
                "median": median,
                "quartiles": [low, high],
                "rounds": len(self.times(label)),
            }
            if OURS in self.labels:
                contestants[label]["by instep"] = self.ratio(label, OURS)
        return {
            "contestants": contestants,
            "left out": self.left_out,
            "versions": self.versions,
        }


class LeftOutError(Exception):
    """A contestant can't take part; the message says why."""


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, doze: float = 0.0) -> None:
        self.name = name
        self._doze = doze
        self.versions: dict[str, str] = {}
        self._errors = tempfile.TemporaryFile(  # noqa: SIM115 - closed with the process
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._stopped = False
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def prepare(self, task: Task) -> None:
        self.versions = self._ask({"do": "prepare", "task": task.as_dict()})["versions"]

    def forget(self) -> None:
        """Free the task's arrays."""
        self._ask({"do": "forget"})

    def turn(self, seconds: float) -> float:
        took: float = self._ask({"do": "turn", "seconds": seconds})["time"]
        return took

    def close(self) -> None:
        self._go_on()
        assert self._process.stdin is not None
        try:
            self._process.communicate(timeout=10)  # the end of its input ends it
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._go_on()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            raise LeftOutError(self._last_words())
        self._stop()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LeftOutError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else f"it ended with status {self._process.returncode}"

    def _stop(self) -> None:
        time.sleep(self._doze if CAN_STOP else SETTLE)
        if CAN_STOP and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitpid(self._process.pid, os.WUNTRACED)  # until it stands still
            self._stopped = True

    def _go_on(self) -> None:
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False


class Pool:
    """Workers by label, started when first asked for and kept, for they are slow to import what they need.

    Each is stopped so many seconds (`doze`) after its turn: threads that are stopped while they look for work go on
    where they were, and may find themselves on one core with the main thread for longer than a turn. A program that is
    told to end (SIGTERM) ends them first: stopped, they would hold their memory for good.
    """

    def __init__(self, doze: float = 0.0) -> None:
        self._doze = doze
        self._workers: dict[str, Worker] = {}

    def get(self, label: str, peer: str) -> Worker:
        if label not in self._workers:
            self._workers[label] = Worker(peer, self._doze)
        return self._workers[label]

    def drop(self, label: str) -> None:
        if label in self._workers:
            self._workers.pop(label).close()

    def drop_all(self) -> None:
        for label in list(self._workers):
            self.drop(label)

    def __enter__(self) -> Pool:
        self._sigterm = signal.signal(signal.SIGTERM, _end)  # what was done about it before
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would leave some behind
        self.drop_all()
        signal.signal(signal.SIGTERM, self._sigterm)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


def heats(entries: Sequence[Entry], memory: int) -> Iterator[list[Entry]]:
    """Split contestants that don't fit memory together; instep and the memory limits are in each heat, all in order."""
    always = [entry for entry in entries if entry.peer in ALWAYS]
    others = [entry for entry in entries if entry.peer not in ALWAYS]
    held = sum(memory_of(entry.task) for entry in always)
    split: list[list[Entry]] = [[]]
    for entry in others:
        if split[-1] and held + sum(memory_of(e.task) for e in [*split[-1], entry]) > memory:
            split.append([])
        split[-1].append(entry)
    for heat in split:
        yield [entry for entry in entries if entry in always or entry in heat]


def compare(
    pool: Pool,
    entries: Sequence[Entry],
    seconds: float,
    turn: float = TURN,
    memory: int = MEMORY,
    found: Comparison | None = None,
    least: int = turns.LEAST,
) -> Comparison:
    """Measure contestants in turns for about so many seconds; one that can't take part is left out by name.

    Where `found` is given, the rounds join those that are in it already. Each heat has `least` rounds, however long.
    """
    found = Comparison() if found is None else found
    all_heats = list(heats(entries, memory))
    for heat in all_heats:
        taking_part = [entry for entry in heat if entry.label not in found.left_out]
        _compare_heat(pool, taking_part, seconds / len(all_heats), turn, found, least)
    return found


def _compare_heat(
    pool: Pool,
    heat: Sequence[Entry],
    seconds: float,
    turn: float,
    found: Comparison,
    least: int,
) -> None:
    def leave_out(label: str, reason: LeftOutError) -> None:
        found.left_out[label] = str(reason)
        pool.drop(label)

    def take_turn(label: str) -> float:
        if label in found.left_out:
            return math.nan
        try:
            return workers[label].turn(turn)
        except LeftOutError as reason:
            leave_out(label, reason)
            return math.nan

    workers: dict[str, Worker] = {}
    for entry in heat:
        worker = pool.get(entry.label, entry.peer)
        try:
            worker.prepare(entry.task)
        except LeftOutError as reason:
            leave_out(entry.label, reason)
        else:
            workers[entry.label] = worker
            found.versions |= worker.versions
    found.rounds += in_rounds(list(workers), take_turn, seconds, least)
    for label in [label for label in workers if label not in found.left_out]:
        workers[label].forget()


def in_rounds(
    labels: Sequence[str],
    take_turn: Callable[[str], float],
    seconds: float,
    least: int = turns.LEAST,
) -> list[dict[str, float]]:
    """Let all take turns for about so many seconds and return each round's times; NaN stands for none."""

    def one_round(taking_part: Sequence[str]) -> dict[str, float]:
        times = {label: take_turn(label) for label in taking_part}
        return {label: took for label, took in times.items() if not math.isnan(took)}

    rounds: list[dict[str, float]] = []
    for _ in turns.rounds(seconds, least):
        together = one_round(labels)
        slow = max(LONG, SLOW * together.get(OURS, math.inf))
        quick = [label for label, took in together.items() if took < slow]
        left = turns.MOST - len(rounds) - 1
        rests = min(RESTS, left) if len(quick) < len(together) else 0
        rounds += [together, *(one_round(quick) for _ in range(rests))]
        if len(rounds) >= turns.MOST:
            break
    return rounds
