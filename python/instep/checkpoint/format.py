"""The file of a checkpoint: safetensors, with a JSON document and checksums in its metadata.

The metadata of the file has two entries: ``instep``, a JSON document, and ``instep_sha256``, the
checksum of its UTF-8 text. Under ``tensors``, the document has the dtype, shape and checksum of
each tensor. So every change of a file is noticed. Any reader of safetensors can read the arrays.

The package safetensors writes and reads the bytes, and handles the header; this module checks
everything above the format. safetensors writes arrays directly from their memory. Here it reads
arrays into memory (``pread``), one by one, and doesn't map them: if another program shortens a
mapped file, reading it ends the process. safetensors reads only the header through a mapping.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from instep import _core
from instep._support.bfloat16 import bfloat16
from instep._support.wording import difference, kind, missing, shown
from instep.checkpoint.whole_file import file_kind
from instep.optimizers.containers import Array

__all__ = [
    "DTYPES",
    "CheckpointError",
    "File",
    "as_text",
    "decode",
    "one_line",
    "opened",
    "parse",
    "write",
]

_DOCUMENT, _CHECKSUM = "instep", "instep_sha256"
_LONGEST_HEADER = 100_000_000  # the limit of safetensors, which refuses a longer header
_MOST_VALUES = 2**21  # of a header or a document, with the keys: an array has 20 to 30
_PIECE = 2**20  # bytes of a header that are read at a time
_LONGEST_LINE = 400
_ON_WINDOWS = os.name == "nt"
_OS_ERROR = re.compile(r'\(os error (\d+)\)( at path "[^"]*")?$')  # in the errors of safetensors

#: NumPy's names of the dtypes that safetensors gives to NumPy, by its own names.
_NAMES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
    "C64": "complex64",
}

#: NumPy's names of the dtypes that a file can hold.
DTYPES = tuple(_NAMES.values())

# The errors that the checks of a document raise; a document may have any content.
_WRONG = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or is of another optimizer; nothing has changed."""


def write(
    path: str | os.PathLike[str], document: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a file with the arrays and this document, to which ``tensors`` is added.

    Copies only the arrays that are not C-contiguous. The checksums are written before the arrays
    and must match them; so if an array changes meanwhile, all arrays are copied and written again.
    Raises OSError, and ValueError if the document is too long or has too many values.
    """
    # asarray, since ascontiguousarray gives scalars a dimension
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    checksums = _checksums(arrays)
    _save(path, document, arrays, checksums)
    if _checksums(arrays) != checksums:
        copies = {name: array.copy() for name, array in arrays.items()}
        _save(path, document, copies, _checksums(copies))


class File:
    """An open checkpoint: its document, verified, and its arrays."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path
        self.document = _document(file.metadata())
        table, names = self.document["tensors"], file.keys()
        if set(names) != set(table):
            raise CheckpointError(
                f"the tensors must be those of the metadata; {difference(names, table)}"
            )
        #: Arrays with the shapes and dtypes of the file's arrays, in the order of the save. They
        #: are checked before any array is read.
        self.stand_ins = {name: _stand_in(file, name, listed) for name, listed in table.items()}

    def array(self, name: str) -> Array:
        """Read an array, and verify its checksum."""
        who = f"the tensor {shown(name)}"
        try:
            array: Array = self._file.get_tensor(name)
        except _safetensors().SafetensorError as error:
            raise _os_error(error, self._path) or CheckpointError(
                f"{who} must be readable, got an error: {error}"
            ) from None
        if _checksum(array) != self.document["tensors"][name]["sha256"]:
            raise CheckpointError(
                f"{who} must agree with its checksum, got another array; the file is damaged"
            )
        # NumPy relies on this: with other bytes its results are undefined.
        if array.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
            raise CheckpointError(
                f"{who} must have the bytes 0 and 1, got others in an array of bool"
            )
        return array


@contextmanager
def opened(path: str) -> Iterator[File]:
    """Open a checkpoint; errors of the block become CheckpointErrors that name the file.

    Raises CheckpointError if the file is not a checkpoint or its header is damaged, OSError if it
    can't be read, and ImportError if it has bfloat16 and ml_dtypes is missing.
    """
    safetensors = _safetensors()
    mode = os.stat(path).st_mode
    try:
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its writer
            raise CheckpointError(f"path must be a file, got {file_kind(mode)}")
        with open(path, "rb") as raw:  # safetensors doesn't say why a file can't be opened
            _require_few(_values_in_header(raw), "the header")
        try:
            file = safetensors.safe_open(path, framework="np", backend="pread")
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"the file must be a whole checkpoint, got one cut off, damaged or of another kind: {error}"
            ) from None
        with file as entered:
            yield File(entered, path)
    except CheckpointError as error:
        raise CheckpointError(one_line(f"{path}: {error}")) from None
    except _WRONG as error:
        raise CheckpointError(one_line(f"{path}: {error}")) from error


def decode(text: str, who: str) -> dict[str, Any]:
    """Return the object that a text of strict JSON holds; any other text is a CheckpointError."""
    try:
        found = parse(text)
    except RecursionError:
        raise CheckpointError(f"{who} must be nested less deeply, got too many levels") from None
    except ValueError as error:
        raise CheckpointError(f"{who} must be JSON, got another text: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{who} must be a JSON object, got {kind(found)}")
    return found


def parse(text: str) -> Any:
    """Return the value of strict JSON: no key twice, no NaN, no infinity. Raises ValueError.

    Python reads and writes decimals in the rounding mode of the program. Here they are read in the
    default mode, so the numbers don't depend on the program's mode.
    """
    return _core.in_default_environment(
        partial(
            json.loads,
            text,
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
        )
    )


def as_text(value: Any, **options: Any) -> str:
    """Return strict JSON for a value. Raises ValueError, TypeError or RecursionError."""
    return _core.in_default_environment(partial(json.dumps, value, allow_nan=False, **options))


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, shortened if it is long."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _safetensors(submodule: str = "") -> Any:
    try:
        return import_module(f"safetensors{submodule}")
    except ImportError:
        raise ImportError(missing("a checkpoint", "safetensors", "checkpoint")) from None


def _save(
    path: str | os.PathLike[str],
    document: Mapping[str, Any],
    arrays: Mapping[str, Array],
    checksums: Mapping[str, str],
) -> None:
    table = {
        name: {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": checksums[name]}
        for name, array in arrays.items()
    }
    text = as_text({**document, "tensors": table}, separators=(",", ":"))
    metadata = {_DOCUMENT: text, _CHECKSUM: _sha256(text)}
    try:
        _safetensors(".numpy").save_file(arrays, path, metadata)
    except _safetensors().SafetensorError as error:
        raise _os_error(error, path) or ValueError(
            f"extra and the names of the parameters must fit a header of safetensors: {error}"
        ) from None
    with open(path, "r+b") as raw:
        _require_few(_values_in_header(raw), "extra, with the names of the parameters,")
        _put_in_order(raw, metadata)


def _put_in_order(file: BinaryIO, metadata: Mapping[str, str]) -> None:
    """Put the metadata of a new file in this order: safetensors writes them in a random one."""
    entries = [f"{as_text(key)}:{as_text(value)}" for key, value in metadata.items()]
    wanted, other = (
        ('{"__metadata__":{' + ",".join(some) + "}").encode() for some in (entries, entries[::-1])
    )
    file.seek(8)
    if file.read(len(other)) == other:
        file.seek(8)
        file.write(wanted)


def _values_in_header(file: BinaryIO) -> int:
    """Return about how many values a file's header has; 0 for a header that safetensors refuses unread."""
    left, values = int.from_bytes(file.read(8), "little"), 0
    while 0 < left <= _LONGEST_HEADER and (piece := file.read(min(left, _PIECE))):
        values += sum(piece.count(sign) for sign in (b",", b":", b"[", b"{"))
        left -= len(piece)
    return values


def _require_few(values: int, who: str) -> None:
    """Raise ValueError for more values than fit into the promised memory.

    In Python, a value takes up to 120 bytes, and twice as much during the search for infinities.
    """
    if values > _MOST_VALUES:
        raise ValueError(
            f"{who} must have at most {_MOST_VALUES} values, got {values} (pass large lists as "
            "NumPy arrays)"
        )


def _os_error(error: Exception, path: str | os.PathLike[str]) -> OSError | None:
    """Return the error of the operating system that an error of safetensors reports, or None."""
    found = _OS_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found[1])
    if _ON_WINDOWS:  # Windows's own number: from it OSError finds errno and its subclass
        return OSError(0, str(error)[: found.start()].rstrip(), os.fspath(path), number)
    return OSError(number, os.strerror(number), os.fspath(path))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checksums(arrays: Mapping[str, Array]) -> dict[str, str]:
    return {name: _checksum(array) for name, array in arrays.items()}


def _checksum(array: Array) -> str:
    """Return the checksum of a C-contiguous array's bytes in the file, which are little-endian."""
    # A complex number is two numbers.
    size = array.itemsize // 2 if array.dtype.kind == "c" else array.itemsize
    words = array.reshape(-1).view(f"u{size}").astype(f"<u{size}", copy=False)
    return hashlib.sha256(words.view(np.uint8).data).hexdigest()


def _document(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if metadata is None or not {_DOCUMENT, _CHECKSUM} <= set(metadata):
        raise CheckpointError(
            "the file must be one that instep.checkpoint wrote, got a file without its metadata"
        )
    text, checksum = metadata[_DOCUMENT], metadata[_CHECKSUM]
    if _sha256(text) != checksum:
        raise CheckpointError(
            "the metadata must agree with their checksum, got others; the file is damaged"
        )
    _require_few(sum(map(text.count, ",:[{")), "the document")  # in the header they may be escaped
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
    if not isinstance(listed, dict) or set(listed) != {"dtype", "shape", "sha256"}:
        raise CheckpointError(
            f"the metadata of {who} must be dtype, shape and sha256, got {shown(listed)}"
        )
    entry = file.get_slice(name)
    dtype, shape = entry.get_dtype(), entry.get_shape()
    if dtype not in _NAMES or _NAMES[dtype] != listed["dtype"]:
        raise CheckpointError(f"{who} must have dtype {shown(listed['dtype'])}, got {dtype}")
    if shape != listed["shape"] or not all(type(n) is int for n in listed["shape"]):
        raise CheckpointError(f"{who} must have shape {shown(listed['shape'])}, got {shown(shape)}")
    if dtype == "BF16":
        bfloat16("a checkpoint with bfloat16")  # otherwise NumPy doesn't know the name
    try:
        return np.broadcast_to(np.zeros((), _NAMES[dtype]), shape)
    except ValueError as error:  # NumPy's limits
        raise CheckpointError(
            f"{who} must have a shape that NumPy has, got {shape}: {error}"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("each key must be there once, got one twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite, got {text}")
    return value
