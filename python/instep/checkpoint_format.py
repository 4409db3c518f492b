"""The file of a checkpoint: safetensors, with a JSON document and checksums in its metadata.

The metadata of the file has two entries: ``instep``, a JSON document, and ``instep_sha256``, the
checksum of its UTF-8 text. The document says under ``tensors`` what each tensor's dtype, shape and
checksum are. So there is nothing in a file that could change without being noticed, and any reader
of safetensors can take the arrays out of it.

The format is eight bytes with the header's length, the header in JSON, and the arrays, gapless and
little-endian. It is written and read here piece by piece, since a large model's optimizer must not
be in memory twice: the package safetensors takes and gives whole contents, or maps the file, and a
mapped file that shrinks ends the process. The tests hold this against that package.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from instep.wording import difference, kind, shown

__all__ = ["CheckpointError", "Tensor", "decode", "one_line", "parse", "read", "write"]

_DOCUMENT, _CHECKSUM = "instep", "instep_sha256"
_LARGEST_HEADER = 100_000_000  # what safetensors itself reads
_LONGEST_LINE = 400
_MOST_AXES = 64  # what NumPy has
_PIECE = 2**20  # bytes that are held at a time
_PREFIX = 8  # the header's length, a little-endian number

#: NumPy's names of the dtypes that optimizers have, and their sizes, by safetensors' names.
_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
}
_NAMES = {name: theirs for theirs, (name, _) in _DTYPES.items()}


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, or is of another optimizer; nothing has changed."""


class Tensor(NamedTuple):
    """What a file holds of an array: safetensors' name of the dtype, the shape, length and bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    data: npt.NDArray[np.uint8]

    def array(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the array; its dtype is the caller's affair, since not all are NumPy's own."""
        width = dtype.itemsize
        words = self.data.view(f"<u{width}").astype(f"u{width}", copy=False)
        return words.view(dtype).reshape(self.shape)


def write(
    file: BinaryIO, document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write this document, whose ``tensors`` are filled in, and the arrays.

    Checksums are of what was written, also where somebody changes an array meanwhile. Raises
    ValueError if the document is too long, or a name is no Unicode text.
    """
    unknown = dict.fromkeys(arrays, hashlib.sha256().hexdigest())  # as long as those to come
    header = _header(document, arrays, unknown)
    if len(header) > _LARGEST_HEADER:
        raise ValueError(
            f"extra and the names of the parameters need {len(header)} bytes; "
            f"at most {_LARGEST_HEADER} are wanted"
        )
    file.write(len(header).to_bytes(_PREFIX, "little") + header)
    checksums = {}
    for name in _in_the_file(arrays):
        digest = hashlib.sha256()
        for piece in _pieces(arrays[name]):
            digest.update(piece.data)
            file.write(piece.data)
        checksums[name] = digest.hexdigest()
    file.seek(_PREFIX)
    file.write(_header(document, arrays, checksums))


def _in_the_file(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """The names in the order of the file, wide elements first, so that all of them are aligned."""
    return sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))


def _header(
    document: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    checksums: Mapping[str, str],
) -> bytes:
    table = {
        name: {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": checksums[name]}
        for name, array in arrays.items()
    }
    text = _json({**document, "tensors": table})
    header: dict[str, Any] = {"__metadata__": {_DOCUMENT: text, _CHECKSUM: _sha256(text)}}
    end = 0
    for name in _in_the_file(arrays):
        begin, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype.name],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
    content = _json(header, ensure_ascii=False).encode("utf-8")
    return content + b" " * (-len(content) % _PREFIX)


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), **options)


def _pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.uint8]]:
    """Copies of the array's elements, little-endian and in logical order, some at a time."""
    array = np.asarray(array)
    size = array.itemsize
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for first in range(0, array.size, _PIECE // size):
        piece = np.array(flat[first : first + _PIECE // size])
        yield piece.view(f"u{size}").astype(f"<u{size}", copy=False).view(np.uint8)


def read(
    path: str | os.PathLike[str], keep: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the document and the tensors of a file, all checksums verified.

    Raises CheckpointError if that isn't what the file holds. Takes no more memory than its size,
    and, where the tensors' data aren't to be kept, little.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise CheckpointError("this is not a file; a checkpoint is wanted")
        with open(path, "rb") as file:
            header, length = _read_header(file)
            document = _document(header.pop("__metadata__", None))
            table = document["tensors"]
            places = _places(header, length)
            if set(places) != set(table):
                raise CheckpointError(
                    f"the tensors are not those of the metadata; {difference(places, table)}"
                )
            tensors = {}
            for name in sorted(places, key=lambda name: places[name]):
                entry, (_, size) = header[name], places[name]
                checksum, data = _data(file, size, keep)
                tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), size, data)
                _verify(name, tensors[name], checksum, table[name])
    except CheckpointError as error:
        raise CheckpointError(one_line(f"{os.fspath(path)}: {error}")) from None
    return document, {name: tensors[name] for name in table}  # as they were saved


def decode(text: bytes | str, who: str) -> dict[str, Any]:
    """Return the object that strict JSON has."""
    try:
        found = parse(text.decode("utf-8") if isinstance(text, bytes) else text)
    except RecursionError:
        raise CheckpointError(f"{who} is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{who} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{who} is {kind(found)}; a JSON object is wanted")
    return found


def parse(text: str) -> Any:
    """Return what strict JSON says: no key twice, no NaN, no infinity. Raises ValueError."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, cut where it gets long."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return a file's header, and how many bytes come after it."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX or length > size - _PREFIX:
        raise CheckpointError(
            f"the file has {size} bytes, less than its header; it is cut off or no checkpoint"
        )
    if length > _LARGEST_HEADER:
        raise CheckpointError(
            f"the header has {length} bytes; at most {_LARGEST_HEADER} are wanted"
        )
    start = file.read(1)
    if start != b"{":  # before reading megabytes of something else
        raise CheckpointError("the file is no safetensors file; a checkpoint is wanted")
    return decode(start + file.read(length - 1), "the header"), size - _PREFIX - length


def _places(header: Mapping[str, Any], length: int) -> dict[str, tuple[int, int]]:
    """Return where each tensor begins and its size, having checked that they fill the length."""
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, (begin, size) in sorted(places.items(), key=lambda item: item[1]):
        if begin != end:
            raise CheckpointError(
                f"the tensor {shown(name)} begins at byte {shown(begin)}; {end}, where the one "
                "before it ends, is wanted"
            )
        end += size
    if end != length:
        raise CheckpointError(
            f"the file has {length} bytes of tensors; {shown(end)} are wanted, it is damaged"
        )
    return places


def _place(name: str, entry: Any) -> tuple[int, int]:
    who = f"the tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{who} must have dtype, shape and data_offsets, and no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(
            f"{who} has dtype {shown(dtype)}; one of {', '.join(_DTYPES)} is wanted"
        )
    if not _are_counts(shape) or len(shape) > _MOST_AXES:
        raise CheckpointError(f"{who} has shape {shown(shape)}; a list of lengths is wanted")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{who} has offsets {shown(offsets)}; a begin and an end are wanted")
    begin, end = offsets
    size = math.prod(shape) * _DTYPES[dtype][1]
    if size != end - begin:
        raise CheckpointError(
            f"{who} has {shown(end - begin)} bytes; {shown(size)}, as of its shape, are wanted"
        )
    return begin, size


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _data(file: BinaryIO, size: int, keep: bool) -> tuple[str, npt.NDArray[np.uint8]]:
    """Return the checksum of the next bytes and, if they are to be kept, the bytes."""
    data = np.empty(size if keep else min(size, _PIECE), np.uint8)
    digest = hashlib.sha256()
    for first in range(0, size, _PIECE):
        piece = data[first if keep else 0 :][: min(_PIECE, size - first)]
        if file.readinto(piece.data) != len(piece):  # type: ignore[attr-defined]
            raise CheckpointError("the file ends too early; it has become shorter meanwhile")
        digest.update(piece.data)
    return digest.hexdigest(), data if keep else np.empty(0, np.uint8)


def _document(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not {_DOCUMENT, _CHECKSUM} <= set(metadata):
        raise CheckpointError(
            "the file has no metadata of instep's; a file that instep.checkpoint wrote is wanted"
        )
    if not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("the metadata of the file are not all text; the file is damaged")
    text, checksum = metadata[_DOCUMENT], metadata[_CHECKSUM]
    if _sha256(text) != checksum:
        raise CheckpointError("the metadata differ from their checksum; the file is damaged")
    document = decode(text, "the metadata")
    if not isinstance(document.get("tensors"), dict):
        raise CheckpointError("the metadata have no table of tensors")
    return document


def _verify(name: str, tensor: Tensor, checksum: str, listed: Any) -> None:
    who = f"the tensor {shown(name)}"
    if not isinstance(listed, dict) or set(listed) != {"dtype", "shape", "sha256"}:
        raise CheckpointError(f"the metadata say {shown(listed)} of {who}")
    if list(tensor.shape) != listed["shape"]:
        raise CheckpointError(
            f"{who} has shape {shown(tensor.shape)}; {shown(listed['shape'])} is wanted"
        )
    if _DTYPES[tensor.dtype][0] != listed["dtype"]:
        raise CheckpointError(f"{who} has dtype {tensor.dtype}; {shown(listed['dtype'])} is wanted")
    if checksum != listed["sha256"]:
        raise CheckpointError(f"{who} differs from its checksum; the file is damaged")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value
