"""The file of a checkpoint: safetensors, with a JSON document and checksums in its metadata.

The metadata of the file has two entries: ``instep``, a JSON document, and ``instep_sha256``, the
checksum of its UTF-8 text. Under ``tensors``, the document has for each tensor ``dtype``, ``shape``
and ``sha256``, the checksum of its bytes in the file. A tensor of more than 2^22 elements also has
``pieces``: the checksums of its elements 0 to 2^22 - 1, of the next 2^22, and so on. With these, a
part of it can be verified alone. Where there are checksums of pieces, they are verified instead of
the tensor's. So every change of a file is noticed. Any reader of safetensors can read the arrays.

`write` streams the tensors (see `instep.checkpoint.writing`), in the layout of safetensors' own
writer. The package safetensors reads the header. This module checks everything above the format.
The package reads whole arrays into memory (``pread``), one by one; this module reads parts. Neither
maps arrays: if another program shortens a mapped file, reading it ends the process. safetensors
reads only the header through a mapping.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from typing import Any

import numpy as np

from instep._support.bfloat16 import bfloat16
from instep._support.wording import described, difference, kind, shown
from instep.checkpoint.layout import (
    CHECKSUM,
    DOCUMENT,
    DTYPES,
    LONGEST_HEADER,
    NAMES,
    PIECE,
    CheckpointError,
    bytes_in_file,
    file_order,
    piece_count,
    pieces_of,
    require_few,
    safetensors,
    sha256,
    values_in,
)
from instep.checkpoint.strict_json import decode, one_line
from instep.checkpoint.whole_file import file_kind, named
from instep.checkpoint.writing import ArraySource, Source, write
from instep.optimizers.containers import Array

__all__ = [
    "DTYPES",
    "PIECE",
    "ArraySource",
    "CheckpointError",
    "File",
    "Source",
    "file_order",
    "one_line",
    "opened",
    "piece_count",
    "write",
]

_PART = 2**20  # bytes of a header that are read at a time
_TRIES = 3  # to open a file that others replace meanwhile
_ON_WINDOWS = os.name == "nt"
_OS_ERROR = re.compile(r'\(os error (\d+)\)( at path "[^"]*")?$')  # in the errors of safetensors

# The errors that the checks of a document raise; a document may have any content.
_WRONG = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class File:
    """An open checkpoint: its document, verified, and its arrays."""

    def __init__(self, file: Any, raw: FileIO, path: str) -> None:
        self._file, self._raw, self._path = file, raw, path
        self.document = _document(file.metadata())
        self._table = self.document["tensors"]
        names = file.offset_keys()  # in the order of their bytes, between which there are no gaps
        if set(names) != set(self._table):
            raise CheckpointError(
                f"the tensors must be those of the metadata; {difference(names, self._table)}"
            )
        #: Arrays with the shapes and dtypes of the file's arrays, in the order of the save. They
        #: are checked before any array is read.
        self.stand_ins = {
            name: _stand_in(file, name, listed) for name, listed in self._table.items()
        }
        large = [name for name, array in self.stand_ins.items() if array.size > PIECE]
        if len({"pieces" in self._table[name] for name in large}) > 1:
            raise CheckpointError(
                f"all tensors of more than {PIECE} elements must have checksums of pieces, got some "
                "without"
            )
        raw.seek(0)
        place = 8 + int.from_bytes(raw.read(8), "little")
        self._places: dict[str, int] = {}  # of the first byte in the file
        for name in names:
            self._places[name] = place
            place += self.stand_ins[name].nbytes

    def array(self, name: str) -> Array:
        """Read an array, and verify its checksums."""
        try:
            array: Array = self._file.get_tensor(name)
        except safetensors().SafetensorError as error:
            raise _os_error(error, self._path) or CheckpointError(
                f"the tensor {shown(name)} must be readable, got an error: {error}"
            ) from None
        listed, flat = self._table[name], array.reshape(-1)
        runs = pieces_of(array.size) if "pieces" in listed else [(0, array.size)]
        for k, (start, end) in enumerate(runs):
            data = bytes_in_file(flat[start:end])
            self._require_right(name, k, (start, end), hashlib.sha256(data.data))
        _require_bool(name, array)
        return array

    def part(self, name: str, begin: int, count: int) -> Array:
        """Read a run of the elements of a flattened tensor, and verify it; return it in one dimension.

        Only the pieces that have some of the elements are read and verified. A tensor of more than
        `PIECE` elements without checksums of pieces (in a file of an earlier version) is read and
        verified as a whole. Besides the run, one piece is in memory. Nothing is read if the count
        is 0.

        Raises ValueError if the tensor doesn't have these elements, CheckpointError if they are
        damaged, and OSError if they can't be read.
        """
        self._require_there(name, begin, count)
        found = np.empty(count, self.stand_ins[name].dtype)
        for start, piece in self._pieces(name, begin, count):
            first, end = max(begin, start), min(begin + count, start + piece.size)
            if first < end:
                found[first - begin : end - begin] = piece[first - start : end - start]
        return found

    def verify(self, name: str, begin: int = 0, count: int | None = None) -> None:
        """Verify what `part` would return, or the whole tensor, with one piece in memory at a time."""
        count = self.stand_ins[name].size - begin if count is None else count
        self._require_there(name, begin, count)
        for _ in self._pieces(name, begin, count):
            pass

    def _require_there(self, name: str, begin: int, count: int) -> None:
        size = self.stand_ins[name].size
        if not (begin >= 0 and 0 <= count <= size - begin):
            raise ValueError(
                f"the tensor {shown(name)} must have the {count} elements from {begin} on, got one "
                f"of {size}"
            )

    def _pieces(self, name: str, begin: int, count: int) -> Iterator[tuple[int, Array]]:
        """Yield the first element and the elements of each piece that has some of these elements.

        The next piece is read into the same memory. Without checksums of pieces, all pieces are
        yielded, and are verified when the last one has been.
        """
        like, alone, digest = self.stand_ins[name], "pieces" in self._table[name], hashlib.sha256()
        buffer = np.empty(min(like.size, PIECE) if count else 0, like.dtype)
        for k, (start, end) in enumerate(pieces_of(like.size) if count else ()):
            if alone and not (start < begin + count and begin < end):
                continue
            piece = buffer[: end - start]
            self._read(name, self._places[name] + start * like.itemsize, piece)
            digest = hashlib.sha256() if alone else digest
            digest.update(piece.view(np.uint8).data)
            if alone or end == like.size:
                self._require_right(name, k, (start, end), digest)
            _require_bool(name, piece)
            yield start, bytes_in_file(piece).view(like.dtype)

    def _require_right(self, name: str, k: int, run: tuple[int, int], digest: Any) -> None:
        """Raise CheckpointError unless this is the checksum of a piece, or of a tensor that has none."""
        listed, who = self._table[name], f"the tensor {shown(name)}"
        if "pieces" not in listed and digest.hexdigest() != listed["sha256"]:
            raise CheckpointError(
                f"{who} must agree with its checksum, got another array; the file is damaged"
            )
        if "pieces" in listed and digest.hexdigest() != listed["pieces"][k]:
            raise CheckpointError(
                f"{who} must agree with its checksums, got other elements {run[0]} to {run[1] - 1}; "
                "the file is damaged"
            )

    def _read(self, name: str, place: int, into: Array) -> None:
        """Read the bytes of the file from a place on into an array."""
        left = into.view(np.uint8).data
        with named(self._path):
            self._raw.seek(place)
            while left:
                count = self._raw.readinto(left)
                if not count:
                    raise CheckpointError(
                        f"the tensor {shown(name)} must be readable, got the end of the file"
                    )
                left = left[count:]


@contextmanager
def opened(path: str) -> Iterator[File]:
    """Open a checkpoint; errors of the block become CheckpointErrors that name the file.

    Raises CheckpointError if the file is not a checkpoint or its header is damaged, OSError if it
    can't be read, and ImportError if it has bfloat16 and ml_dtypes is missing.
    """
    safetensors()
    mode = os.stat(path).st_mode
    try:
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its writer
            raise CheckpointError(f"path must be a file, got {file_kind(mode)}")
        with ExitStack() as stack:
            yield File(*_opened_twice(path, stack), path)
    except CheckpointError as error:
        raise CheckpointError(one_line(f"{path}: {error}")) from None
    except _WRONG as error:
        raise CheckpointError(one_line(f"{path}: {error}")) from error


def _opened_twice(path: str, stack: ExitStack) -> tuple[Any, FileIO]:
    """Open a file by safetensors, and for reading parts; on the stack, they are closed."""
    for _ in range(_TRIES):
        # safetensors doesn't say why a file can't be opened
        raw = stack.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
        require_few(_values_in_header(raw), "the header")
        try:
            file = safetensors().safe_open(path, framework="np", backend="pread")
        except safetensors().SafetensorError as error:
            raise CheckpointError(
                f"the file must be a whole checkpoint, got one cut off, damaged or of another kind: {error}"
            ) from None
        file = stack.enter_context(file)
        if os.path.samestat(os.fstat(raw.fileno()), os.stat(path)):
            break  # otherwise another program has put a new file there, perhaps between the two
    return file, raw


def _values_in_header(file: FileIO) -> int:
    """Return about how many values a file's header has; 0 for a header that safetensors refuses unread."""
    left, values = int.from_bytes(file.read(8), "little"), 0
    while 0 < left <= LONGEST_HEADER and (part := file.read(min(left, _PART))):
        values += values_in([part])
        left -= len(part)
    return values


def _os_error(error: Exception, path: str | os.PathLike[str]) -> OSError | None:
    """Return the error of the operating system that an error of safetensors reports, or None."""
    found = _OS_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found[1])
    if _ON_WINDOWS:  # Windows's own number: from it OSError finds errno and its subclass
        return OSError(0, str(error)[: found.start()].rstrip(), os.fspath(path), number)
    return OSError(number, os.strerror(number), os.fspath(path))


def _document(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if metadata is None or not {DOCUMENT, CHECKSUM} <= set(metadata):
        raise CheckpointError(
            "the file must be one that instep.checkpoint wrote, got a file without its metadata"
        )
    text, checksum = metadata[DOCUMENT], metadata[CHECKSUM]
    if sha256(text) != checksum:
        raise CheckpointError(
            "the metadata must agree with their checksum, got others; the file is damaged"
        )
    require_few(sum(map(text.count, ",:[{")), "the document")  # in the header they may be escaped
    document = decode(text, "the metadata")
    if not isinstance(document.get("tensors"), dict):
        raise CheckpointError(
            f"the table of tensors must be a dict, got {kind(document.get('tensors'))}"
        )
    return document


def _stand_in(file: Any, name: str, listed: Any) -> Array:
    """Return an array with the shape and dtype of an array in an open file, without its memory.

    Raises CheckpointError if it isn't the array that the metadata describe.
    """
    who = f"the tensor {shown(name)}"
    if not isinstance(listed, dict) or set(listed) - {"pieces"} != {"dtype", "shape", "sha256"}:
        raise CheckpointError(
            f"the metadata of {who} must be dtype, shape and sha256, got {shown(listed)}"
        )
    entry = file.get_slice(name)
    dtype, shape = entry.get_dtype(), entry.get_shape()
    if dtype not in NAMES or NAMES[dtype] != listed["dtype"]:
        raise CheckpointError(f"{who} must have dtype {shown(listed['dtype'])}, got {dtype}")
    if shape != listed["shape"] or not all(type(n) is int for n in listed["shape"]):
        raise CheckpointError(f"{who} must have shape {shown(listed['shape'])}, got {shown(shape)}")
    if "pieces" in listed and not _are_checksums(listed["pieces"], piece_count(shape)):
        raise CheckpointError(
            f"the pieces of {who} must be a checksum for each {PIECE} elements of a larger tensor, "
            f"got {described(listed['pieces'])}"
        )
    if dtype == "BF16":
        bfloat16("a checkpoint with bfloat16")  # otherwise NumPy doesn't know the name
    try:
        return np.broadcast_to(np.zeros((), NAMES[dtype]), shape)
    except ValueError as error:  # NumPy's limits
        raise CheckpointError(
            f"{who} must have a shape that NumPy has, got {shape}: {error}"
        ) from None


def _are_checksums(pieces: Any, count: int) -> bool:
    """Tell whether this is a list of so many texts, at least one."""
    if not isinstance(pieces, list) or count == 0 or len(pieces) != count:
        return False
    return all(isinstance(piece, str) for piece in pieces)


def _require_bool(name: str, array: Array) -> None:
    """Raise CheckpointError for other bytes than 0 and 1: NumPy's results are undefined with them."""
    if array.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise CheckpointError(
            f"the tensor {shown(name)} must have the bytes 0 and 1, got others in an array of bool"
        )
