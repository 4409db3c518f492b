"""``instep bench`` and the memory limit that it measures by."""

from __future__ import annotations

import json
import re
import weakref
from functools import reduce
from operator import xor
from typing import Any

import numpy as np
import pytest

from instep import _core
from instep.commands import cli
from instep.commands.bench import limit
from instep.commands.bench.workloads import WORKLOADS

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
            traffic = _core.testing.make_memory_traffic(pieces, [(read, written)])
            seen = traffic.move(threads, 4096, flip=flip)
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
    _core.testing.make_memory_traffic(pieces, [(4, written)], copied=True).move(
        threads, 4096, flip=1
    )
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
        ([], 0, ValueError, "read of pass 1 must be from 1 to 5, got 0"),
        ([np.zeros(1)] * 6, 0, ValueError, "read of pass 1 must be from 1 to 5, got 6"),
        ([np.zeros(8)], 2, ValueError, "written of pass 1 must be from 0 to 1, got 2"),
        ([np.zeros(8)], -1, ValueError, "written of pass 1 must be from 0 to 1, got -1"),
        ([[1.0]], 0, TypeError, "array 0 of piece 1 must be a NumPy array, got a list"),
        (
            [np.zeros(16)[::2]],
            0,
            ValueError,
            "array 0 of piece 1 must be C-contiguous, got an array with gaps",
        ),
        (
            [np.zeros(24, "u1")[1:17]],
            0,
            ValueError,
            "array 0 of piece 1 must begin on a multiple of 8 bytes, got an array that is misaligned",
        ),
        (
            [read_only()],
            1,
            ValueError,
            "array 0 of piece 1 must be writeable, got an array that is read-only",
        ),
        (
            [np.zeros(8), np.zeros(9)],
            0,
            ValueError,
            "array 1 of piece 1 must have 64 bytes, as the first array has, got 72",
        ),
        (
            [np.zeros(8)] * 2,
            0,
            ValueError,
            "array 1 of piece 1 must have memory of its own, got .* shares memory with another",
        ),
        (
            [APART[:9], APART[7:]],
            0,
            ValueError,
            "must have memory of its own, got .* shares memory with another",
        ),
        (
            [APART[7:], APART[:9]],
            0,
            ValueError,
            "must have memory of its own, got .* shares memory with another",
        ),
    ],
)
def test_the_limit_refuses(
    arrays: list[Any], written: int, error: type[Exception], complaint: str
) -> None:
    good = [np.zeros(8) for _ in arrays]
    with pytest.raises(error, match=complaint):
        _core.testing.make_memory_traffic([good, arrays], [(1, 0), (len(arrays), written)])


def test_the_limit_takes_arrays_that_touch() -> None:
    traffic = _core.testing.make_memory_traffic([[APART[8:], APART[:8]]], [(2, 1)])
    assert traffic.move(1, 4096) == 0


@pytest.mark.parametrize(
    ("piece", "error", "complaint"),
    [
        ((np.zeros(8),), TypeError, "piece 0 must be a list of arrays, got a tuple"),
        ([np.zeros(8)], ValueError, "piece 0 must have 2 arrays, got 1"),
        ([np.zeros(8)] * 3, ValueError, "piece 0 must have 2 arrays, got 3"),
    ],
)
def test_the_limit_refuses_a_piece(piece: Any, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        _core.testing.make_memory_traffic([piece], [(2, 0)])


def test_the_limit_refuses_no_passes() -> None:
    with pytest.raises(ValueError, match="passes must have at least one pass, got none"):
        _core.testing.make_memory_traffic([], [])


@pytest.mark.parametrize(
    ("copy", "error", "complaint"),
    [
        (1.0, TypeError, "the copy of piece 0 must be a NumPy array, got a float"),
        (
            read_only(),
            ValueError,
            "the copy of piece 0 must be writeable, got an array that is read-only",
        ),
        (
            np.zeros(7),
            ValueError,
            "the copy of piece 0 must have 64 bytes, half of an array's, got 56",
        ),
    ],
)
def test_the_limit_refuses_a_copy(copy: Any, error: type[Exception], complaint: str) -> None:
    arrays = [np.zeros(16), np.zeros(16)]
    with pytest.raises(error, match=complaint):
        _core.testing.make_memory_traffic([[*arrays, copy]], [(2, 1)], copied=True)
    with pytest.raises(
        ValueError,
        match=r"the copy of piece 0 must have memory of its own, got .* shares memory with another",
    ):
        _core.testing.make_memory_traffic([[*arrays, arrays[1][:8]]], [(2, 1)], copied=True)
    with pytest.raises(ValueError, match="piece 0 must have 3 arrays, got 2"):
        _core.testing.make_memory_traffic([arrays], [(2, 1)], copied=True)


@pytest.mark.parametrize(("threads", "chunk"), [(0, 64), (-1, 64), (1, 0)])
def test_the_limit_refuses_no_threads_and_no_chunk(threads: int, chunk: int) -> None:
    traffic = _core.testing.make_memory_traffic([[np.zeros(8)]], [(1, 0)])
    with pytest.raises(ValueError, match=r"(threads|chunk) must be at least 1, got (0|-1)"):
        traffic.move(threads, chunk)


def test_a_pass_reads_the_last_streams_besides_what_it_writes() -> None:
    """The norm of a gradient, which lies last, and a copy that the last pass alone writes."""
    values = np.arange(1, 41, dtype=np.uint64)
    piece = [np.full(40, k, np.uint64) for k in (64, 65, 66)] + [values, np.ones(20, np.uint64)]
    seen = {
        passes: _core.testing.make_memory_traffic([list(piece[:4])], list(passes)).move(1, 64)
        for passes in [((1, 0), (4, 4)), ((1, 0), (4, 3)), ((2, 1), (4, 4)), ((2, 0), (4, 4))]
    }
    last = int(np.bitwise_xor.reduce(values))
    assert last == 40  # of 1 to 40
    # Forty equal words come to nothing.
    assert list(seen.values()) == [last, 2 * last, last, last]
    values[0] += 1
    traffic = _core.testing.make_memory_traffic([piece], [(4, 4), (1, 0)], copied=True)
    assert traffic.move(1, 64, flip=1) == int(np.bitwise_xor.reduce(values) & np.uint64(255))
    assert not piece[4].any()
    assert piece[0][0] == 64 ^ 0x0101010101010101


def test_gradients_stand_for_the_last_stream_and_are_not_kept() -> None:
    pieces = [[np.zeros(n, np.uint8) for _ in range(3)] for n in (8, 100)]
    traffic = _core.testing.make_memory_traffic(pieces, [(1, 0), (3, 2)])
    assert traffic.move(2, 64) == 0
    gradients = [np.full(8, 0, np.uint8), np.full(100, 0, np.uint8)]
    gradients[0][7], gradients[1][99] = 3, 4
    assert traffic.move(2, 64, gradients) == 2 * (3 ^ 4)
    assert traffic.move(2, 64) == 0
    alive = weakref.ref(gradients[1])
    del gradients
    assert alive() is None


@pytest.mark.parametrize(
    ("gradients", "error", "complaint"),
    [
        ((np.zeros(8),), TypeError, "the gradients must be a list, got a tuple"),
        ([], ValueError, "the gradients must have 1 arrays, one for each piece, got 0"),
        ([1.0], TypeError, "the gradient of piece 0 must be a NumPy array, got a float"),
        (
            [np.zeros(16)[::2]],
            ValueError,
            "the gradient of piece 0 must be C-contiguous, got an array with gaps",
        ),
        (
            [np.zeros(9)],
            ValueError,
            "the gradient of piece 0 must have 64 bytes, as the other arrays have, got 72",
        ),
        (
            [APART[:8]],
            ValueError,
            "the gradient of piece 0 must have memory of its own, got .* shares memory with another",
        ),
    ],
)
def test_the_limit_refuses_gradients(
    gradients: Any, error: type[Exception], complaint: str
) -> None:
    traffic = _core.testing.make_memory_traffic([[APART[:8], np.zeros(8)]], [(2, 1)])
    with pytest.raises(error, match=complaint):
        traffic.move(1, 64, gradients)


def test_the_limit_refuses_a_gradient_in_the_copy() -> None:
    room = np.zeros(20)
    piece = [np.zeros(16), np.zeros(16), room[:8]]
    traffic = _core.testing.make_memory_traffic([piece], [(2, 1)], copied=True)
    with pytest.raises(
        ValueError,
        match=r"the gradient of piece 0 must have memory of its own, got .* shares memory with another",
    ):
        traffic.move(1, 64, [room[4:]])


def test_the_limit_refuses_read_only_gradients_where_they_are_written() -> None:
    for written, refused in ((0, False), (1, True)):
        traffic = _core.testing.make_memory_traffic([[np.zeros(8)]], [(1, written)])
        if refused:
            with pytest.raises(
                ValueError,
                match="the gradient of piece 0 must be writeable, got an array that is read-only",
            ):
                traffic.move(1, 64, [read_only()])
        else:
            traffic.move(1, 64, [read_only()])


def test_the_limit_hands_passes_and_pieces_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[tuple[int, int]], bool]] = []

    def make(pieces: list[list[np.ndarray]], passes: list[tuple[int, int]], copied: bool) -> Any:
        (piece,) = pieces
        places = [9 * 64 * k for k in range(len(piece))]
        assert [array.ctypes.data % 4096 for array in piece] == places
        count = max(read for read, _ in passes)
        assert [array.nbytes for array in piece] == [1000] * count + [500] * copied
        asked.append((passes, copied))
        return through(pieces, passes, copied)

    through = _core.testing.make_memory_traffic
    monkeypatch.setattr(limit._core.testing, "make_memory_traffic", make)
    plain, copying = [(1, 0), (4, 3)], [(1, 0), (5, 4)]
    limit.MemoryLimit(plain, [limit.stream_arrays(plain, 1000)], threads=2)()
    piece = limit.stream_arrays(copying, 1000, copied=True)
    limit.MemoryLimit(copying, [piece], threads=2, copied=True)()
    assert asked == [(plain, False), (copying, True)]


def test_a_limit_of_no_arrays_is_refused() -> None:
    with pytest.raises(ValueError, match="piece 0 must have 4 arrays, got 0"):
        limit.MemoryLimit([(1, 0), (4, 3)], [[]], threads=2)


def test_the_limit_is_the_way_that_has_been_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        (1, 4_000_000): [9.0, 9.0, 9.0],  # never fast: it takes part three times
        (2, 1 << 20): [4.0, 4.0, 4.0, 4.0, 2.0],
        (2, 2_000_000): [3.0, 4.5, 4.5, 4.5, 9.0],
    }
    turns = {way: iter(taken) for way, taken in times.items()}

    def pace(way: Any, seconds: float) -> float:
        assert seconds == 0.5
        assert way.args[2] is gradients
        return next(turns[way.args[:2]])

    monkeypatch.setattr(limit, "pace", pace)
    pieces = [limit.stream_arrays([(4, 3)], size) for size in (3_000_000, 1_000_000)]
    gradients = [piece[3].copy() for piece in pieces]
    contestant = limit.MemoryLimit([(4, 3)], pieces, threads=2)
    assert [contestant.turn(0.5, gradients) for _ in range(5)] == [3.0, 4.5, 4.0, 4.0, 2.0]
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


A_WORKLOAD = f"a workload must be one of {', '.join(WORKLOADS)}, or a number of parameters from 1 to 1000000000"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds", "0"], "the seconds must be a number above 0, 3600 at most, got '0'"),
        (["--seconds", "long"], "the seconds must be a number above 0, 3600 at most, got 'long'"),
        (["--seconds", "nan"], "the seconds must be a number above 0, 3600 at most, got 'nan'"),
        (["huge"], f"{A_WORKLOAD}, got 'huge'"),
        (["0"], f"{A_WORKLOAD}, got '0'"),
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
