"""The benchmarks: the right workloads, fair turns, and contestants that compute the same thing."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import platform
import re
import sys
import weakref
from typing import Any

import bench_folder  # noqa: F401 - makes these modules importable
import numpy as np
import pytest
from bench_peers import check_peers
from interpreters import output

import instep
from instep.commands.bench import turns, workloads

harness = importlib.import_module("harness")
rows = importlib.import_module("rows")
task = importlib.import_module("task")
traffic = importlib.import_module("traffic")

# --- Workloads


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("tiny", 4, 2_410),
        ("mlp", 6, 235_146),
        ("many", 1_000, 100_000),
        ("one1M", 1, 1_000_000),
        ("resnet50", 161, 25_557_032),
        ("gpt2", 148, 124_439_808),
        ("one100M", 1, 100_000_000),
        ("12345", 1, 12_345),
    ],
)
def test_workloads_have_the_models_sizes(name: str, tensors: int, parameters: int) -> None:
    shapes = workloads.shapes_of(name)
    assert (len(shapes), workloads.elements(shapes)) == (tensors, parameters)


def test_filled_arrays_have_numbers_everywhere() -> None:
    first, second = workloads.filled([(100_000,), (3, 5)], "float32", 0)
    assert (first.shape, second.shape, first.dtype) == ((100_000,), (3, 5), np.float32)
    assert 0.9 < first[-1_000:].std() < 1.1
    assert np.count_nonzero(first) == first.size
    assert np.array_equal(workloads.filled([(100_000,)], "float32", 0)[0], first)
    assert not np.array_equal(workloads.filled([(100_000,)], "float32", 1)[0], first)


def test_side_by_side_are_the_same_arrays_in_one() -> None:
    apart = workloads.filled([(3, 5), (), (7,)], "float32", 0)
    together = task.side_by_side(apart)
    assert [a.tolist() for a in together] == [a.tolist() for a in apart]
    first, *others = (a.__array_interface__["data"][0] for a in together)
    assert others == [first + 4 * 15, first + 4 * 16]


@pytest.mark.parametrize(
    ("settings", "passes", "width", "streams"),
    [
        ({}, [(16, 12)], 4, [(4, 3)]),
        ({"dtype": "float64"}, [(32, 24)], 8, [(4, 3)]),
        ({"dtype": "bfloat16"}, [(8, 6)], 2, [(4, 3)]),
        ({"state_dtype": "bfloat16"}, [(12, 8)], 4, [(3, 2)]),
        ({"clip_norm": 1.0}, [(4, 0), (16, 12)], 4, [(1, 0), (4, 3)]),
        ({"rule": "RMSprop"}, [(12, 8)], 4, [(3, 2)]),
        ({"rule": "SGD", "settings": {"momentum": 0.9}}, [(12, 8)], 4, [(3, 2)]),
        ({"rule": "SGD"}, [(8, 4)], 4, [(2, 1)]),
        ({"rule": "NAdam"}, [(16, 12)], 4, [(4, 3)]),  # a state that is one number
        ({"rule": "ASGD", "state_dtype": "bfloat16"}, [(12, 8)], 4, [(3, 2)]),  # ax is float32
        ({"rule": "LAMB"}, [(16, 0), (16, 12)], 4, [(4, 0), (4, 3)]),
        ({"rule": "LARS"}, [(8, 0), (12, 8)], 4, [(2, 0), (3, 2)]),
        ({"settings": {"clip_update": 1.0}}, [(8, 0), (16, 12)], 4, [(2, 0), (4, 3)]),
        # More streams than the limit's loop has: two passes of the same bytes.
        ({"rule": "Adan"}, [(24, 20)], 4, [(3, 3), (3, 2)]),
    ],
)
def test_bytes_of_a_step(
    settings: dict[str, Any], passes: list[Any], width: int, streams: list[Any]
) -> None:
    assert traffic.passes_of(task.Task("tiny", **settings)) == passes
    assert traffic.in_streams(passes) == (width, streams)


# --- Turns


def test_turns_go_round_in_order() -> None:
    log: list[str] = []

    def turn(name: str) -> float:
        log.append(name)
        return len(log)

    contestants = {name: lambda name=name: turn(name) for name in "abc"}
    times = turns.take_turns(contestants, seconds=0.0, least=3)
    assert "".join(log) == "abcabcabc"
    assert times == {"a": [1, 4, 7], "b": [2, 5, 8], "c": [3, 6, 9]}
    assert len(turns.take_turns({"a": lambda: 1.0}, seconds=60.0, most=5)["a"]) == 5


def test_pace_repeats_short_calls_and_not_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = 0.0, 0

    def call_of(seconds: float) -> Any:
        def call() -> None:
            nonlocal clock, calls
            clock += seconds
            calls += 1

        return call

    class Timer:
        def __init__(self, call: Any) -> None:
            self.call = call

        def timeit(self, number: int) -> float:
            start = clock
            for _ in range(number):
                self.call()
            return clock - start

    monkeypatch.setattr(turns.timeit, "Timer", Timer)
    assert turns.pace(call_of(0.5), 0.005) == 0.5
    assert calls == 1
    calls = 0
    assert turns.pace(call_of(1e-5), 0.005) == pytest.approx(1e-5)
    assert (
        625 <= calls <= 1_100
    )  # a quarter as many to warm up, doubled at most, and 500 that count
    calls = 0
    assert turns.pace(call_of(0.05), 0.005) == pytest.approx(0.05)
    assert calls == 2
    calls = 0
    assert turns.pace(call_of(0.4), 0.005) == pytest.approx(0.4)
    assert calls == 2


FAULTS = """
import resource
import numpy as np
from instep.commands.bench.turns import keep_freed_memory
{keep}
a = np.ones(1 << 18)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        (a * 2 + a) * (a - 1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of another C library")
def test_freed_memory_is_kept() -> None:
    """An expression with intermediate arrays of 2 MiB, which cost thousands of page faults else."""
    assert int(output(FAULTS.format(keep=""))) > 1_000
    assert int(output(FAULTS.format(keep="keep_freed_memory()"))) < 10


def test_a_contestant_may_have_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        def __call__(self) -> None: ...

        def turn(self, seconds: float) -> float:
            return 2 * seconds

    assert turns.turn_of(Own())(0.5) == 1.0
    monkeypatch.setattr(turns, "pace", lambda call, seconds: (call(), seconds))
    assert turns.turn_of(lambda: "called")(0.5) == ("called", 0.5)


def test_ratio_pairs_the_times_of_a_round() -> None:
    ours, other = [1.0, 10.0, 2.0], [3.0, 20.0, 8.0]  # the machine was slow in the second round
    assert turns.ratio(other, ours) == 3.0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        turns.ratio([1.0], ours)


# --- The peers

PEERS_BY_PACKAGE = {
    "numpy": {"NumPy": 0.0, "NumPy in place": 0.0},
    "sklearn": {"scikit-learn": 1e-5},  # its epsilon is the paper's epsilon-hat
    "numba": {"Numba": 1e-6},
    "torch": {"torch loop": 1e-6, "torch foreach": 1e-6, "torch fused": 1e-6},
    "deepspeed": {"DeepSpeed": 1e-6},
    "optax": {"optax": 1e-6},
}


@pytest.mark.parametrize("package", PEERS_BY_PACKAGE)
def test_peers_take_the_same_step(package: str) -> None:
    plain = task.Task("1000")
    check_peers(package, {n: (n, plain, None, t) for n, t in PEERS_BY_PACKAGE[package].items()})


def test_the_limit_of_the_same_arrays_goes_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all of them, states as an optimizer lays them, and changes none."""
    peers = importlib.import_module("peers")
    core = importlib.import_module("instep._core.testing")
    made = []
    through = core.make_memory_traffic

    def record(pieces: list[list[np.ndarray]], passes: Any, *more: Any) -> Any:
        made.append((pieces, list(passes)))
        return through(pieces, passes, *more)

    monkeypatch.setattr(core, "make_memory_traffic", record)
    asked = task.Task("mlp", clip_norm=1.0)
    params, grads = (workloads.filled(asked.shapes, "float32", k) for k in range(2))
    before = [array.copy() for array in (*params, *grads)]
    contestant = peers.PEERS["memory limit, same arrays"].start(asked, params)
    ((pieces, passes),) = made
    assert passes == [(1, 0), (4, 3)]
    assert all(piece[0] is param for piece, param in zip(pieces, params, strict=True))
    optimizer = instep.Adam([param.copy() for param in params])
    for piece, states in zip(pieces, optimizer.state.values(), strict=True):
        assert len(piece) == 4
        laid = [state.ctypes.data % 4096 for state in states.values()]
        assert [array.ctypes.data % 4096 for array in piece[1:3]] == laid
    assert all(mine is given for mine, given in zip(contestant.params(), params, strict=True))

    def move(gradients: list[np.ndarray]) -> None:
        contestant.call(gradients)()
        contestant.call(gradients).turn(1e-6)

    move(grads)
    assert all(map(np.array_equal, before, (*params, *grads)))
    # In a loop the next gradients take the place of these.
    alive = [weakref.ref(grad) for grad in grads]
    grads.clear()
    assert not any(reference() is not None for reference in alive)
    mixed = task.Task("tiny", state_dtype="bfloat16")
    with pytest.raises(ValueError, match="states of another width"):
        peers.PEERS["memory limit, same arrays"].start(mixed, params)


def test_torch_takes_the_steps_of_the_other_rows() -> None:
    """Those of other formats, over few elements."""
    pytest.importorskip("ml_dtypes")
    # bfloat16 has 8 bits; a state kept in it moves a weight a little differently.
    tolerances = {"gpt2-bfloat16": 0.04, "gpt2-bfloat16-state": 1e-4}
    asked = {}
    for name, row in rows.ROWS.items():
        small = dataclasses.replace(row.task, workload="1000")
        if name != row.task.workload and not row.rule and not row.task.threads:
            # PyTorch has no states of another format: it steps in float32 what instep steps with bfloat16 states.
            their = dataclasses.replace(small, state_dtype=None)
            asked |= {
                f"{name}, {peer}": (peer, their, small, tolerances.get(name, 2e-6))
                for peer in row.peers
                if peer.startswith("torch")
            }
    assert len(asked) == 4
    check_peers("torch", asked)


@pytest.mark.parametrize(
    ("script", "option", "value"),
    [
        ("loop", "--seconds", "0"),
        ("loop", "--batch", "0"),
        ("scaling", "--sizes", "x"),
        ("extras", "--elements", "-1"),
    ],
)
def test_scripts_refuse_what_they_cannot_measure(
    script: str,
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{script}.py", option, value])
    with pytest.raises(SystemExit):
        importlib.import_module(script).main()
    error = capsys.readouterr().err
    assert f"argument {option}: the " in error
    assert re.search(f" must be .*, got '?{re.escape(value)}'?$", error.rstrip())
