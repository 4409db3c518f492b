"""What writing and reading a checkpoint share: dtypes, their order in the file, digests, limits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from instep._support.wording import missing, shown
from instep.optimizers.containers import Array

__all__ = [
    "CHECKSUM",
    "DOCUMENT",
    "DTYPES",
    "LONGEST_HEADER",
    "NAMES",
    "PIECE",
    "Bytes",
    "CheckpointError",
    "Digests",
    "blank_digests",
    "bytes_in_file",
    "dtype_name",
    "file_order",
    "piece_count",
    "pieces_of",
    "require_few",
    "safetensors",
    "sha256",
    "values_in",
]

Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

DOCUMENT, CHECKSUM = "instep", "instep_sha256"  # the entries of the metadata
LONGEST_HEADER = 100_000_000  # the limit of safetensors, which refuses a longer header
_MOST_VALUES = 2**21  # of a header or a document, with the keys: an array has 20 to 30

#: Elements of a piece. A tensor of more elements has a checksum of each piece, too.
PIECE = 2**22

#: NumPy's names of the dtypes that safetensors gives to NumPy, by its own names.
NAMES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
    "C64": "complex64",
}

#: NumPy's names of the dtypes that a file can hold.
DTYPES = tuple(NAMES.values())

# safetensors' order of dtypes in a file: none has a larger alignment than the one before.
_ORDER = (
    *("U64", "I64", "F64", "C64", "F32", "U32", "I32"),
    *("BF16", "F16", "U16", "I16", "I8", "U8", "BOOL"),
)
_PLACES = {NAMES[name]: place for place, name in enumerate(_ORDER)}


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or is of another optimizer; nothing has changed."""


def file_order(dtypes: Mapping[str, Any]) -> list[str]:
    """Return the names of tensors in their order in a file, from their dtypes.

    It is the order of safetensors: by dtype, then by name. `write` asks the sources for their
    pieces in this order, so every rank of a run can walk the tensors as the writer does.

    Raises TypeError for a dtype that a file can't hold.

    >>> import numpy as np
    >>> file_order({"b": np.dtype("f4"), "a": np.dtype("f4"), "c": np.dtype("f8")})
    ['c', 'a', 'b']
    """
    found = {name: dtype_name(np.dtype(dtype)) for name, dtype in dtypes.items()}
    for name, dtype in found.items():
        if dtype not in _PLACES:
            raise TypeError(
                f"the tensor {shown(name)} must have a dtype of {', '.join(DTYPES)}, got {dtype}"
            )
    return sorted(found, key=lambda name: (_PLACES[found[name]], name))


@lru_cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return NumPy's name of a dtype, which NumPy takes long to make."""
    return str(dtype.name)


def piece_count(shape: Sequence[int]) -> int:
    """Return how many pieces with own checksums a tensor of this shape has; 0 if it is not cut."""
    size = math.prod(shape)
    return -(-size // PIECE) if size > PIECE else 0


def pieces_of(size: int) -> Iterator[tuple[int, int]]:
    """Yield the first element of each piece of a tensor, and the end of the piece."""
    for start in range(0, size, PIECE):
        yield start, min(start + PIECE, size)


def sha256(text: str) -> str:
    """Return the checksum of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def bytes_in_file(array: Array) -> Bytes:
    """Return the bytes that a C-contiguous array has in a file, where numbers are little-endian.

    They share the array's memory, except on a big-endian machine. There, the same call turns
    bytes of a file, in an array of their dtype, into those of the machine.
    """
    # A complex number is two numbers.
    size = array.itemsize // 2 if array.dtype.kind == "c" else array.itemsize
    words = array.reshape(-1).view(f"u{size}").astype(f"<u{size}", copy=False)
    return words.view(np.uint8)


def blank_digests(shape: Sequence[int]) -> dict[str, Any]:
    """Return checksums as long as those of a tensor of this shape."""
    blank = "0" * 64
    count = piece_count(shape)
    return {"sha256": blank, **({"pieces": [blank] * count} if count else {})}


class Digests:
    """The checksums of a tensor, whose bytes in the file come in buffers of any lengths."""

    def __init__(self, shape: Sequence[int], itemsize: int) -> None:
        self.nbytes = math.prod(shape) * itemsize
        self.seen = 0  # bytes
        self._whole = hashlib.sha256()
        self._has_pieces, self._piece = piece_count(shape) > 0, hashlib.sha256()
        self._pieces: list[str] = []
        self._left = self._piece_bytes = PIECE * itemsize

    def update(self, data: Bytes) -> None:
        """Take the next bytes."""
        self.seen += data.size
        self._whole.update(data.data)
        while self._has_pieces and data.size:
            part, data = data[: self._left], data[self._left :]
            self._piece.update(part.data)
            self._left -= part.size
            if self._left == 0:
                self._end_piece()

    def listed(self) -> dict[str, Any]:
        """Return the checksums as the document lists them. No more bytes may come."""
        if self._left < self._piece_bytes:
            self._end_piece()
        found = {"sha256": self._whole.hexdigest()}
        return {**found, "pieces": self._pieces} if self._has_pieces else found

    def _end_piece(self) -> None:
        self._pieces.append(self._piece.hexdigest())
        self._piece, self._left = hashlib.sha256(), self._piece_bytes


def values_in(parts: Iterable[bytes]) -> int:
    """Return about how many values the JSON in these parts has."""
    return sum(part.count(sign) for part in parts for sign in (b",", b":", b"[", b"{"))


def require_few(values: int, who: str) -> None:
    """Raise ValueError for more values than fit into the promised memory.

    In Python, a value takes up to 120 bytes, and twice as much during the search for infinities.
    """
    if values > _MOST_VALUES:
        raise ValueError(
            f"{who} must have at most {_MOST_VALUES} values, got {values} (pass large lists as "
            "NumPy arrays)"
        )


def safetensors() -> Any:
    """Import the package safetensors; ImportError says how to install it."""
    try:
        return import_module("safetensors")
    except ImportError:
        raise ImportError(missing("a checkpoint", "safetensors", "checkpoint")) from None
