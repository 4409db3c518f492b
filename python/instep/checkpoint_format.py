"""The file of a checkpoint: safetensors, with a JSON document and checksums in its metadata.

The metadata of the file has two entries: ``instep``, a JSON document, and ``instep_sha256``, the
checksum of its UTF-8 text. The document says under ``tensors`` what each tensor's dtype, shape and
checksum are. So there is nothing in a file that could change without being noticed, and any reader
of safetensors can take the arrays out of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from instep.wording import difference, kind

__all__ = [
    "CheckpointError",
    "Tensor",
    "decode",
    "encode",
    "one_line",
    "parse",
    "read",
    "write_durably",
]

_DOCUMENT, _CHECKSUM = "instep", "instep_sha256"
_LARGEST_HEADER = 100_000_000  # what safetensors itself reads
_LONGEST_LINE = 400
_FOLDERS_SYNC = os.name == "posix"  # elsewhere a folder can't be opened
_PREFIX = 8  # the header's length, a little-endian number


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, or is of another optimizer; nothing has changed."""


class Tensor(NamedTuple):
    """What a file holds of an array: safetensors' name of the dtype, the shape, the bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytearray


def encode(document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the content of a file with this document, whose ``tensors`` are filled in, and arrays.

    Raises ValueError if the document is too long, or a name is no Unicode text.
    """
    numpy_format = _safetensors(".numpy")
    # asarray rather than ascontiguousarray, which gives scalars a dimension
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    table = {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": _sha256(array.reshape(-1).view(np.uint8)),
        }
        for name, array in arrays.items()
    }
    text = json.dumps({**document, "tensors": table}, allow_nan=False, separators=(",", ":"))
    content: bytes = numpy_format.save(
        arrays, {_DOCUMENT: text, _CHECKSUM: _sha256(text.encode("utf-8"))}
    )
    header = int.from_bytes(content[:_PREFIX], "little")
    if header > _LARGEST_HEADER:
        raise ValueError(
            f"extra and the names of the parameters need {header} bytes; "
            f"at most {_LARGEST_HEADER} are wanted"
        )
    return content


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the document and the tensors of a file, all checksums verified.

    Raises CheckpointError if that isn't what the file holds; reads no more than the file's size.
    """
    safetensors = _safetensors()
    try:
        content, header_length = _content(path)
        header = decode(content[_PREFIX : _PREFIX + header_length], "the header")
        document = _document(header.get("__metadata__"))
        try:
            found = safetensors.deserialize(content)
        except safetensors.SafetensorError as error:
            raise CheckpointError(str(error)) from None
        del content
        tensors = {
            name: Tensor(entry["dtype"], tuple(entry["shape"]), entry["data"])
            for name, entry in found
        }
        _verify(tensors, document["tensors"])
    except CheckpointError as error:
        raise CheckpointError(one_line(f"{os.fspath(path)}: {error}")) from None
    return document, {name: tensors[name] for name in document["tensors"]}  # as they were saved


def write_durably(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file in one step: whatever happens, the old or the new content is there, whole.

    Raises OSError; the old file is still there then, unless the folder itself could not be synced.
    """
    target = Path(os.path.realpath(path))  # what a symbolic link leads to, not the link
    temporary = target.parent / f".instep-{secrets.token_hex(8)}.tmp"
    folder = os.open(target.parent, os.O_RDONLY) if _FOLDERS_SYNC else None
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        if folder is not None:
            _sync_folder(folder)
    finally:
        if folder is not None:
            os.close(folder)


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


def _safetensors(submodule: str = "") -> Any:
    try:
        return import_module(f"safetensors{submodule}")
    except ImportError:
        raise ImportError(
            "checkpoints need the package safetensors: pip install 'instep[checkpoint]'"
        ) from None


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _content(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return a file's content and its header's length, having compared the two first."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
        raise CheckpointError("this is not a file; a checkpoint is wanted")
    with open(path, "rb") as file:
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
        if file.read(1) != b"{":  # before reading gigabytes of something else
            raise CheckpointError("the file is no safetensors file; a checkpoint is wanted")
        file.seek(0)
        content = file.read(size)
    if len(content) != size:
        raise CheckpointError(f"the file has {len(content)} bytes; {size} are wanted")
    return content, length


def _document(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not {_DOCUMENT, _CHECKSUM} <= set(metadata):
        raise CheckpointError(
            "the file has no metadata of instep's; a file that instep.checkpoint wrote is wanted"
        )
    text, checksum = metadata[_DOCUMENT], metadata[_CHECKSUM]
    if not isinstance(text, str) or _sha256(text.encode("utf-8", "surrogatepass")) != checksum:
        raise CheckpointError("the metadata differ from their checksum; the file is damaged")
    document = decode(text, "the metadata")
    if not isinstance(document.get("tensors"), dict):
        raise CheckpointError("the metadata have no table of tensors")
    return document


def _verify(tensors: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
    if set(tensors) != set(table):
        raise CheckpointError(
            f"the tensors are not those of the metadata; {difference(sorted(tensors), table)}"
        )
    for name, tensor in tensors.items():
        listed = table[name]
        if not isinstance(listed, dict) or set(listed) != {"dtype", "shape", "sha256"}:
            raise CheckpointError(f"the metadata say {listed!r} of the tensor {name!r}")
        if list(tensor.shape) != listed["shape"]:
            raise CheckpointError(
                f"the tensor {name!r} has shape {tensor.shape}; {listed['shape']!r} is wanted"
            )
        if _NAMES.get(tensor.dtype) != listed["dtype"]:
            raise CheckpointError(
                f"the tensor {name!r} has dtype {tensor.dtype}; {listed['dtype']!r} is wanted"
            )
        if _sha256(tensor.data) != listed["sha256"]:
            raise CheckpointError(
                f"the tensor {name!r} differs from its checksum; the file is damaged"
            )


#: NumPy's names of the dtypes that optimizers have, by safetensors' names.
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise


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
