"""``instep bench`` and the memory limit that it measures by."""

from __future__ import annotations

import json
import re
from functools import reduce
from operator import xor
from typing import Any

import numpy as np
import pytest

from instep import _core, cli
from instep.bench import limit

SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 4096, 100_003]
EDGE = 64  # bytes around an array that nobody may touch


def within(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the values with an edge around it, and the whole."""
    room = np.full(values.size + 2 * EDGE, 7, np.uint8)
    room[EDGE : EDGE + values.size] = values
    return room[EDGE : EDGE + values.size], room


def untouched(room: np.ndarray) -> bool:
    return bool((room[:EDGE] == 7).all() and (room[-EDGE:] == 7).all())


@pytest.mark.parametrize("flip", [0, 0xA5])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [*([size] for size in SIZES), [], [9, 0, 4096, 1, 20_001, 8]])
def test_the_limit_reads_all_and_writes_some(sizes: list[int], threads: int, flip: int) -> None:
    rng = np.random.default_rng(len(sizes))
    for read in range(1, 6):
        for written in range(read + 1):
            before = [
                [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(read)] for size in sizes
            ]
            rooms = [[within(values) for values in piece] for piece in before]
            pieces = [[array for array, _ in piece] for piece in rooms]
            seen = _core.memory_limit(pieces, read, written, threads, 4096, flip=flip)
            kept = [values for piece in before for values in piece[written:]]
            assert seen == reduce(xor, (int(np.bitwise_xor.reduce(values)) for values in kept), 0)
            for values, room in zip(before, rooms, strict=True):
                for k, (array, whole) in enumerate(room):
                    wanted = values[k] ^ flip if k < written else values[k]
                    assert array.tobytes() == wanted.tobytes()
                    assert untouched(whole)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("counts", [[0], [1], [255], [256], [257], [10_001], [3, 257, 0, 10_001]])
@pytest.mark.parametrize("written", [0, 3])
def test_the_limit_writes_a_copy(counts: list[int], threads: int, written: int) -> None:
    rng = np.random.default_rng(len(counts))
    before = [[rng.integers(0, 1 << 62, words) for _ in range(4)] for words in counts]
    copies = [within(np.full(4 * words, 7, np.uint8)) for words in counts]
    pieces = [
        [*(array.copy() for array in arrays), copy]
        for arrays, (copy, _) in zip(before, copies, strict=True)
    ]
    _core.memory_limit(pieces, 4, written, threads, 4096, copied=True, flip=1)
    for arrays, piece, (copy, room) in zip(before, pieces, copies, strict=True):
        assert not copy.any()
        assert untouched(room)
        flipped = 0x0101010101010101
        for k, array in enumerate(arrays):
            assert np.array_equal(piece[k], array ^ flipped if k < written else array)


def read_only() -> np.ndarray:
    array = np.zeros(8)
    array.flags.writeable = False
    return array


APART = np.zeros(16)


@pytest.mark.parametrize(
    ("arrays", "written", "error", "complaint"),
    [
        ([], 0, ValueError, "read is 0; 1 to 5 is wanted"),
        ([np.zeros(1)] * 6, 0, ValueError, "read is 6; 1 to 5 is wanted"),
        ([np.zeros(8)], 2, ValueError, "written is 2; 0 to what is read is wanted"),
        ([np.zeros(8)], -1, ValueError, "written is -1; 0 to what is read is wanted"),
        ([[1.0]], 0, TypeError, "array 0 of piece 1 is no NumPy array; one is wanted"),
        ([np.zeros(16)[::2]], 0, ValueError, "array 0 of piece 1 is not C-contiguous"),
        ([np.zeros(24, "u1")[1:17]], 0, ValueError, "array 0 of piece 1 is misaligned"),
        ([read_only()], 1, ValueError, "array 0 of piece 1 is read-only; the first 1 are to be"),
        ([np.zeros(8), np.zeros(9)], 0, ValueError, "array 1 of piece 1 has 72 bytes; the first"),
        ([np.zeros(8)] * 2, 0, ValueError, "array 1 of piece 1 shares memory with another one"),
        ([APART[:9], APART[7:]], 0, ValueError, "shares memory with another one"),
        ([APART[7:], APART[:9]], 0, ValueError, "shares memory with another one"),
    ],
)
def test_the_limit_refuses(
    arrays: list[Any], written: int, error: type[Exception], complaint: str
) -> None:
    good = [np.zeros(8) for _ in arrays]
    with pytest.raises(error, match=complaint):
        _core.memory_limit([good, arrays], len(arrays), written, 1, 4096)


def test_the_limit_takes_arrays_that_touch() -> None:
    assert _core.memory_limit([[APART[8:], APART[:8]]], 2, 1, 1, 4096) == 0


@pytest.mark.parametrize(
    ("piece", "error", "complaint"),
    [
        ((np.zeros(8),), TypeError, "piece 0 is no list; one of arrays is wanted"),
        ([np.zeros(8)], ValueError, "piece 0 has 1 arrays; at least 2 are wanted"),
    ],
)
def test_the_limit_refuses_a_piece(piece: Any, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        _core.memory_limit([piece], 2, 0, 1, 4096)


@pytest.mark.parametrize(
    ("copy", "error", "complaint"),
    [
        (1.0, TypeError, "the copy of piece 0 is no NumPy array; one is wanted"),
        (read_only(), ValueError, "the copy of piece 0 is read-only; it is to be written"),
        (np.zeros(7), ValueError, "the copy of piece 0 has 56 bytes; half of an array's 128 are"),
    ],
)
def test_the_limit_refuses_a_copy(copy: Any, error: type[Exception], complaint: str) -> None:
    arrays = [np.zeros(16), np.zeros(16)]
    with pytest.raises(error, match=complaint):
        _core.memory_limit([[*arrays, copy]], 2, 1, 1, 4096, copied=True)
    with pytest.raises(ValueError, match="the copy of piece 0 shares memory with another one"):
        _core.memory_limit([[*arrays, arrays[1][:8]]], 2, 1, 1, 4096, copied=True)
    with pytest.raises(ValueError, match="piece 0 has 2 arrays; at least 3 are wanted"):
        _core.memory_limit([arrays], 2, 1, 1, 4096, copied=True)


@pytest.mark.parametrize(("threads", "chunk"), [(0, 64), (-1, 64), (1, 0)])
def test_the_limit_refuses_no_threads_and_no_chunk(threads: int, chunk: int) -> None:
    with pytest.raises(ValueError, match="at least 1 is wanted"):
        _core.memory_limit([[np.zeros(8)]], 1, 0, threads, chunk)


def test_the_limit_of_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, bool]] = []

    def record(
        pieces: list[list[np.ndarray]],
        read: int,
        written: int,
        threads: int,
        chunk: int,
        copied: bool = False,
    ) -> None:
        (piece,) = pieces
        places = [9 * 64 * k for k in range(len(piece))]
        assert [array.ctypes.data % 4096 for array in piece] == places
        assert len(piece) >= read + copied
        assert all(array.nbytes == 1000 for array in piece[:read])
        assert not copied or piece[-1].nbytes == 500
        asked.append((read, written, copied))

    monkeypatch.setattr(limit._core, "memory_limit", record)
    plain, copying = [(1, 0), (4, 3)], [(1, 0), (5, 4)]
    limit.MemoryLimit(plain, [limit.streams(plain, 1000)], threads=2)()
    piece = limit.streams(copying, 1000, copied=True)
    limit.MemoryLimit(copying, [piece], threads=2, copied=True)()
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
        return next(turns[way.args[3:]])

    monkeypatch.setattr(limit, "pace", pace)
    pieces = [limit.streams([(4, 3)], size) for size in (3_000_000, 1_000_000)]
    contestant = limit.MemoryLimit([(4, 3)], pieces, threads=2)
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
