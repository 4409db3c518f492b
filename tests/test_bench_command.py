"""``instep bench`` and the memory limit that it measures by."""

from __future__ import annotations

import json
import re
from functools import reduce
from typing import Any

import numpy as np
import pytest

from instep import _core, cli
from instep.bench import limit

SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 4096, 100_003]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_limit_reads_all_and_writes_some(size: int, threads: int) -> None:
    rng = np.random.default_rng(size)
    for read in range(1, 6):
        for written in range(read + 1):
            before = [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(read)]
            room = [np.full(size + 128, 7, np.uint8) for _ in before]
            arrays = [array[64 : 64 + size] for array in room]
            for array, values in zip(arrays, before, strict=True):
                array[:] = values
            _core.memory_limit(arrays, written, threads, 4096)
            seen = reduce(np.bitwise_xor, before)  # depends on every byte of every array
            for k, array in enumerate(arrays):
                assert array.tobytes() == (seen if k < written else before[k]).tobytes()
                assert (room[k][:64] == 7).all()
                assert (room[k][64 + size :] == 7).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("words", [0, 1, 255, 256, 257, 10_001])
@pytest.mark.parametrize("written", [0, 3])
def test_the_limit_writes_a_copy(words: int, threads: int, written: int) -> None:
    rng = np.random.default_rng(words)
    arrays = [rng.integers(0, 1 << 62, words) for _ in range(4)]
    seen = reduce(np.bitwise_xor, arrays)
    room = np.full(words + 32, 0x07070707, np.int32)
    _core.memory_limit(arrays, written, threads, 4096, room[16 : 16 + words])
    assert (room[16 : 16 + words] != 0x07070707).all()
    assert (room[:16] == 0x07070707).all()
    assert (room[16 + words :] == 0x07070707).all()
    assert all(np.array_equal(array, seen) for array in arrays[:written])


def read_only() -> np.ndarray:
    array = np.zeros(8)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arrays", "written", "error", "complaint"),
    [
        ([], 0, ValueError, "arrays has 0 arrays; 1 to 5 are wanted"),
        ([np.zeros(1)] * 6, 0, ValueError, "arrays has 6 arrays; 1 to 5 are wanted"),
        ([np.zeros(8)], 2, ValueError, "written is 2; 0 to the number of arrays is wanted"),
        ([np.zeros(8)], -1, ValueError, "written is -1; 0 to the number of arrays is wanted"),
        ([[1.0]], 0, TypeError, "array 0 is no NumPy array; one is wanted"),
        ([np.zeros(16)[::2]], 0, ValueError, "array 0 is not C-contiguous"),
        ([np.zeros(24, "u1")[1:17]], 0, ValueError, "array 0 is misaligned"),
        ([read_only()], 1, ValueError, "array 0 is read-only; the first 1 are to be written"),
        ([np.zeros(8), np.zeros(9)], 0, ValueError, "array 1 has 72 bytes; the first one's 64"),
        ([np.zeros(8)] * 2, 0, ValueError, "array 1 shares memory with another one"),
    ],
)
def test_the_limit_refuses(
    arrays: list[Any], written: int, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=re.escape(complaint)):
        _core.memory_limit(arrays, written, 1, 4096)


@pytest.mark.parametrize(
    ("copy", "error", "complaint"),
    [
        (1.0, TypeError, "copy is no NumPy array; one is wanted"),
        (read_only(), ValueError, "copy is read-only; it is to be written"),
        (np.zeros(7), ValueError, "copy has 56 bytes; half of an array's 128 are wanted"),
    ],
)
def test_the_limit_refuses_a_copy(copy: Any, error: type[Exception], complaint: str) -> None:
    arrays = [np.zeros(16), np.zeros(16)]
    with pytest.raises(error, match=re.escape(complaint)):
        _core.memory_limit(arrays, 1, 1, 4096, copy)
    with pytest.raises(ValueError, match="copy shares memory with another one"):
        _core.memory_limit(arrays, 1, 1, 4096, arrays[1][:8])


@pytest.mark.parametrize(("threads", "chunk"), [(0, 64), (-1, 64), (1, 0)])
def test_the_limit_refuses_no_threads_and_no_chunk(threads: int, chunk: int) -> None:
    with pytest.raises(ValueError, match="at least 1 is wanted"):
        _core.memory_limit([np.zeros(8)], 0, threads, chunk)


def test_the_limit_of_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, bool]] = []

    def record(
        streams: list[np.ndarray],
        written: int,
        threads: int,
        chunk: int,
        copy: np.ndarray | None = None,
    ) -> None:
        places = {
            array.ctypes.data % 4096 for array in [*streams, *([] if copy is None else [copy])]
        }
        assert len(places) == len(streams) + (copy is not None)
        assert all(stream.nbytes == 1000 for stream in streams)
        assert copy is None or copy.nbytes == 500
        asked.append((len(streams), written, copy is not None))

    monkeypatch.setattr(limit._core, "memory_limit", record)
    limit.MemoryLimit([(1, 0), (4, 3)], 1000, threads=2)()
    limit.MemoryLimit([(1, 0), (5, 4)], 1000, threads=2, copied=True)()
    assert asked == [(1, 0, False), (4, 3, False), (1, 0, False), (5, 4, True)]


def test_the_limit_is_the_way_that_has_been_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        (1, 4_000_000): [9.0, 9.0, 9.0],  # never fast: it takes part three times
        (2, 1 << 20): [4.0, 4.0, 4.0, 4.0, 2.0],
        (2, 2_000_000): [3.0, 4.5, 4.5, 4.5, 9.0],
    }
    turns = {way: iter(taken) for way, taken in times.items()}

    def pace(way: Any, seconds: float) -> float:
        assert seconds == 0.5
        return next(turns[way.args[2:]])

    monkeypatch.setattr(limit, "pace", pace)
    contestant = limit.MemoryLimit([(4, 3)], 4_000_000, threads=2)
    assert [contestant.turn(0.5) for _ in range(5)] == [3.0, 4.5, 4.0, 4.0, 2.0]
    assert all(next(turn, None) is None for turn in turns.values())


def test_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "tiny", "100000", "--seconds", "0.01"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "Adam, float32" in out[0]
    assert "may exceed 100 %" in out[2]
    assert not out[3]
    assert out[4].split() == [
        "workload",
        "parameters",
        "NumPy",
        "instep",
        "speed-up",
        "memory",
        "limit",
        "reached",
    ]
    tiny, other = out[5:]
    time = r"[\d,.]+ [um]s"
    assert re.fullmatch(rf"tiny +2,410 +{time} +{time} +[\d.]+ x +- +-", tiny)
    assert re.fullmatch(rf"100000 +100,000 +{time} +{time} +[\d.]+ x +{time} +\d+ %", other)


def test_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "tiny", "--seconds", "0.01", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["config"]["isa"]["used"] == _core.level()
    (tiny,) = report["results"]
    assert tiny["workload"] == "tiny"
    assert tiny["parameters"] == 2410
    assert tiny["memory_limit"] is None
    assert 0 < tiny["instep"] < tiny["numpy"]
    assert tiny["numpy_by_instep"] > 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds", "0"], "'0' is no number of seconds"),
        (["--seconds", "long"], "'long' is no number of seconds"),
        (["--seconds", "nan"], "'nan' is no number of seconds"),
        (["huge"], "'huge' is not known; one of tiny, mlp,"),
        (["0"], "'0' is not known"),
    ],
    ids=" ".join,
)
def test_wrong_usage(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", *arguments])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert not out
    assert complaint in err
