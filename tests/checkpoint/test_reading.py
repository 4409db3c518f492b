"""What is looked at before and while arrays are read: another optimizer, or other circumstances, changes nothing."""

import errno
import os
import re
from contextlib import contextmanager

import numpy as np
import pytest
from checkpoint_files import refused
from snapshots import bits

import instep
from instep import checkpoint
from instep.checkpoint import format as checkpoint_format

safetensors = pytest.importorskip("safetensors")


@contextmanager
def _read_only(optimizer):
    array = optimizer.params["w"]
    array.flags.writeable = False
    yield
    array.flags.writeable = True


OTHERS = {
    "rule": (lambda w, b: instep.AdamW({"w": w, "b": b}, ema_decay=0.5), "rule"),
    "names": (lambda w, b: instep.Adam({"w": w, "c": b}, ema_decay=0.5), "missing: 'c'"),
    "one more": (
        lambda w, b: instep.Adam({"w": w, "b": b, "c": np.ones(1)}, ema_decay=0.5),
        "missing: 'c'",
    ),
    "one less": (lambda w, b: instep.Adam({"w": w}, ema_decay=0.5), "unknown: 'b'"),
    "shape": (lambda w, b: instep.Adam({"w": w[1:], "b": b}, ema_decay=0.5), "(4,)"),
    "dtype": (
        lambda w, b: instep.Adam({"w": w.astype(np.float64), "b": b}, ema_decay=0.5),
        "must have shape (4,) and dtype float64, got (4,) and float32",
    ),
    "averages": (
        lambda w, b: instep.Adam({"w": w, "b": b}),
        "ema_decay of the state must be None, as the optimizer has no averages, got 0.5",
    ),
    "states": (lambda w, b: instep.Adam({"w": w, "b": b}, ema_decay=0.5, amsgrad=True), "amsgrad"),
    "dtype of states": (
        lambda w, b: instep.Adam({"w": w, "b": b}, ema_decay=0.5, state_dtype=np.float16),
        "must be stored as float16, got float32; make the optimizer with state_dtype=None for it",
    ),
    "order": (
        lambda w, b: instep.Adam({"b": b, "w": w}, ema_decay=0.5),
        "number 0 must be 'b', got 'w'",
    ),
    "groups": (
        lambda w, b: instep.Adam([{"params": {"w": w}}, {"params": {"b": b}}], ema_decay=0.5),
        "param_groups must be a list of 2, got a list of 1",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_refused(name, saved):
    path, optimizer, scaler = saved
    make, match = OTHERS[name]
    other = make(*optimizer.params.values())
    refused(path, other, scaler, match=re.escape(match))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # in an array, which is read later
    refused(path, other, scaler, match=re.escape(match))


class Observed:
    """What safe_open returns, with another get_tensor: it has no seam for this."""

    def __init__(self, opened, get_tensor):
        self._opened, self.get_tensor = opened, get_tensor

    def __getattr__(self, name):
        return getattr(self._opened, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def get_tensor_replaced(monkeypatch):
    """Have files opened with another get_tensor."""
    safe_open = safetensors.safe_open

    def replace(get_tensor):
        def opened(*arguments, **keywords):
            file = safe_open(*arguments, **keywords)
            return Observed(file, lambda name: get_tensor(file, name))

        monkeypatch.setattr(safetensors, "safe_open", opened)

    return replace


def test_no_array_of_another_optimizer_is_read(saved, get_tensor_replaced):
    path, optimizer, scaler = saved
    read = []

    def recorded(file, name):
        read.append(name)
        return file.get_tensor(name)

    get_tensor_replaced(recorded)
    for make, match in OTHERS.values():
        refused(path, make(*optimizer.params.values()), scaler, match=re.escape(match))
    refused(path, optimizer, None, match=r"got None: .*; pass scaler=instep.LossScaler\(\)$")
    with _read_only(optimizer):
        refused(
            path,
            optimizer,
            scaler,
            match="parameter 'w' must be writeable to be loaded, got an array that is read-only",
        )
    with optimizer.averaged(), pytest.raises(RuntimeError, match="load must come after the block"):
        checkpoint.load(path, optimizer, scaler)
    assert read == []
    checkpoint.load(path, optimizer, scaler)
    assert len(read) == 10


def test_an_optimizer_that_changes_while_arrays_are_read(saved, get_tensor_replaced):
    path, optimizer, scaler = saved
    w = optimizer.params["w"]

    def made_read_only(file, name):
        w.flags.writeable = False
        return file.get_tensor(name)

    get_tensor_replaced(made_read_only)
    try:
        refused(
            path,
            optimizer,
            scaler,
            match="parameter 'w' must be writeable to be loaded, got an array that is read-only",
        )
    finally:
        w.flags.writeable = True


def test_other_circumstances_are_refused(saved):
    path, optimizer, scaler = saved
    refused(path, optimizer, None, match=r"got None: .*; pass scaler=instep.LossScaler\(\)$")
    with _read_only(optimizer):
        refused(
            path,
            optimizer,
            scaler,
            match="parameter 'w' must be writeable to be loaded, got an array that is read-only",
        )
    checkpoint.save(path, optimizer)
    refused(path, optimizer, scaler, match=r"got a LossScaler: .*; save with scaler=")


def test_a_file_that_shrinks_while_it_is_read(saved, monkeypatch):
    path, optimizer, scaler = saved
    size, document = path.stat().st_size, checkpoint_format._document

    def once_it_shrank(metadata):
        os.truncate(path, size - 1)
        return document(metadata)

    monkeypatch.setattr(checkpoint_format, "_document", once_it_shrank)
    refused(path, optimizer, scaler, match=r"the tensor '.*' must be readable, got an error: ")


def test_a_disk_that_fails_while_it_is_read(saved, get_tensor_replaced):
    path, optimizer, scaler = saved
    before = bits(optimizer, scaler)

    def failing(file, name):
        raise safetensors.SafetensorError(
            f"Could not read tensor {name} from file: {os.strerror(errno.EIO)} (os error 5)"
        )

    get_tensor_replaced(failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        checkpoint.load(path, optimizer, scaler)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert bits(optimizer, scaler) == before
