"""Checkpoint files for tests: small ones, damaged ones, and the check that a file is refused."""

import hashlib
import json
import math

import numpy as np
import pytest
from cases import BFLOAT16
from snapshots import bits

import instep
from instep import checkpoint
from instep.checkpoint import CheckpointError


def refused(path, optimizer, scaler=None, match=None):
    """Check that the file is refused in one line that names it, and that nothing changes."""
    before = bits(optimizer, scaler)
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.load(path, optimizer, scaler)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) > len(f"{path}: ")
    assert bits(optimizer, scaler) == before
    return line


def small():
    """A small optimizer with states, averages and the other parts, and gradients for it."""
    params = {"w": np.arange(4.0, dtype=np.float32), "b": np.ones((2, 1), BFLOAT16)}
    optimizer = instep.Adam(params, lr=0.25, ema_decay=0.5, clip_norm=math.inf, nonfinite="skip")
    grads = {"w": np.full(4, 0.5), "b": np.full((2, 1), 2.0)}
    return optimizer, grads


def sgd():
    """The smallest optimizer."""
    return instep.SGD({"w": np.array([0.5, -2.0], np.float32)}, lr=0.5)


def nested(levels):
    """Lists and dicts in one another."""
    deep = "x"
    for k in range(levels):
        deep = [deep, 1] if k % 2 else {"inner": deep, "other": 1}
    return deep


def parts(content):
    """The header and the data of a file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def with_document(content, document):
    """The file with another document and the right checksum for it."""
    header, data = parts(content)
    text = document if isinstance(document, str) else json.dumps(document)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    header["__metadata__"] = {"instep": text, "instep_sha256": checksum}
    return file_of(header, data)


def document_of(content):
    return json.loads(parts(content)[0]["__metadata__"]["instep"])
