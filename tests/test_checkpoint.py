"""Checkpoints: to the bit, whole or not there at all, and nothing taken from a file that is wrong."""

import errno
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, VARIANTS, labels, numbers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import instep
from instep import checkpoint, checkpoint_format, cli, schedules
from instep.checkpoint import CheckpointError

safetensors = pytest.importorskip("safetensors")
numpy_format = pytest.importorskip("safetensors.numpy")

SEED = 20_240_601


def bits(optimizer, scaler=None):
    """All that can change, arrays as their bytes."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype, value.shape, value.tobytes()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return value

    params = {name: plain(array) for name, array in optimizer.params.items()}
    return params, plain(optimizer.state_dict()), scaler and scaler.state_dict()


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
    """An optimizer with something of everything, and gradients for it."""
    params = {"w": np.arange(4.0, dtype=np.float32), "b": np.ones((2, 1), BFLOAT16)}
    optimizer = instep.Adam(params, lr=0.25, ema_decay=0.5, clip_norm=math.inf, nonfinite="skip")
    grads = {"w": np.full(4, 0.5), "b": np.full((2, 1), 2.0)}
    return optimizer, grads


@pytest.fixture
def saved(tmp_path):
    """A small file, and an optimizer and a scaler that it fits, in another state."""
    optimizer, grads = small()
    scaler = instep.LossScaler(scale=8.0)
    assert scaler.step(optimizer, grads)
    optimizer.accumulate(grads)
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, optimizer, extra={"epoch": 3, "name": "é\n"}, scaler=scaler)
    other, grads = small()
    for _ in range(2):
        other.step(grads)
    assert bits(other) != bits(optimizer)
    return path, other, instep.LossScaler()


def parts(content):
    """The header and the data of a file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def with_document(content, document):
    """The file with another document and the checksum that belongs to it."""
    header, data = parts(content)
    text = document if isinstance(document, str) else json.dumps(document)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    header["__metadata__"] = {"instep": text, "instep_sha256": checksum}
    return file_of(header, data)


def document_of(content):
    return json.loads(parts(content)[0]["__metadata__"]["instep"])


# --- to the bit


@pytest.mark.parametrize("variant", VARIANTS, ids=labels)
def test_every_rule_in_every_dtype_comes_back(variant, tmp_path):
    rng = np.random.default_rng(SEED)

    def params():
        arrays = {}
        for dtype in DTYPES:
            arrays[f"{dtype}/strided"] = np.zeros((5, 14), dtype)[::-2, 1::3]
            arrays[f"{dtype} scalar"] = np.zeros((), dtype)
            arrays[f"{dtype}\n空"] = np.zeros((0, 3), dtype)
        return arrays

    groups = [{"params": params(), "lr": schedules.CosineDecay(0.1, steps=9)}]
    optimizer = variant.make(groups, ema_decay=0.9)
    assert optimizer.param_groups[0]["lr"] is groups[0]["lr"]
    for param in optimizer.params.values():
        param[...] = numbers(rng, param.shape, param.dtype)
    for call in (optimizer.step, optimizer.step, optimizer.step, optimizer.accumulate):
        call([{n: numbers(rng, p.shape, np.float64) for n, p in optimizer.params.items()}])

    path = tmp_path / "a file"
    checkpoint.save(path, optimizer, extra=[1, "two", None, {"x": 0.1}])
    other = variant.make([{"params": params()}], ema_decay=0.1)
    arrays = other.params
    assert checkpoint.load(path, other) == [1, "two", None, {"x": 0.1}]
    assert bits(other) == bits(optimizer)
    assert all(other.params[name] is array for name, array in arrays.items())
    assert other.step_count == 3


RULES = {
    "SGD": lambda w: instep.SGD(w, lr=schedules.Linear(0.1, 0.01, steps=20), momentum=0.9),
    "RMSprop": lambda w: instep.RMSprop(w, lr=0.01, centered=True, momentum=0.5, clip_norm=1.0),
    "Adam": lambda w: instep.Adam(w, lr=0.01, amsgrad=True, ema_decay=0.95, nonfinite="skip"),
    "AdamW": lambda w: instep.AdamW(w, lr=0.01, weight_decay=0.1, state_dtype=np.float16),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_resumed_at_any_step_equals_the_uninterrupted_one(rule, tmp_path):
    steps = 20

    def made(start):
        w = np.zeros((6, 3), np.float32)[::2].T
        w[...] = start
        return RULES[rule]({"w": w, "b": np.full(2, start)})

    def go(optimizer, scaler, rng):
        grads = {n: numbers(rng, p.shape, np.float64) for n, p in optimizer.params.items()}
        if optimizer.nonfinite != "skip":
            optimizer.accumulate(grads)
            return optimizer.step()
        if optimizer.step_count == 5 and scaler.scale == 4.0:
            grads["b"][0] = np.inf
        return scaler.step(optimizer, grads)

    uninterrupted, scaler = made(1.0), instep.LossScaler(scale=4.0, growth_interval=3)
    rng = np.random.default_rng(SEED)
    for k in range(steps):
        extra = {"rng": rng.bit_generator.state}
        checkpoint.save(tmp_path / str(k), uninterrupted, extra, scaler)
        go(uninterrupted, scaler, rng)
    wanted = bits(uninterrupted, scaler)

    for k in range(steps):
        resumed, scaler, rng = made(0.0), instep.LossScaler(), np.random.default_rng(0)
        rng.bit_generator.state = checkpoint.load(tmp_path / str(k), resumed, scaler)["rng"]
        for _ in range(k, steps):
            go(resumed, scaler, rng)
        assert bits(resumed, scaler) == wanted, k


def test_the_arrays_are_there_for_any_reader(saved):
    path, optimizer, scaler = saved
    checkpoint.load(path, optimizer, scaler)
    tensors = dict(safetensors.deserialize(path.read_bytes()))
    assert bytes(tensors["weights/w"]["data"]) == optimizer.params["w"].tobytes()
    assert bytes(tensors["state/exp_avg/b"]["data"]) == optimizer.state["b"]["exp_avg"].tobytes()
    assert tensors["weights/b"]["dtype"] == "BF16"


def test_parameters_without_states_or_elements(tmp_path):
    path = tmp_path / "run"
    optimizer = instep.SGD([np.zeros((0, 2)), np.array(3.0)], lr=0.5)
    checkpoint.save(path, optimizer)
    other = instep.SGD([np.zeros((0, 2)), np.array(0.0)], lr=0.5)
    assert checkpoint.load(path, other) is None
    assert bits(other) == bits(optimizer)


def test_functions_that_can_not_be_stored_have_to_be_there(tmp_path):
    def rate(step):
        return 0.5 / (step + 1)

    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD(np.ones(2), lr=rate))
    same = instep.SGD(np.zeros(2), lr=rate)
    checkpoint.load(path, same)
    assert same.lr is rate
    refused(path, instep.SGD(np.zeros(2), lr=0.1), match="can't be stored")


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        (math.nan, ValueError),
        ({"best": math.inf}, ValueError),
        ({1, 2}, TypeError),
        (np.zeros(2), TypeError),
        ({(1, 2): 3}, TypeError),
        (b"bytes", TypeError),
    ],
    ids=repr,
)
def test_extra_that_json_can_not_hold(extra, error, tmp_path):
    with pytest.raises(error, match=r"extra can't be written as JSON: "):
        checkpoint.save(tmp_path / "run", instep.SGD(np.ones(1), lr=0.1), extra)
    assert os.listdir(tmp_path) == []


def test_extra_that_is_too_deep_or_too_long(tmp_path, monkeypatch):
    optimizer = instep.SGD(np.ones(1), lr=0.1)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="extra can't be written as JSON"):
        checkpoint.save(tmp_path / "run", optimizer, deep)
    while deep:  # so that freeing it recurses no deeper than the interpreter likes
        deep = deep[0]
    monkeypatch.setattr(checkpoint_format, "_LARGEST_HEADER", 3000)
    checkpoint.save(tmp_path / "fits", optimizer, "x" * 1000)
    with pytest.raises(ValueError, match="at most 3000 are wanted"):
        checkpoint.save(tmp_path / "run", optimizer, "x" * 3000)
    assert os.listdir(tmp_path) == ["fits"]


def test_not_inside_averaged(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match="save after the block"):
            checkpoint.save(path, optimizer)
        with pytest.raises(RuntimeError, match="load after the block"):
            checkpoint.load(path, optimizer, scaler)
    assert path.read_bytes() == content


def test_a_save_beside_steps_of_another_thread(tmp_path):
    path = tmp_path / "run"
    w = np.zeros(300_000)
    optimizer = instep.SGD(w, lr=1.0, momentum=1.0, dampening=1.0)
    gradient = np.full(len(w), -1.0)
    optimizer.step(gradient)  # from now on every step adds 1
    stop = threading.Event()

    def go():
        while not stop.is_set():
            optimizer.step(gradient)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        other = instep.SGD(np.zeros(len(w)), lr=1.0, momentum=1.0, dampening=1.0)
        for _ in range(10):
            checkpoint.save(path, optimizer)
            checkpoint.load(path, other)
            assert np.all(other.params["0"] == other.step_count)
    finally:
        stop.set()
        thread.join()
    assert optimizer.step_count > 10


# --- whole, or not there

KILLED = """
import os, sys
import numpy as np, instep
from instep import checkpoint
path, n = sys.argv[1], int(sys.argv[2])
w = np.zeros(100_000)
optimizer = instep.SGD(w, lr=1.0, momentum=0.5)
while True:
    n += 1
    w[...] = n
    os.write(1, b"start %d\\n" % n)
    checkpoint.save(path, optimizer, extra=n)
    os.write(1, b"done %d\\n" % n)
"""


def test_killed_at_any_moment_the_old_or_the_new_file_is_there(tmp_path):
    path = tmp_path / "run.safetensors"
    draw = random.Random(SEED)
    w = np.zeros(100_000)
    optimizer = instep.SGD(w, lr=1.0, momentum=0.5)
    checkpoint.save(path, optimizer, extra=0)
    saves, present, kills, interrupted = 0, 0, 0, 0
    while saves < 200 or kills < 12:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(present)], stdout=subprocess.PIPE
        )
        lines = [child.stdout.readline() for _ in range(draw.randrange(1, 40))]
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on saving until it is killed
            child.wait(draw.uniform(0.0, 0.02))
        child.kill()
        lines += child.communicate()[0].splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith(b"\n")]
        started = max(int(n) for what, n in words if what == b"start")
        done = max((int(n) for what, n in words if what == b"done"), default=present)
        found = checkpoint.load(path, optimizer)
        assert done <= found <= started
        assert np.all(w == found)
        saves, kills = saves + started - present, kills + 1
        interrupted += done < started
        present = found
    assert interrupted > 0
    litter = [name for name in os.listdir(tmp_path) if name != path.name]
    assert len(litter) <= kills
    assert all(re.fullmatch(r"\.instep-[0-9a-f]{16}\.tmp", name) for name in litter)


def test_the_file_is_synced_before_it_is_put_there_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        size = os.fstat(descriptor).st_size if not os.path.isdir(f"/dev/fd/{descriptor}") else None
        calls.append("folder" if size is None else f"file of {size}")
        fsync(descriptor)

    def recorded_replace(source, target):
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    checkpoint.save(tmp_path / "run", instep.SGD(np.ones(1000), lr=0.1))
    size = (tmp_path / "run").stat().st_size
    assert calls == [f"file of {size}", "replace", *(["folder"] if os.name == "posix" else [])]


def _raising(error):
    def call(*arguments, **keywords):
        raise error

    return call


class _FullDisk:
    """A file on a disk with room for some bytes."""

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        self._file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")


def _on_a_full_disk(name, mode):
    return _FullDisk(open(name, mode))


FAILURES = {
    "full when written": (checkpoint_format, "open", _on_a_full_disk, OSError),
    "full when synced": (os, "fsync", _raising(OSError(errno.ENOSPC, "full")), OSError),
    "disk error": (os, "fsync", _raising(OSError(errno.EIO, "error")), OSError),
    "unwritable folder": (
        checkpoint_format,
        "open",
        _raising(PermissionError(errno.EACCES, "Permission denied")),
        PermissionError,
    ),
    "unreadable folder": (
        os,
        "open",
        _raising(PermissionError(errno.EACCES, "Permission denied")),
        PermissionError,
    ),
    "not replaceable": (os, "replace", _raising(OSError(errno.EPERM, "no")), OSError),
    "interrupted": (os, "fsync", _raising(KeyboardInterrupt()), KeyboardInterrupt),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    failure, there, tmp_path, monkeypatch
):
    path = tmp_path / "run"
    optimizer, _ = small()
    if there:
        checkpoint.save(path, optimizer, extra="old")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    assert len(before) == there
    module, name, broken, error = FAILURES[failure]
    with monkeypatch.context() as patched:
        patched.setattr(module, name, broken, raising=False)
        with pytest.raises(error):
            checkpoint.save(path, optimizer, extra="new")
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    checkpoint.save(path, optimizer, extra="new")
    assert checkpoint.load(path, optimizer) == "new"
    assert os.listdir(tmp_path) == ["run"]


def test_a_limit_of_the_system_while_writing(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD(np.ones(10), lr=0.1), extra="old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            checkpoint.save(path, instep.SGD(np.ones(10_000), lr=0.1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path, instep.SGD(np.ones(10), lr=0.1)) == "old"
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_is_not_there(tmp_path):
    optimizer, _ = small()
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "no" / "run", optimizer)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "run", optimizer)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        checkpoint.save(tmp_path, optimizer)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="modes and links as POSIX has them")
def test_modes_and_symbolic_links_stay(tmp_path):
    optimizer, _ = small()
    path, link = tmp_path / "run", tmp_path / "latest"
    checkpoint.save(path, optimizer)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    link.symlink_to(path.name)
    checkpoint.save(link, optimizer, extra="new")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert checkpoint.load(path, optimizer) == "new"
    assert sorted(os.listdir(tmp_path)) == ["latest", "run"]


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

FOREIGN = {
    "empty": (b"", "cut off or no checkpoint"),
    "text": (b"hello, world: this is text", "cut off or no checkpoint"),
    "zeros": (bytes(1000), "no safetensors file"),
    "pickle": (b"\x80\x04\x95" + bytes(100), "less than its header"),
    "huge header": ((2**64 - 1).to_bytes(8, "little") + b"{}", "less than its header"),
    "header one byte longer": ((3).to_bytes(8, "little") + b"{}", "less than its header"),
    "no metadata": (file_of({"x": ONE}, bytes(4)), "no metadata of instep's"),
    "no object": (file_of(b"[1]"), "no safetensors file"),
    "metadata of others": (file_of({"__metadata__": {"format": "pt"}}), "no metadata of"),
    "metadata a list": (file_of({"__metadata__": ["instep"]}), "no metadata of instep's"),
    "metadata no text": (
        file_of({"__metadata__": {"instep": 1, "instep_sha256": "0"}}),
        "differ from their checksum",
    ),
    "deep header": (file_of(b'{"x":' + b"[" * 100_000), "nested too deeply"),
    "deep objects": (file_of(b'{"x":' * 100_000), "nested too deeply"),
    "NaN": (file_of(b'{"x":NaN}'), "not finite"),
    "infinity": (file_of(b'{"x":1e999}'), "not finite"),
    "long integer": (file_of(b'{"x":' + b"9" * 10_000 + b"}"), "no JSON"),
    "key twice": (file_of(b'{"x":1,"x":1}'), "a key is there twice"),
    "no UTF-8": (file_of(b'{"\xff":1}'), "no JSON"),
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
    ("start", "match"),
    [
        ((200_000_000).to_bytes(8, "little") + b"{", "header has 200000000 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{", "less than its header"),
        ((1000).to_bytes(8, "little"), "no safetensors file"),
    ],
)
def test_a_large_file_that_is_wrong_is_not_read(start, match, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(start)
    os.truncate(path, 300_000_000)
    optimizer, _ = small()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load(path, optimizer)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_file(tmp_path):
    refused(tmp_path, small()[0], match="not a file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", small()[0], match="not a file")


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

# Changes of the document, with its checksum set right.
DOCUMENTS = {
    "schema": (_set("schema", 2), "schema 2; 1 is wanted"),
    "no schema": (_delete("schema"), "schema None"),
    "no extra": (_delete("extra"), "missing: extra"),
    "no tensors": (_delete("tensors"), "no table of tensors"),
    "tensors a list": (_set("tensors", []), "no table of tensors"),
    "table": (_set("tensors", "weights/w", 3), "say 3 of the tensor"),
    "table's checksum": (_set("tensors", "weights/w", "sha256", None), "from its checksum"),
    "table's dtype": (_set("tensors", "weights/w", "dtype", ["f"]), "is wanted"),
    "table's shape": (_set("tensors", "weights/w", "shape", {}), "is wanted"),
    "optimizer": (_set("optimizer", None), "a dict is wanted"),
    "rule": (_set("optimizer", "rule", "AdamW"), "of rule 'AdamW'"),
    "rule no text": (_set("optimizer", "rule", [[]]), "of rule"),
    "its schema": (_set("optimizer", "schema", 99), "schema 99"),
    "negative count": (_set("optimizer", "step_count", -1), "count of steps"),
    "count in halves": (_set("optimizer", "step_count", 0.5), "count of steps"),
    "large count": (_set("optimizer", "skipped_steps", 2**64), "count of steps"),
    "count of a parameter": (_set("optimizer", "steps", "w", True), "count of steps"),
    "no count of a parameter": (_delete("optimizer", "steps", "w"), "missing: w"),
    "steps": (_set("optimizer", "steps", []), "a dict is wanted"),
    "groups": (_set("optimizer", "param_groups", {}), "a list of 1 is wanted"),
    "group": (_set(*GROUP, "x"), "a dict is wanted"),
    "members": (_set(*GROUP, "params", ["w"]), "of the parameters"),
    "lr": (_set(*GROUP, "lr", "0.1; import os"), "lr"),
    "infinite lr": (_set(*GROUP, "lr", {"float": "inf"}), "lr"),
    "betas": (_set(*GROUP, "betas", [2, 2]), "betas"),
    "unknown schedule": (_set(*GROUP, "lr", {"schedule": "os.system"}), "os.system"),
    "no schedule": (_set(*GROUP, "lr", {"float": "nan"}), "schedule"),
    "ema_decay": (_set("optimizer", "ema_decay", None), "averages"),
    "scaler gone": (_set("scaler", None), "in only one of"),
    "scaler a list": (_set("scaler", []), "a dict is wanted"),
    "scaler's keys": (_set("scaler", {}), "are wanted"),
    "scale": (_set("scaler", "scale", -1), "scale"),
    "NaN": (json.dumps({"x": math.nan}), "NaN is not finite"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "no JSON": ("{", "no JSON"),
    "no object": ("[]", "a JSON object is wanted"),
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


@contextmanager
def _read_only(optimizer):
    array = optimizer.params["w"]
    array.flags.writeable = False
    yield
    array.flags.writeable = True


OTHERS = {
    "rule": (lambda w, b: instep.AdamW({"w": w, "b": b}, ema_decay=0.5), "rule"),
    "names": (lambda w, b: instep.Adam({"w": w, "c": b}, ema_decay=0.5), "missing: c"),
    "one more": (
        lambda w, b: instep.Adam({"w": w, "b": b, "c": np.ones(1)}, ema_decay=0.5),
        "missing: c",
    ),
    "one less": (lambda w, b: instep.Adam({"w": w}, ema_decay=0.5), "unknown: 'b'"),
    "shape": (lambda w, b: instep.Adam({"w": w[1:], "b": b}, ema_decay=0.5), "(4,)"),
    "dtype": (
        lambda w, b: instep.Adam({"w": w.astype(np.float64), "b": b}, ema_decay=0.5),
        "float32; (4,) and float64 are wanted",
    ),
    "averages": (lambda w, b: instep.Adam({"w": w, "b": b}), "averages"),
    "states": (lambda w, b: instep.Adam({"w": w, "b": b}, ema_decay=0.5, amsgrad=True), "amsgrad"),
    "dtype of states": (
        lambda w, b: instep.Adam({"w": w, "b": b}, ema_decay=0.5, state_dtype=np.float16),
        "float16 are wanted",
    ),
    "order": (lambda w, b: instep.Adam({"b": b, "w": w}, ema_decay=0.5), "of the parameters"),
    "groups": (
        lambda w, b: instep.Adam([{"params": {"w": w}}, {"params": {"b": b}}], ema_decay=0.5),
        "a list of 2 is wanted",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_refused(name, saved):
    path, optimizer, scaler = saved
    make, match = OTHERS[name]
    other = make(*optimizer.params.values())
    refused(path, other, scaler, match=re.escape(match))


def test_other_circumstances_are_refused(saved):
    path, optimizer, scaler = saved
    refused(path, optimizer, None, match="loss scaler is there in only one")
    with _read_only(optimizer):
        refused(path, optimizer, scaler, match="'w' is read-only")
    checkpoint.save(path, optimizer)
    refused(path, optimizer, scaler, match="loss scaler is there in only one")


def test_a_line_stays_one_short_line(tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD({"a\nb\x1b[31m" * 500: np.ones(1)}, lr=0.1))
    line = refused(path, instep.SGD(np.ones(1), lr=0.1), match="weights")
    assert line.isprintable()
    assert len(line) < 500


# --- fuzzed

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes(content, framed, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(file_of(b"{" + content) if framed else content)
    refused(path, small()[0])


@FUZZ
@given(data=st.data())
def test_mutated_files(data, saved):
    path, optimizer, scaler = saved
    good = path.read_bytes()
    mutated = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(mutated)))
        end = min(len(mutated), start + data.draw(st.integers(0, 8)))
        mutated[start:end] = data.draw(st.binary(max_size=8))
    assume(mutated != good)
    path.write_bytes(mutated)
    try:
        refused(path, optimizer, scaler)
    finally:
        path.write_bytes(good)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schedule", "callable", "float", "init", "state", "of", "steps"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_documents_with_anything_in_them(data, saved, capsys):
    """Their checksums are right: they load, or are refused; never another error, never a part."""
    path, optimizer, scaler = saved
    good = path.read_bytes()
    whole = tree = {"": document_of(good)}
    key = ""
    while isinstance(tree[key], (dict, list)) and tree[key] and data.draw(st.booleans()):
        tree = tree[key]
        key = data.draw(
            st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree)))
        )
    tree[key] = data.draw(JSON)
    path.write_bytes(with_document(good, whole[""]))
    before = bits(optimizer, scaler)
    try:
        checkpoint.load(path, optimizer, scaler)
    except CheckpointError:
        assert bits(optimizer, scaler) == before
    assert cli.main(["inspect", str(path)]) in (0, 1)
    path.write_bytes(good)
    capsys.readouterr()


# --- looking inside


def test_inspect(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    found = checkpoint.inspect(path)
    extra = checkpoint.load(path, optimizer, scaler)
    state = optimizer.state_dict()
    assert path.read_bytes() == content
    assert found.pop("hyperparameters") == {
        key: json.loads(json.dumps(state[key]))
        for key in ("clip_norm", "ema_decay", "param_groups")
    }
    tensors = found.pop("tensors")
    assert found == {
        "schema": checkpoint.SCHEMA,
        "rule": "Adam",
        "step_count": 1,
        "skipped_steps": 0,
        "scaler": scaler.state_dict(),
        "extra": extra,
    }
    assert tensors["weights/w"] == {"dtype": "float32", "shape": (4,), "bytes": 16}
    assert tensors["weights/b"] == {"dtype": "bfloat16", "shape": (2, 1), "bytes": 4}
    kinds = ("weights", "state/exp_avg", "state/exp_avg_sq", "averages", "accumulated")
    assert sorted(tensors) == sorted(f"{kind}/{name}" for kind in kinds for name in "wb")


def test_the_command(saved, capsys):
    path, _, _ = saved
    assert cli.main(["inspect", str(path)]) == 0
    out, err = capsys.readouterr()
    assert not err
    rows = [re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines()]
    rows = dict(row if len(row) == 2 else (row[0], "") for row in rows)
    assert rows["rule"] == "Adam"
    assert rows["clip_norm"] == "inf"
    assert rows["weights/b"] == "bfloat16 (2, 1), 4 bytes"
    assert rows["lr"] == "0.25"
    assert rows["extra"] == r'{"epoch": 3, "name": "\u00e9\n"}'


def test_the_command_shows_nothing_a_terminal_would_obey(tmp_path, capsys):
    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD({"w\x1b[2J\n": np.ones(1)}, lr=0.1), extra="\x1b[2J")
    assert cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert r"weights/w\x1b[2J\n" in out


@pytest.mark.parametrize(
    ("content", "match"), [(None, "No such file"), (b"", "no checkpoint"), (b"{" * 99, "header")]
)
def test_the_command_on_what_is_no_checkpoint(content, match, tmp_path, capsys):
    path = tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("instep inspect: ")
    assert err.count("\n") == 1
    assert match in err
    assert str(path) in err


def test_without_safetensors(saved, monkeypatch, capsys):
    path, optimizer, scaler = saved
    before, content = bits(optimizer, scaler), path.read_bytes()
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    wanted = re.escape("pip install 'instep[checkpoint]'")
    for call in (
        lambda: checkpoint.save(path, optimizer),
        lambda: checkpoint.load(path, optimizer, scaler),
        lambda: checkpoint.inspect(path),
    ):
        with pytest.raises(ImportError, match=wanted):
            call()
    assert cli.main(["inspect", str(path)]) == 1
    assert re.fullmatch(f"instep inspect: .*{wanted}\n", capsys.readouterr().err)
    assert (bits(optimizer, scaler), path.read_bytes()) == (before, content)


def test_without_ml_dtypes(saved, monkeypatch):
    path, optimizer, scaler = saved
    before = bits(optimizer, scaler)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'instep[bfloat16]'")):
        checkpoint.load(path, optimizer, scaler)
    assert bits(optimizer, scaler) == before
    assert checkpoint.inspect(path)["tensors"]["weights/b"]["dtype"] == "bfloat16"


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, os, tempfile, numpy as np, instep; from instep import checkpoint, inspection;"
        "assert 'safetensors' not in sys.modules;"
        "path = os.path.join(tempfile.mkdtemp(), 'run'); o = instep.Adam(np.ones(2));"
        "checkpoint.save(path, o); checkpoint.load(path, o); os.remove(path);"
        "print(sorted({'safetensors', 'ml_dtypes', 'torch', 'pickle'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ml_dtypes" not in done.stdout
    assert "torch" not in done.stdout
