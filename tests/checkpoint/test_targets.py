"""Where a save puts its file: what it replaces, what it refuses, what is on the disk by then."""

import errno
import os
import re
import socket
import stat

import numpy as np
import pytest
from checkpoint_files import small
from snapshots import bits

import instep
from instep import checkpoint
from instep.checkpoint import format as checkpoint_format
from instep.checkpoint import saving, whole_file

safetensors = pytest.importorskip("safetensors")

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes as POSIX has them")


# ---- refused before anything is written


def _socket(name):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(name)


def _device(kind):
    def make(name):
        try:
            os.mknod(name, 0o600 | kind, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("making a device is for root")

    return make


def _link_to_a_pipe(name):
    os.mkfifo("pipe")
    os.symlink("pipe", name)


def _file(name):
    with open(name.rstrip("/"), "wb") as file:
        file.write(b"old")


# What makes what is there, the path, the error, and what is found.
PATH = "path must be a regular file or a free name, got"
NO_FILES = {
    "a folder": (os.mkdir, "x", IsADirectoryError, f"{PATH} a folder"),
    "a folder with a slash": (os.mkdir, "x/", IsADirectoryError, f"{PATH} a folder"),
    "this folder": (None, ".", IsADirectoryError, f"{PATH} a folder"),
    "nothing, with a slash": (
        None,
        "new/",
        IsADirectoryError,
        f"{PATH} a path that ends as a folder's does",
    ),
    "nothing, with a dot": (
        None,
        "new/.",
        IsADirectoryError,
        f"{PATH} a path that ends as a folder's does",
    ),
    "no text": (None, "", FileNotFoundError, f"{PATH} an empty path"),
}
NO_FILES_OF_POSIX = {
    "a file with a slash": (_file, "x/", NotADirectoryError, os.strerror(errno.ENOTDIR)),
    "a pipe": (getattr(os, "mkfifo", None), "x", FileExistsError, f"{PATH} a pipe"),
    "a link to a pipe": (_link_to_a_pipe, "x", FileExistsError, f"{PATH} a pipe"),
    "a socket": (_socket, "x", FileExistsError, f"{PATH} a socket"),
    "a device": (_device(stat.S_IFCHR), "x", FileExistsError, f"{PATH} a device"),
    "a block device": (_device(stat.S_IFBLK), "x", FileExistsError, f"{PATH} a device"),
    "a link to itself": (
        lambda name: os.symlink(name, name),
        "x",
        OSError,
        os.strerror(errno.ELOOP),
    ),
}


def _there():
    return {name: (os.lstat(name).st_mode, os.lstat(name).st_ino) for name in os.listdir(".")}


@pytest.mark.parametrize(
    "case", [*NO_FILES.values(), *(pytest.param(c, marks=POSIX) for c in NO_FILES_OF_POSIX.values())],
    ids=[*NO_FILES, *NO_FILES_OF_POSIX],
)  # fmt: skip
def test_what_is_no_file_is_not_replaced(case, tmp_path, monkeypatch):
    make, path, error, found = case
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "write", lambda *_: pytest.fail("something is written"))
    if make is not None:
        make(path)
    before = _there()
    with pytest.raises(error, match=re.escape(found)) as caught:
        checkpoint.save(path, small()[0])
    assert caught.value.filename == path
    assert found.startswith("path ") == (PATH in str(caught.value))
    assert _there() == before


@pytest.mark.parametrize("path", [7, b"run", None, 1.5], ids=repr)
def test_what_is_no_path(path, saved):
    _, optimizer, scaler = saved
    before = bits(optimizer, scaler)
    for call in (
        lambda: checkpoint.save(path, optimizer, scaler=scaler),
        lambda: checkpoint.load(path, optimizer, scaler),
        lambda: checkpoint.inspect(path),
    ):
        with pytest.raises(TypeError, match=r"path must be a str or a path of str, got "):
            call()
    assert bits(optimizer, scaler) == before


def test_a_path_of_bytes_is_no_path(saved):
    path, optimizer, scaler = saved

    class Bytes:
        def __fspath__(self):
            return os.fsencode(path)

    with pytest.raises(TypeError, match=r"path must be a str or a path of str, got a Bytes"):
        checkpoint.load(Bytes(), optimizer, scaler)


def test_a_descriptor_is_refused_and_stays_open(saved):
    path, optimizer, scaler = saved
    descriptor = os.open(path, os.O_RDWR)
    try:
        for call in (
            lambda: checkpoint.save(descriptor, optimizer),
            lambda: checkpoint.load(descriptor, optimizer, scaler),
            lambda: checkpoint.inspect(descriptor),
        ):
            with pytest.raises(TypeError, match="path must be a str or a path of str, got an int"):
                call()
            assert os.fstat(descriptor).st_size == path.stat().st_size
    finally:
        os.close(descriptor)


def test_a_folder_that_is_not_there(tmp_path):
    optimizer, _ = small()
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(tmp_path / "no" / "run")))):
        checkpoint.save(tmp_path / "no" / "run", optimizer)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "run", optimizer)
    assert os.listdir(tmp_path) == []


# ---- replaced


@POSIX
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


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_file_that_others_remove_and_make_at_every_look(there, tmp_path, monkeypatch):
    path, optimizer = tmp_path / "run", small()[0]
    if there:
        path.touch()
    looks, os_stat = [], os.stat

    def changing(looked_at, *arguments, **keywords):
        try:
            return os_stat(looked_at, *arguments, **keywords)
        finally:
            if looked_at in (path, str(path)):
                looks.append(looked_at)
                if os.path.lexists(path):
                    path.unlink()
                else:
                    path.touch()

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", changing)
        checkpoint.save(path, optimizer, extra="new")
    assert looks
    assert checkpoint.load(path, optimizer) == "new"
    assert os.listdir(tmp_path) == ["run"]


# ---- on the disk


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_what_is_synced_and_when(there, tmp_path, monkeypatch):
    """The file with its mode before it is put there, and the folder after."""
    path, optimizer = tmp_path / "run", instep.SGD(np.ones(1000), lr=0.1)
    if there:
        checkpoint.save(path, optimizer)
        path.chmod(0o640)
    calls = []
    sync, replace = whole_file._sync, os.replace

    def recorded_sync(descriptor):
        found = os.fstat(descriptor)
        folder = stat.S_ISDIR(found.st_mode)
        calls.append("folder" if folder else (found.st_size, stat.S_IMODE(found.st_mode)))
        sync(descriptor)

    def recorded_replace(source, target):
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(whole_file, "_sync", recorded_sync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    checkpoint.save(path, optimizer)
    file = path.stat().st_size, stat.S_IMODE(path.stat().st_mode)
    assert calls == [file, "replace", *(["folder"] if os.name == "posix" else [])]


@pytest.mark.parametrize("full", [None, True, False], ids=["none", "works", "fails"])
def test_where_the_drive_itself_can_be_told_to_sync(full, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    calls = []

    def command(descriptor, number):
        calls.append(number)
        if not full:
            raise OSError(errno.ENOTSUP, "not here")

    if full is None:
        monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    else:
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", command)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    checkpoint.save(tmp_path / "run", small()[0])
    each = {None: ["fsync"], True: [51], False: [51, "fsync"]}[full]
    assert calls == 2 * each  # of the file and of the folder


@POSIX
def test_a_folder_on_a_broken_disk(tmp_path, monkeypatch):
    """The new file is there, whole; that it is on the disk by now, nobody can say."""
    sync = whole_file._sync

    def of_files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    optimizer, _ = small()
    checkpoint.save(tmp_path / "run", optimizer, extra="old")
    with monkeypatch.context() as patched:
        patched.setattr(whole_file, "_sync", of_files_alone)
        with pytest.raises(OSError, match="Input/output error"):
            checkpoint.save(tmp_path / "run", optimizer, extra="new")
    assert checkpoint.load(tmp_path / "run", optimizer) == "new"
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("why", ["folders can't be opened", "folders can't be synced"])
def test_where_folders_are_not_synced(why, tmp_path, monkeypatch):
    sync = whole_file._sync

    def of_files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no file")
        sync(descriptor)

    if why.endswith("opened"):
        monkeypatch.setattr(whole_file, "_IS_POSIX", False)
    else:
        monkeypatch.setattr(whole_file, "_sync", of_files_alone)
    optimizer, _ = small()
    checkpoint.save(tmp_path / "run", optimizer)
    assert checkpoint.load(tmp_path / "run", optimizer) is None


# ---- errors of the system, in safetensors' words

SYSTEMS = {
    "POSIX": (errno.EACCES, PermissionError, (errno.EACCES, os.strerror(errno.EACCES), "run")),
    "Windows": (5, PermissionError, (0, "I/O error: a text", "run", 5)),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_an_error_of_the_system_is_made_of(system, monkeypatch):
    """On Windows the number is not errno: it goes where OSError takes Windows' own."""
    number, error, wanted = SYSTEMS[system]
    made = []

    class Recorded(OSError):
        def __init__(self, *arguments):
            made.append(arguments)

    monkeypatch.setattr(checkpoint_format, "_ON_WINDOWS", system == "Windows")
    text = safetensors.SafetensorError(f"I/O error: a text (os error {number})")
    if (system == "Windows") == (os.name == "nt"):
        assert isinstance(checkpoint_format._os_error(text, "run"), error)
    monkeypatch.setattr(checkpoint_format, "OSError", Recorded, raising=False)
    checkpoint_format._os_error(text, "run")
    assert made == [wanted]
