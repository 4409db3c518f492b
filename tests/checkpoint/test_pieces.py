"""Large tensors have a checksum for each piece, so that a part of a file can be read and verified alone."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from checkpoint_files import document_of, parts, refused, sgd, with_document
from hypothesis import given
from hypothesis import strategies as st

import instep
from instep import checkpoint
from instep.checkpoint import CheckpointError
from instep.checkpoint.format import PIECE, ArraySource, opened, write

safetensors = pytest.importorskip("safetensors")

SEED = 20_240_601
SIZE = 2 * PIECE + 5  # three pieces, of which the last is short


def large(dtype: Any = np.uint8, size: int = SIZE) -> Any:
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(SEED)
    if dtype == np.bool_:
        return rng.integers(0, 2, size, np.uint8).view(np.bool_)
    return rng.integers(0, 256, size * dtype.itemsize, np.uint8).view(dtype)


def saved_large(path: Path) -> dict[str, Any]:
    extra = {"a": large(), "b": np.arange(6, dtype=np.int16).reshape(2, 3), "c": large(np.int8)}
    checkpoint.save(path, sgd(), extra)
    return extra


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the document, with its checksum set right."""
    content = path.read_bytes()
    document = document_of(content)
    change(document)
    path.write_bytes(with_document(content, document))


def flipped(path: Path, name: str, element: int) -> None:
    """Flip a bit of an element of one byte."""
    content = path.read_bytes()
    header, data = parts(content)
    with path.open("r+b") as file:
        file.seek(len(content) - len(data) + header[name]["data_offsets"][0] + element)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def of_an_earlier_version(path: Path) -> None:
    """Make it the file that versions without pieces wrote."""

    def change(document: Any) -> None:
        document["schema"] = 2
        for listed in document["tensors"].values():
            listed.pop("pieces", None)

    rewritten(path, change)


def refused_part(path: Path, name: str, begin: int, match: str) -> None:
    with pytest.raises(CheckpointError, match=match), opened(str(path)) as file:
        file.part(name, begin, 1)


# ---- the versions of the document


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
def test_which_tensors_have_pieces(size: int, tmp_path: Path) -> None:
    path, array = tmp_path / "run", large(np.float16, size).reshape(1, -1)
    checkpoint.save(path, instep.SGD(array))
    document = document_of(path.read_bytes())
    assert document["schema"] == (3 if size > PIECE else 1)
    data = array.tobytes()
    listed = {"sha256": hashlib.sha256(data).hexdigest()}
    if size > PIECE:
        runs = [data[start : start + 2 * PIECE] for start in range(0, 2 * size, 2 * PIECE)]
        listed["pieces"] = [hashlib.sha256(run).hexdigest() for run in runs]
    found = document["tensors"]["weights/0"]
    assert found == {"dtype": "float16", "shape": [1, size], **listed}
    other = instep.SGD(np.zeros_like(array))
    checkpoint.load(path, other)
    assert other.params["0"].tobytes() == data


@pytest.mark.parametrize(
    "extra", [None, {"float": "inf"}, {"x": {"dict": {"tensor": 1}}}, [math.inf, {"float": "nan"}]]
)
@pytest.mark.parametrize("size", [3, PIECE + 1])
def test_extra_beside_large_tensors(size: int, extra: Any, tmp_path: Path) -> None:
    optimizer = instep.SGD(np.ones(size, np.float16))
    checkpoint.save(tmp_path / "run", optimizer, extra)
    assert checkpoint.load(tmp_path / "run", optimizer) == extra
    found = checkpoint.inspect(tmp_path / "run")
    assert found["extra"] == extra
    assert found["schema"] == (3 if size > PIECE else 2 if isinstance(extra, list) else 1)


def test_large_tensors_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "run"
    extra = saved_large(path)
    of_an_earlier_version(path)
    found = checkpoint.load(path, sgd())
    assert all(np.array_equal(found[key], extra[key]) for key in extra)
    with opened(str(path)) as file:
        assert np.array_equal(file.part("extra/a", PIECE - 1, 2), extra["a"][PIECE - 1 : PIECE + 1])
    for element in (0, PIECE, SIZE - 1):  # the whole tensor has one checksum
        flipped(path, "extra/a", element)
        refused_part(path, "extra/a", PIECE + 1, "must agree with its checksum, got another")
        flipped(path, "extra/a", element)
    checkpoint.load(path, sgd())


def _pieces(value: Any, name: str = "extra/a") -> Callable[[Any], None]:
    def change(document: Any) -> None:
        listed = document["tensors"][name]
        listed["pieces"] = value(listed.get("pieces")) if callable(value) else value

    return change


def _without(document: Any) -> None:
    del document["tensors"]["extra/c"]["pieces"]


COUNT = "the pieces of the tensor 'extra/a' must be a checksum for each 4194304 elements"
WRONG = {
    "one less": (_pieces(lambda pieces: pieces[:-1]), COUNT + r".*, got a list of 2$"),
    "one more": (_pieces(lambda pieces: [*pieces, pieces[0]]), COUNT + r".*, got a list of 4$"),
    "none": (_pieces([]), COUNT),
    "null": (_pieces(None), COUNT + r".*, got None$"),
    "a text": (_pieces("abc"), COUNT + r".*, got a str$"),
    "a dict": (_pieces({"0": ""}), COUNT),
    "numbers": (_pieces([0, 1, 2]), COUNT),
    "a list in it": (_pieces(lambda pieces: [[], *pieces[1:]]), COUNT),
    "swapped": (_pieces(lambda p: [p[1], p[0], p[2]]), r"got other elements 0 to 4194303; "),
    "the last": (
        _pieces(lambda p: [*p[:2], p[0]]),
        r"the tensor 'extra/a' must agree with its checksums, got other elements 8388608 to 8388612; ",
    ),
    "in capitals": (_pieces(lambda p: [p[0].upper(), *p[1:]]), "must agree with its checksums"),
    "of a small tensor": (_pieces([""], "extra/b"), COUNT.replace("/a", "/b")),
    "no piece of a small tensor": (_pieces([], "extra/b"), COUNT.replace("/a", "/b")),
    "of one tensor alone": (_without, "all tensors of more than 4194304 elements must have"),
    "another key": (
        lambda d: d["tensors"]["extra/a"].update(x=1),
        "must be dtype, shape and sha256",
    ),
    "an earlier schema": (lambda d: d.update(schema=2), "if, and only if, .* pieces, got 2"),
    "a later schema": (lambda d: d.update(schema=4), "must be 1 to 3, got 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_hostile_pieces(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    saved_large(path)
    change, match = WRONG[name]
    rewritten(path, change)
    refused(path, sgd(), match=match)
    with pytest.raises(CheckpointError, match=match):
        checkpoint.inspect(path)


# ---- parts


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    """Arrays, and their file as it is and as earlier versions wrote it."""
    arrays = {
        "large": large().reshape(-1, 1),
        "bool": large(np.bool_),
        "wide": large(np.complex64, PIECE + 3).reshape(-1, 1),
        "exact": large(np.uint16, 2 * PIECE).reshape(4, 2, -1),
        "small": large(BFLOAT16, 1000).reshape(10, 100),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
    }
    paths = [tmp_path_factory.mktemp("parts") / name for name in ("now", "earlier")]
    for path in paths:
        write(path, {"schema": 3}, {name: ArraySource(array) for name, array in arrays.items()})
    of_an_earlier_version(paths[1])
    return arrays, paths


@given(data=st.data())
def test_any_part(data: st.DataObject, files: Any) -> None:
    arrays, paths = files
    name = data.draw(st.sampled_from(sorted(arrays)))
    flat = arrays[name].reshape(-1)
    ends = {e for k in range(3) for e in (k * PIECE - 1, k * PIECE, k * PIECE + 1)} | {flat.size}
    some = st.sampled_from(sorted(e for e in ends if 0 <= e <= flat.size))
    places = st.one_of(some, st.integers(0, flat.size))
    begin, end = sorted((data.draw(places), data.draw(places)))
    with opened(str(data.draw(st.sampled_from(paths)))) as file:
        found = file.part(name, begin, end - begin)
        file.verify(name, begin, end - begin)
    assert (found.dtype, found.shape) == (flat.dtype, (end - begin,))
    assert found.tobytes() == flat[begin:end].tobytes()


@pytest.mark.parametrize("run", [(-1, 1), (0, 1001), (1000, 1), (1001, 0), (5, -1), (2**70, 1)])
def test_elements_that_are_not_there(run: tuple[int, int], files: Any) -> None:
    path = str(files[1][0])
    message = re.escape(
        f"the tensor 'small' must have the {run[1]} elements from {run[0]} on, got one of 1000"
    )
    for call in ("part", "verify"):
        with pytest.raises(CheckpointError, match=message), opened(path) as file:
            getattr(file, call)("small", *run)


@pytest.mark.parametrize("piece", range(3))
def test_damage_is_found_in_its_piece_alone(piece: int, tmp_path: Path) -> None:
    path = tmp_path / "run"
    extra = saved_large(path)
    for element in (piece * PIECE, min((piece + 1) * PIECE, SIZE) - 1):
        flipped(path, "extra/a", element)
        end = min((piece + 1) * PIECE, SIZE) - 1
        message = (
            rf"^{re.escape(str(path))}: .*other elements {piece * PIECE} to {end}; .* damaged$"
        )
        refused(path, sgd(), match=message)
        for other in range(3):
            begin = other * PIECE + 1  # not the damaged element itself
            with opened(str(path)) as file:
                file.verify("extra/c")
                if other != piece:
                    file.verify("extra/a", begin, 2)
                    assert np.array_equal(
                        file.part("extra/a", begin, 2), extra["a"][begin : begin + 2]
                    )
                    continue
            for call in ("part", "verify"):
                with pytest.raises(CheckpointError, match=message), opened(str(path)) as file:
                    getattr(file, call)("extra/a", begin, 2)
        with pytest.raises(CheckpointError, match=message), opened(str(path)) as file:
            file.verify("extra/a")
        flipped(path, "extra/a", element)
    checkpoint.load(path, sgd())


def test_damage_anywhere_in_a_small_tensor_is_found_by_any_part(tmp_path: Path) -> None:
    path = tmp_path / "run"
    checkpoint.save(path, sgd(), {"a": large(size=100)})
    flipped(path, "extra/a", 99)
    refused_part(path, "extra/a", 0, "must agree with its checksum, got another array")


def test_bytes_that_are_no_bool(tmp_path: Path) -> None:
    array = large(np.bool_)
    array.view(np.uint8)[PIECE + 7] = 2
    write(tmp_path / "run", {"schema": 3}, {"a": ArraySource(array)})
    with opened(str(tmp_path / "run")) as file:
        file.verify("a", 0, PIECE)
        file.part("a", 2 * PIECE, 5)
    for read in (
        lambda file: file.part("a", PIECE, 1),
        lambda file: file.verify("a"),
        lambda file: file.array("a"),
    ):
        message = "must have the bytes 0 and 1, got others"
        with pytest.raises(CheckpointError, match=message), opened(str(tmp_path / "run")) as file:
            read(file)


# ---- memory, and what others do meanwhile


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "earlier"])
def test_one_piece_beside_the_part_is_in_memory(earlier: bool, files: Any) -> None:
    arrays, paths = files
    for name, begin, count in (
        ("large", PIECE - 5, 10),
        ("large", 3, PIECE),
        ("wide", 0, PIECE + 3),
        ("small", 0, 1000),
    ):
        size = arrays[name].itemsize
        with opened(str(paths[earlier])) as file:
            tracemalloc.start()
            try:
                file.part(name, begin, count)
                part = tracemalloc.get_traced_memory()[1]
                tracemalloc.reset_peak()
                file.verify(name)
                whole = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert part < (count + min(arrays[name].size, PIECE)) * size + 100_000
        assert whole < min(arrays[name].size, PIECE) * size + 100_000


def test_a_file_that_is_cut_off_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "run"
    saved_large(path)
    last = max("ac", key=lambda key: parts(path.read_bytes())[0][f"extra/{key}"]["data_offsets"])
    with opened(str(path)) as file:
        os.truncate(path, path.stat().st_size - 100)
        with pytest.raises(CheckpointError, match="must be readable, got the end of the file"):
            file.part(f"extra/{last}", SIZE - 1, 1)


def test_a_disk_that_fails_while_a_part_is_read(tmp_path: Path) -> None:
    class Failing:
        def seek(self, place: int) -> None:
            pass

        def readinto(self, into: Any) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "run"
    saved_large(path)
    with opened(str(path)) as file:
        file._raw = Failing()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
            file.part("extra/a", 0, 1)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))


def test_reads_that_bring_less_than_was_asked_for(tmp_path: Path) -> None:
    class Halting:
        def __init__(self, raw: Any) -> None:
            self.seek, self._raw = raw.seek, raw

        def readinto(self, into: Any) -> int:
            return self._raw.readinto(into[:1_000_003])

    path = tmp_path / "run"
    extra = saved_large(path)
    with opened(str(path)) as file:
        file._raw = Halting(file._raw)
        assert np.array_equal(file.part("extra/a", 5, SIZE - 5), extra["a"][5:])


def test_a_file_that_is_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened twice: parts are read from the file whose header has been read."""
    path, safe_open, replaced = str(tmp_path / "run"), safetensors.safe_open, []
    checkpoint.save(path, sgd(), {"a": np.arange(5)})
    checkpoint.save(f"{path}.next", sgd(), {"longer names": np.arange(9), "a": np.arange(7)})

    def after_another_program(*arguments: Any, **keywords: Any) -> Any:
        if not replaced:
            replaced.append(os.replace(f"{path}.next", path))
        return safe_open(*arguments, **keywords)

    monkeypatch.setattr(safetensors, "safe_open", after_another_program)
    with opened(path) as file:
        assert file.part("extra/a", 5, 2).tolist() == [5, 6]
    assert replaced
