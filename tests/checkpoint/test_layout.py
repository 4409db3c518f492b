"""What a save writes, and how: safetensors' own layout, in one pass and little memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from checkpoint_files import document_of, parts
from hypothesis import given
from hypothesis import strategies as st

from instep.checkpoint import format as checkpoint_format
from instep.checkpoint import writing
from instep.checkpoint.format import DTYPES, ArraySource, file_order, opened, write

safetensors = pytest.importorskip("safetensors")
numpy_format = pytest.importorskip("safetensors.numpy")

SEED = 20_240_601
SHAPES = [(), (1,), (0,), (5,), (3, 0, 2), (3, 4), (2, 3, 5), (1, 1, 7), (4097,)]


def of_dtype(name: str, shape: tuple[int, ...], how: str = "C") -> Any:
    """An array with any bits, in a layout."""
    dtype = np.dtype(BFLOAT16 if name == "bfloat16" else name)
    lengths = {"strided": tuple(2 * n for n in shape), "F": shape[::-1]}.get(how, shape)
    rng = np.random.default_rng(SEED)
    raw = rng.integers(0, 2 if name == "bool" else 256, (*lengths, dtype.itemsize), np.uint8)
    array = raw.reshape(-1).view(dtype).reshape(lengths)
    if how == "F":
        return array.T
    if how == "strided":
        return array[tuple(slice(None, None, -2) for _ in shape)]
    return array


def their_bytes(arrays: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """The file of safetensors' own writer, which puts the metadata in a random order."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = bytes(numpy_format.save(contiguous, metadata))
    entries = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in metadata.items()]
    first, other = (",".join(some).encode() for some in (entries, entries[::-1]))
    assert (first in content) != (other in content)
    return content.replace(other, first)


def written(path: Path, arrays: dict[str, Any], document: Any = None) -> bytes:
    write(path, document or {}, {name: ArraySource(array) for name, array in arrays.items()})
    return path.read_bytes()


def has_their_layout(path: Path, arrays: dict[str, Any]) -> None:
    content = written(path, arrays, {"schema": 1, "é": '"\\\x7f'})
    header, data = parts(content)
    assert content == their_bytes(arrays, header["__metadata__"])
    header.pop("__metadata__")
    assert list(header) == file_order({name: array.dtype for name, array in arrays.items()})
    document = document_of(content)
    assert list(document["tensors"]) == list(arrays)  # in the order of the save
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        checksum = hashlib.sha256(data[begin:end]).hexdigest()
        assert document["tensors"][name]["sha256"] == checksum


def test_every_dtype_shape_and_layout(tmp_path: Path) -> None:
    arrays = {
        f"{how}{shape} {dtype}": of_dtype(dtype, shape, how)
        for shape in SHAPES
        for how in ("strided", "F", "C")
        for dtype in DTYPES
    }
    has_their_layout(tmp_path / "run", arrays)


@given(
    drawn=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)),
        max_size=20,
    )
)
def test_any_names_and_dtypes(drawn: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "layout"
    has_their_layout(path, {name: of_dtype(*what) for name, what in drawn.items()})


# ---- sources


class Recorded:
    """A source with pieces of odd lengths, which notes when it is asked for them."""

    def __init__(self, array: Any, called: list[Any], lengths: list[int]) -> None:
        self.dtype, self.shape = array.dtype, array.shape
        self._array, self._called, self._lengths = array, called, lengths

    def pieces(self) -> Iterator[Any]:
        self._called.append(self)
        start = 0
        for length in self._lengths:
            yield self._array.reshape(-1)[start : start + length]
            start += length


def test_sources_are_walked_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    called: list[Any] = []
    arrays = {f"{dtype} {k}": of_dtype(dtype, (3, 4)) for k in (2, 1) for dtype in DTYPES}
    sources = {name: Recorded(array, called, [5, 0, 1, 6]) for name, array in arrays.items()}
    write(tmp_path / "a", {}, sources)
    order = file_order({name: array.dtype for name, array in arrays.items()})
    assert called == [sources[name] for name in order]
    assert (tmp_path / "a").read_bytes() == written(tmp_path / "b", arrays)


@pytest.mark.parametrize("lengths", [[3], [4, 1], []], ids=str)
def test_a_source_of_another_length(lengths: list[int], tmp_path: Path) -> None:
    source = Recorded(np.zeros(5, np.float32), [], lengths)
    source.shape = (4,)
    message = rf"the source of the tensor 'w' must have 16 bytes, got {4 * sum(lengths)}$"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "run", {}, {"w": source})


def test_a_dtype_that_a_file_can_not_hold(tmp_path: Path) -> None:
    message = r"the tensor 'w' must have a dtype of bool, .*, complex64, got complex128$"
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "run", {}, {"w": ArraySource(np.zeros(3, complex))})
    assert not (tmp_path / "run").exists()


# ---- memory and limits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
@pytest.mark.parametrize("how", ["C", "F", "strided"])
def test_a_large_array_of_any_layout_is_never_copied_as_a_whole(
    how: str, dtype: str, tmp_path: Path
) -> None:
    array = of_dtype(dtype, (2500, 2003), how)
    source = ArraySource(array)
    tracemalloc.start()
    try:
        write(tmp_path / "run", {}, {"w": source})
        assert tracemalloc.get_traced_memory()[1] < 700_000
    finally:
        tracemalloc.stop()
    with opened(str(tmp_path / "run")) as file:
        assert file.array("w").tobytes() == array.tobytes()


def test_a_header_that_is_refused_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = {"w": ArraySource(np.zeros(3))}
    for document, message in (
        ({"extra": "x" * 100_000_000}, "at most 100000000 bytes, got 10000"),
        ({"extra": [0] * 2**21}, "must have at most 2097152 values, got 20"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "run", document, source)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_header(over: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is of the length in the file, which is a multiple of eight."""
    content = written(tmp_path / "run", {"w": np.zeros(3)})
    length = int.from_bytes(content[:8], "little")
    monkeypatch.setattr(writing, "LONGEST_HEADER", length - over)
    if not over:
        assert written(tmp_path / "run", {"w": np.zeros(3)}) == content
        return
    with pytest.raises(ValueError, match="must fit a header of safetensors, of at most"):
        written(tmp_path / "run", {"w": np.zeros(3)})


def test_the_limit_is_the_one_of_readers(tmp_path: Path) -> None:
    for length, text in (
        (writing.LONGEST_HEADER, "invalid"),
        (writing.LONGEST_HEADER + 8, "large"),
    ):
        with (tmp_path / "run").open("wb") as file:
            file.write(length.to_bytes(8, "little") + b"{" + b" " * (length - 1))
        message = f"(?i){text}"
        with (
            pytest.raises(checkpoint_format.CheckpointError, match=message),
            opened(str(tmp_path / "run")),
        ):
            pass
