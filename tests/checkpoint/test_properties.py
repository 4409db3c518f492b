"""Any bytes, and good files with anything wrong in them: refused, nothing changed; or loaded right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import document_of, file_of, parts, with_document
from hypothesis import assume, given
from hypothesis import strategies as st
from snapshots import bits

from instep import checkpoint
from instep.checkpoint import CheckpointError
from instep.commands import cli

pytest.importorskip("safetensors")

ROOM = 256 * 2**20  # more memory than that nothing may ask for
FORBIDDEN = ("compile", "exec", "import", "pickle.find_class", "os.system", "subprocess.Popen")
watched: list[str] | None = None  # events seen, while somebody looks
hooks: list[Any] = []


def watch(event: str, arguments: Any) -> None:
    if watched is not None and event in FORBIDDEN:
        watched.append(f"{event} {arguments}")


@contextmanager
def watched_and_confined() -> Iterator[None]:
    """Nothing is imported, compiled or run in here, and no more than ROOM is allocated."""
    global watched  # noqa: PLW0603 - an audit hook can't be taken away
    with confined():
        watched = []
        try:
            yield
            seen = watched
        finally:
            watched = None
    assert not seen


@contextmanager
def confined() -> Iterator[None]:
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource  # noqa: PLC0415 - not there everywhere

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def files(saved: Any) -> Any:
    """A good file, an optimizer and a scaler that it fits, and the file's content."""
    path, optimizer, scaler = saved
    checkpoint.load(path, optimizer, scaler)  # which imports what it needs
    checkpoint.inspect(path)
    if watch not in hooks:
        sys.addaudithook(watch)
        hooks.append(watch)
    return path, optimizer, scaler, path.read_bytes()


def refused_or_right(files: Any, content: bytes) -> None:
    """Load content over something else; a file that is accepted says what the good one said."""
    path, optimizer, scaler, good = files
    path.write_bytes(good)
    checkpoint.load(path, optimizer, scaler)
    wanted = bits(optimizer, scaler)
    for array in optimizer.params.values():
        array[...] = 7
    before = bits(optimizer, scaler)
    path.write_bytes(content)
    try:
        with watched_and_confined():
            checkpoint.load(path, optimizer, scaler)
    except CheckpointError:
        assert bits(optimizer, scaler) == before
    else:
        assert bits(optimizer, scaler) == wanted
    with suppress(CheckpointError), watched_and_confined():
        checkpoint.inspect(path)


# --- bytes


@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes(content: bytes, framed: bool, files: Any) -> None:
    path, optimizer, _, _ = files
    path.write_bytes(file_of(b"{" + content) if framed else content)
    before = bits(optimizer)
    with pytest.raises(CheckpointError):
        checkpoint.load(path, optimizer)
    assert bits(optimizer) == before


def mutated(data: Any, content: bytes) -> bytes:
    """Content after a flipped bit, bytes replaced, left out, put in or repeated, or its end cut off."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 16)))
        how = data.draw(st.sampled_from(["flip", "replace", "repeat", "move", "cut"]))
        if how == "flip" and start < len(changed):
            changed[start] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "replace":
            changed[start:end] = data.draw(st.binary(max_size=16))
        elif how == "repeat":
            changed[start:start] = changed[start:end]
        elif how == "move":
            piece = changed[start:end]
            del changed[start:end]
            to = data.draw(st.integers(0, len(changed)))
            changed[to:to] = piece
        elif how == "cut":
            del changed[start:]
    return bytes(changed)


@given(data=st.data())
def test_mutated_files(data: Any, files: Any) -> None:
    refused_or_right(files, mutated(data, files[3]))


@given(data=st.data())
def test_mutated_headers_of_the_right_length(data: Any, files: Any) -> None:
    good = files[3]
    length = int.from_bytes(good[:8], "little")
    header = mutated(data, good[8 : 8 + length])
    refused_or_right(files, file_of(header, good[8 + length :]))


# --- JSON

KEYS = ["dtype", "shape", "data_offsets", "weights/w", "schedule", "callable", "float", "init"]
KEYS += ["state", "of", "steps", "__metadata__", "instep", "state/exp_avg/w", "weights/é"]
NUMBERS = st.one_of(
    st.integers(-9, 99),
    st.sampled_from([2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(st.text(max_size=5), st.sampled_from(["F64", "F32", "BF16", "I8", "C64", *KEYS]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.integers(0, 2**64), min_size=2, max_size=2),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    ),
    max_leaves=6,
)


def with_anything_in_it(data: Any, tree: Any) -> Any:
    """The tree with one value anywhere in it replaced, left out, or under another key too."""
    whole = tree = {"": tree}
    key: Any = ""
    while isinstance(tree[key], (dict, list)) and tree[key] and data.draw(st.booleans()):
        tree = tree[key]
        keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
        key = data.draw(st.sampled_from(keys))
    how = data.draw(st.sampled_from(["replace", "replace", "delete", "copy"]))
    if how == "replace" or tree is whole:
        tree[key] = data.draw(JSON)
    elif how == "delete":
        del tree[key]
    elif isinstance(tree, dict):
        tree[data.draw(TEXTS)] = tree[key]
    return whole[""]


@given(data=st.data())
def test_headers_with_anything_in_them(data: Any, files: Any) -> None:
    """What holds the document together with its checksum is left alone, so that the rest is looked at."""
    header, arrays = parts(files[3])
    metadata = header.pop("__metadata__")
    header = with_anything_in_it(data, header)
    if isinstance(header, dict):
        header.setdefault("__metadata__", metadata)
    refused_or_right(files, file_of(header, arrays))


@given(data=st.data())
def test_keys_that_are_there_twice(data: Any, files: Any) -> None:
    header, arrays = parts(files[3])
    key = data.draw(st.sampled_from(sorted(header)))
    again = f",{json.dumps(key)}:{json.dumps(data.draw(JSON))}" + "}"
    text = json.dumps(header)[:-1] + again
    assume(json.loads(text) != header)
    refused_or_right(files, file_of(text.encode(), arrays))


@given(data=st.data())
def test_documents_with_anything_in_them(data: Any, files: Any, capsys: Any) -> None:
    """Their checksums are right: they load, or are refused; never another error, never a part."""
    path, optimizer, scaler, good = files
    path.write_bytes(with_document(good, with_anything_in_it(data, document_of(good))))
    before = bits(optimizer, scaler)
    try:
        with watched_and_confined():
            checkpoint.load(path, optimizer, scaler)
    except CheckpointError:
        assert bits(optimizer, scaler) == before
    assert cli.main(["inspect", str(path)]) in (0, 1)
    capsys.readouterr()


@given(content=st.binary(max_size=300))
def test_documents_of_any_text(content: bytes, files: Any) -> None:
    path, optimizer, scaler, good = files
    text = content.decode("utf-8", "surrogateescape")
    header, arrays = parts(with_document(good, text))
    path.write_bytes(file_of(header, arrays))
    before = bits(optimizer, scaler)
    with pytest.raises(CheckpointError):
        checkpoint.load(path, optimizer, scaler)
    assert bits(optimizer, scaler) == before


@given(data=st.data())
def test_documents_changed_behind_their_checksum(data: Any, files: Any) -> None:
    header, arrays = parts(files[3])
    metadata = header["__metadata__"]
    document = with_anything_in_it(data, json.loads(metadata["instep"]))
    text = json.dumps(document, separators=(",", ":"))
    assume(text != metadata["instep"])
    metadata["instep"] = text
    path, optimizer, scaler, _ = files
    path.write_bytes(file_of(header, arrays))
    before = bits(optimizer, scaler)
    with pytest.raises(CheckpointError, match="must agree with their checksum"):
        checkpoint.load(path, optimizer, scaler)
    assert bits(optimizer, scaler) == before
