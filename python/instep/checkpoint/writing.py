"""Writing the file of a checkpoint: one pass, in which the tensors are hashed and written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import numpy as np

from instep._support.wording import shown
from instep.checkpoint.layout import (
    CHECKSUM,
    DOCUMENT,
    LONGEST_HEADER,
    NAMES,
    Digests,
    blank_digests,
    bytes_in_file,
    dtype_name,
    file_order,
    require_few,
    safetensors,
    sha256,
    values_in,
)
from instep.checkpoint.strict_json import as_text
from instep.optimizers.containers import Array

__all__ = ["ArraySource", "Source", "write"]

_BUFFER = 2**18  # bytes: they stay in a core's cache while they are copied, hashed and written

_FORMAT_NAMES = {numpys: formats for formats, numpys in NAMES.items()}


class Source(Protocol):
    """Where the elements of a tensor come from."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """One of the dtypes that a file can hold, in this machine's byte order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the tensor."""

    def pieces(self) -> Iterator[Array]:
        """Yield all elements in C order, in C-contiguous arrays of any lengths.

        The bytes of an array must not change until the next one is asked for: they are hashed, and
        then written. `write` calls this once, in the order of `file_order`.
        """


class ArraySource:
    """An array as a source, in any layout.

    The elements are copied into one small buffer, from which they are hashed and written. So the
    checksums are right even if the array changes meanwhile, on another thread.
    """

    def __init__(self, array: Array) -> None:
        self._array = np.asarray(array)
        self.dtype, self.shape = self._array.dtype, self._array.shape

    def pieces(self) -> Iterator[Array]:
        """Yield copies of runs of the elements, each in the same memory."""
        length = max(min(_BUFFER // self.dtype.itemsize, self._array.size), 1)
        buffer = np.empty(length, self.dtype)
        runs: Any = np.nditer(
            self._array,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=["readonly"],
            order="C",
            buffersize=length,
        )
        for run in runs:
            copy = buffer[: run.size]
            copy[...] = run
            yield copy


def write(
    path: str | os.PathLike[str], document: Mapping[str, Any], sources: Mapping[str, Source]
) -> None:
    """Write a file with these tensors and this document, to which ``tensors`` is added.

    A checksum has a fixed length, so the length of the header is known before the tensors are.
    The header is written last, with the checksums of the bytes that have been written. If this
    fails, there is a part of a file at the path.

    Raises OSError; ValueError if the document is too long or has too many values, or if a source
    has more or fewer elements than its shape; TypeError if it has another dtype than a file can.
    Apart from OSErrors and wrong sources, everything is refused before anything is written.
    """
    safetensors()  # which loads the file: better missed now than when a run is to be resumed
    order = file_order({name: source.dtype for name, source in sources.items()})
    # What of the header doesn't depend on the checksums is made once.
    start = as_text({**document, "tensors": {}}, separators=(",", ":")).removesuffix("{}}")
    entries = _entries({name: sources[name] for name in order})
    table = {name: _described(source) for name, source in sources.items()}

    def header(digests: Mapping[str, Mapping[str, Any]]) -> bytes:
        listed = {name: {**described, **digests[name]} for name, described in table.items()}
        return _header(f"{start}{as_text(listed, separators=(',', ':'))}}}", entries)

    blank = header({name: blank_digests(source.shape) for name, source in sources.items()})
    if len(blank) > LONGEST_HEADER:
        raise ValueError(
            "extra and the names of the parameters must fit a header of safetensors, of at most "
            f"{LONGEST_HEADER} bytes, got {len(blank)}"
        )
    require_few(values_in([blank]), "extra, with the names of the parameters,")
    with open(path, "wb") as file:
        file.seek(8 + len(blank))
        written = header({name: _stream(file, name, sources[name]) for name in order})
        file.seek(0)
        file.write(len(written).to_bytes(8, "little") + written)


def _described(source: Source) -> dict[str, Any]:
    return {"dtype": dtype_name(source.dtype), "shape": list(source.shape)}


def _entries(sources: Mapping[str, Source]) -> str:
    """Return the part of a header that describes these tensors, as safetensors writes it."""
    entries: dict[str, Any] = {}
    begin = 0
    for name, source in sources.items():
        end = begin + math.prod(source.shape) * source.dtype.itemsize
        entries[name] = {
            "dtype": _FORMAT_NAMES[dtype_name(source.dtype)],
            "shape": list(source.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    return as_text(entries, separators=(",", ":"), ensure_ascii=False)


def _header(text: str, entries: str) -> bytes:
    """Return the header of a file with this document and these entries of tensors."""
    metadata = as_text({DOCUMENT: text, CHECKSUM: sha256(text)}, separators=(",", ":"))
    between = "" if entries == "{}" else ","
    header = f'{{"__metadata__":{metadata}{between}{entries[1:]}'.encode()
    return header + b" " * (-len(header) % 8)  # so that the tensors are aligned


def _stream(file: BinaryIO, name: str, source: Source) -> dict[str, Any]:
    """Write a tensor, and return the checksums of what has been written."""
    digests = Digests(source.shape, source.dtype.itemsize)
    for piece in source.pieces():
        data = bytes_in_file(piece)
        digests.update(data)
        file.write(data.data)
    if digests.seen != digests.nbytes:
        raise ValueError(
            f"the source of the tensor {shown(name)} must have {digests.nbytes} bytes, got "
            f"{digests.seen}"
        )
    return digests.listed()
