"""Files that are damaged, foreign or hostile: refused, and nothing changes."""

import json
import math
import os
import re
import tracemalloc

import numpy as np
import pytest
from checkpoint_files import document_of, file_of, parts, refused, small, with_document

import instep
from instep import checkpoint
from instep.checkpoint import CheckpointError

safetensors = pytest.importorskip("safetensors")

# --- damaged


def test_cut_off_anywhere(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    for length in reversed(range(len(content))):
        os.truncate(path, length)
        refused(path, optimizer, scaler)
    path.write_bytes(content + b"\0")
    refused(path, optimizer, scaler)
    path.write_bytes(content)
    assert checkpoint.load(path, optimizer, scaler) == {"epoch": 3, "name": "é\n"}


def test_a_bit_flipped_in_any_byte(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    for k in range(len(content)):
        with open(path, "r+b") as file:
            file.seek(max(k - 1, 0))
            file.write(content[max(k - 1, 0) : k] + bytes([content[k] ^ 1 << k % 8]))
        refused(path, optimizer, scaler)
        with pytest.raises(CheckpointError):
            checkpoint.inspect(path)


# --- foreign and hostile

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

NONE = "the file must be a whole checkpoint, got one cut off, damaged or of another kind: "

NOT_OURS = "the file must be one that instep.checkpoint wrote, got a file without its metadata"

FOREIGN = {
    "empty": (b"", NONE),
    "text": (b"hello, world: this is text", NONE),
    "zeros": (bytes(1000), NONE),
    "pickle": (b"\x80\x04\x95" + bytes(100), NONE),
    "huge header": ((2**64 - 1).to_bytes(8, "little") + b"{}", NONE),
    "header one byte longer": ((3).to_bytes(8, "little") + b"{}", NONE),
    "no metadata": (file_of({"x": ONE}, bytes(4)), NOT_OURS),
    "no object": (file_of(b"[1]"), NONE),
    "metadata of others": (file_of({"__metadata__": {"format": "pt"}}), NOT_OURS),
    "metadata a list": (file_of({"__metadata__": ["instep"]}), NONE),
    "metadata no text": (file_of({"__metadata__": {"instep": 1, "instep_sha256": "0"}}), NONE),
    "deep header": (file_of(b'{"x":' + b"[" * 100_000), NONE),
    "deep objects": (file_of(b'{"x":' * 100_000), NONE),
    "NaN": (file_of(b'{"x":NaN}'), NONE),
    "infinity": (file_of(b'{"x":1e999}'), NONE),
    "long integer": (file_of(b'{"x":' + b"9" * 10_000 + b"}"), NONE),
    "key twice": (file_of(b'{"x":1,"x":1}'), NONE),
    "metadata twice": (file_of(b'{"__metadata__":{},"__metadata__":{}}'), NONE),
    "no UTF-8": (file_of(b'{"\xff":1}'), NONE),
    "error of the system": (  # in words of the file's alone
        file_of({"(os error 5)": {**ONE, "data_offsets": [4, 8]}}, bytes(8)),
        NONE,
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(name, tmp_path):
    path = tmp_path / "run"
    content, match = FOREIGN[name]
    path.write_bytes(content)
    refused(path, small()[0], match=match)
    with pytest.raises(CheckpointError, match=match):
        checkpoint.inspect(path)


@pytest.mark.parametrize(
    "start",
    [
        (200_000_000).to_bytes(8, "little") + b"{",
        (1 << 40).to_bytes(8, "little") + b"{",
        (1000).to_bytes(8, "little"),
    ],
)
def test_a_large_file_that_is_wrong_is_not_read(start, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(start)
    os.truncate(path, 300_000_000)
    optimizer, _ = small()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=NONE):
            checkpoint.load(path, optimizer)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_file(tmp_path):
    refused(tmp_path, small()[0], match="path must be a file, got a folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", small()[0], match="path must be a file, got a pipe")


def _set(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(tree):
        for key in keys:
            tree = tree[key]
        tree[last] = value(tree[last]) if callable(value) else value

    return change


def _delete(*keys):
    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


# Changes of the header behind the metadata's back.
HEADERS = {
    "other dtype": _set("weights/w", "dtype", "I32"),
    "other dtype of that size": _set("state/exp_avg/b", "dtype", "U32"),
    "unknown dtype": _set("weights/w", "dtype", "F31"),
    "other shape": _set("weights/w", "shape", [2, 2]),
    "huge shape": _set("weights/w", "shape", [2**40, 2**40]),
    "wrapping shape": _set("weights/w", "shape", [2**62 + 4]),
    "negative shape": _set("weights/w", "shape", [-4]),
    "zero and huge": _set("weights/w", "shape", [0, 2**63]),
    "overlapping": _set("weights/w", "data_offsets", [0, 16]),
    "out of range": _set("weights/w", "data_offsets", lambda o: [o[0] + 2**40, o[1] + 2**40]),
    "a gap": _set("weights/b", "data_offsets", lambda o: [o[0] + 8, o[1] + 8]),
    "backwards": _set("weights/w", "data_offsets", lambda o: o[::-1]),
    "negative offset": _set("weights/w", "data_offsets", [-16, 0]),
    "no offsets": _delete("weights/w", "data_offsets"),
    "no tensor": _delete("weights/w"),
    "one more": lambda header: header.update(
        {"weights/v": {**ONE, "shape": [0], "data_offsets": [0, 0]}}
    ),
    "another name": lambda header: header.update(x=header.pop("weights/w")),
    "a list": _set("weights/w", []),
    "text for a shape": _set("weights/w", "shape", "4"),
    "deep metadata": _set("__metadata__", "x", [[[]]]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers(name, saved):
    path, optimizer, scaler = saved
    header, data = parts(path.read_bytes())
    header["__metadata__"]["x"] = ""
    path.write_bytes(file_of(header, data))
    assert checkpoint.inspect(path)["step_count"] == 1  # so it is the change that is refused
    HEADERS[name](header)
    path.write_bytes(file_of(header, data))
    refused(path, optimizer, scaler)


GROUP = ("optimizer", "param_groups", 0)


def test_a_shape_of_many_numbers_is_refused_at_once(saved):
    path, optimizer, scaler = saved
    header, data = parts(path.read_bytes())
    header["weights/w"]["shape"] = [2**62] * 1_000_000  # whose product would take an hour
    path.write_bytes(file_of(header, data))
    refused(path, optimizer, scaler, match=NONE)


@pytest.mark.parametrize("shape", [[-2, -2], [4.0], [True, 4], "4", None])
def test_lengths_that_are_no_counts_are_refused_also_with_metadata_that_say_so(shape, saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    header, data = parts(content)
    document = document_of(content)
    header["weights/w"]["shape"] = document["tensors"]["weights/w"]["shape"] = shape
    path.write_bytes(with_document(file_of(header, data), document))
    refused(path, optimizer, scaler, match=NONE)
    with pytest.raises(CheckpointError, match=NONE):
        checkpoint.inspect(path)


@pytest.mark.parametrize(
    "shape", [[0] * 65, [0, 2**63], [0, 2**64 - 1], [0, 2**62, 2**62]], ids=len
)
def test_shapes_that_the_format_has_and_numpy_has_not(shape, saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    document, (header, data) = document_of(content), parts(content)
    for what, tree in (({"sha256": ""}, document["tensors"]), ({"data_offsets": [0, 0]}, header)):
        dtype = "F32" if tree is header else "float32"
        tree["weights/x"] = {"dtype": dtype, "shape": shape, **what}
    path.write_bytes(with_document(file_of(header, data), document))
    refused(
        path,
        optimizer,
        scaler,
        match="the tensor 'weights/x' must have a shape that NumPy has, got ",
    )


# Changes of the document, with its checksum set right.
DOCUMENTS = {
    "schema": (_set("schema", 4), "the schema of the checkpoint must be 1 to 3, got 4"),
    "schema of pieces": (
        _set("schema", 3),
        "must be 3 if, and only if, it has checksums of pieces, got 3",
    ),
    "schema 0": (_set("schema", 0), "the schema of the checkpoint must be 1 to 3, got 0"),
    "schema True": (_set("schema", True), "the schema of the checkpoint must be 1 to 3, got True"),
    "no schema": (_delete("schema"), "the schema of the checkpoint must be 1 to 3, got None"),
    "no extra": (_delete("extra"), "missing: 'extra'"),
    "no tensors": (_delete("tensors"), "the table of tensors must be a dict, got None"),
    "tensors a list": (_set("tensors", []), "the table of tensors must be a dict, got a list"),
    "table": (_set("tensors", "weights/w", 3), "must be dtype, shape and sha256, got 3"),
    "table's checksum": (
        _set("tensors", "weights/w", "sha256", None),
        "must agree with its checksum, got another",
    ),
    "table's dtype": (
        _set("tensors", "weights/w", "dtype", ["f"]),
        "must have dtype ['f'], got F32",
    ),
    "table's shape": (_set("tensors", "weights/w", "shape", {}), "must have shape {}, got [4]"),
    "optimizer": (_set("optimizer", None), "must be a dict, got None"),
    "rule": (
        _set("optimizer", "rule", "AdamW"),
        "the rule of the state must be 'Adam', got 'AdamW'",
    ),
    "rule no text": (
        _set("optimizer", "rule", [[]]),
        "the rule of the state must be 'Adam', got [[]]",
    ),
    "its schema": (
        _set("optimizer", "schema", 99),
        "the schema of the state must be 1 to 2, got 99",
    ),
    "negative count": (
        _set("optimizer", "step_count", -1),
        "must be a count of steps, an int from 0 to 2**53, got -1",
    ),
    "count in halves": (
        _set("optimizer", "step_count", 0.5),
        "must be a count of steps, an int from 0 to 2**53, got 0.5",
    ),
    "large count": (
        _set("optimizer", "skipped_steps", 2**64),
        "must be a count of steps, an int from 0 to 2**53, got 1844",
    ),
    "count of a parameter": (
        _set("optimizer", "steps", "w", True),
        "must be a count of steps, an int from 0 to 2**53, got True",
    ),
    "no count of a parameter": (_delete("optimizer", "steps", "w"), "missing: 'w'"),
    "steps": (_set("optimizer", "steps", []), "steps must be a dict, got a list"),
    "groups": (
        _set("optimizer", "param_groups", {}),
        "param_groups must be a list of 1, got a dict",
    ),
    "group": (_set(*GROUP, "x"), "param_groups[0] must be a dict, got a str"),
    "members": (
        _set(*GROUP, "params", ["w"]),
        "the params of param_groups[0] must be the optimizer's; missing: 'b'",
    ),
    "lr": (_set(*GROUP, "lr", "0.1; import os"), "lr"),
    "infinite lr": (_set(*GROUP, "lr", {"float": "inf"}), "lr"),
    "betas": (_set(*GROUP, "betas", [2, 2]), "betas"),
    "unknown schedule": (_set(*GROUP, "lr", {"schedule": "os.system"}), "os.system"),
    "no schedule": (_set(*GROUP, "lr", {"float": "nan"}), "schedule"),
    "ema_decay": (
        _set("optimizer", "ema_decay", None),
        "ema_decay of the state must be a number, as the optimizer has averages, got None",
    ),
    "scaler gone": (_set("scaler", None), "scaler must be None, got a LossScaler: "),
    "scaler a list": (_set("scaler", []), "the loss scaler must be a dict, got a list"),
    "scaler's keys": (_set("scaler", {}), "missing: 'scale', 'growth_interval', 'good_steps'"),
    "scale": (_set("scaler", "scale", -1), "scale"),
    "NaN": (json.dumps({"x": math.nan}), "a number must be finite, got NaN"),
    "deep": ("[" * 100_000, "the metadata must be nested less deeply, got too many levels"),
    "no JSON": ("{", "the metadata must be JSON, got another text"),
    "no object": ("[]", "the metadata must be a JSON object, got a list"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_hostile_documents(name, saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    change, match = DOCUMENTS[name]
    document = document_of(content)
    path.write_bytes(with_document(content, document))
    assert checkpoint.inspect(path)["step_count"] == 1  # so it is the change that is refused
    if callable(change):
        change(document)
    else:
        document = change
    path.write_bytes(with_document(content, document))
    refused(path, optimizer, scaler, match=re.escape(match))


def test_a_line_stays_one_short_line(tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD({"a\nb\x1b[31m" * 500: np.ones(1)}, lr=0.1))
    line = refused(path, instep.SGD(np.ones(1), lr=0.1), match="weights")
    assert line.isprintable()
    assert len(line) < 500


def test_a_tensor_of_an_unknown_kind(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    document, (header, data) = document_of(content), parts(content)
    for tree in (document["tensors"], header):
        tree["other/w"] = tree.pop("weights/w")
    path.write_bytes(with_document(file_of(header, data), document))
    refused(path, optimizer, scaler, match=r"a tensor must be of the weights, .*, got 'other/w'")
