"""Saves that are killed, that fail, that meet files already there: the old or the new one, whole."""

import errno
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import small

import instep
from instep import checkpoint, checkpoint_format

pytest.importorskip("safetensors")

SEED = 20_240_601

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


@pytest.mark.parametrize("why", ["folders can't be opened", "folders can't be synced"])
def test_where_folders_are_not_synced(why, tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_alone(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "no file")
        fsync(descriptor)

    if why.endswith("opened"):
        monkeypatch.setattr(checkpoint_format, "_FOLDERS_SYNC", False)
    else:
        monkeypatch.setattr(os, "fsync", of_files_alone)
    optimizer, _ = small()
    checkpoint.save(tmp_path / "run", optimizer)
    assert checkpoint.load(tmp_path / "run", optimizer) is None
