"""Replacing a file in one step: at any moment either the old or the new file is there, complete."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from instep._support.boots import boot_name

__all__ = ["file_kind", "named", "replace_file"]

_IS_POSIX = os.name == "posix"  # elsewhere folders can't be opened
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def replace_file(path: str, write: Callable[[Path], None]) -> None:
    """Let `write` write a file to a path nearby, and move it to its place when it is on the disk.

    Raises an OSError that names the path, or the error of `write`. The old file is still there
    then, unless the folder itself could not be synced. If no file can be replaced there, nothing is
    written.
    """
    with named(path):
        mode = _mode_there(path)
        target = Path(os.path.realpath(path))  # the target of a symbolic link, not the link
        folder = os.open(target.parent, os.O_RDONLY) if _IS_POSIX else None
        try:
            with _folder_of_its_own(target.parent) as place:
                made = place / "whole"
                write(made)
                with open(made, "r+b") as file:
                    if mode is not None:
                        os.chmod(made, mode)  # before the sync, which writes the mode, too
                    _sync(file.fileno())
                os.replace(made, target)
            if folder is not None:
                _sync_folder(folder)
        finally:
            if folder is not None:
                os.close(folder)


@contextmanager
def named(path: str) -> Iterator[None]:
    """Let the system's errors name the caller's file: the caller doesn't know the other files."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # with a number, the error has a text that the name can follow
            error.filename = path
            del error.filename2
        raise


def file_kind(mode: int) -> str:
    """Name the kind of what is at a path, for errors: "a folder", "a pipe"."""
    return _KINDS.get(stat.S_IFMT(mode), "no file")


def _mode_there(path: str) -> int | None:
    """Return the mode of the file at a path, None if nothing is there; refuse everything but a file.

    The file system is asked only once: it makes no difference if a file is removed or appears
    afterwards.
    """
    expected = "path must be a regular file or a free name, got"
    if not path:
        raise FileNotFoundError(errno.ENOENT, f"{expected} an empty path", path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.basename(path) in ("", os.curdir, os.pardir):  # "new/", which is no "new"
            text = f"{expected} a path that ends as a folder's does"
            raise IsADirectoryError(errno.EISDIR, text, path) from None
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, f"{expected} a folder", path)
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, f"{expected} {file_kind(mode)}", path)
    return stat.S_IMODE(mode)


def _sync(descriptor: int) -> None:
    """Write a file or a folder to the disk."""
    if _IS_POSIX:
        import fcntl  # noqa: PLC0415 (Windows lacks it)

        # macOS's fsync may leave data in the drive's own memory; this command writes it to the
        # disk.
        command = getattr(fcntl, "F_FULLFSYNC", None)
        if command is not None:
            with suppress(OSError):  # not every file system can
                fcntl.fcntl(descriptor, command)
                return
    os.fsync(descriptor)


def _sync_folder(descriptor: int) -> None:
    try:
        _sync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise


# Each file is written in its own folder, which is locked before there is a file in it. A program that
# is killed leaves this folder. The next save removes it, if its writer is certainly dead: a writer
# holds a lock on its folder, and the lock ends with the writer and the children that it forked
# meanwhile. A lock may be invisible to another machine with the same disk, and it ends
# with a restart. So the folder's name contains the machine and its boot. Folders of other machines
# or boots are left alone, and so are folders that could not be locked (NFS locks no folders).


@contextmanager
def _folder_of_its_own(parent: Path) -> Iterator[Path]:
    """Make a folder that no other save takes for a leftover, and remove it in the end."""
    machine, token, lock = boot_name(), secrets.token_hex(8), None
    made: list[Path] = []  # each path from before its folder is made, as Ctrl-C may come between
    try:
        if machine is not None:
            _remove_leftovers(parent, machine)
            made.append(parent / f".instep-{machine}-{token}.tmp")
            made[-1].mkdir(0o700)
            lock = _lock(made[-1])
        # Before this lock, another save may have taken the folder for a leftover: then the folder
        # is gone, or the other save has locked it.
        if lock is None or not made[-1].exists():
            made.append(parent / f".instep-{token}.tmp")  # a name that no save looks for
            made[-1].mkdir(0o700)
        yield made[-1]
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_leftovers(parent: Path, machine: str) -> None:
    name = re.compile(rf"\.instep-{machine}-[0-9a-f]{{16}}\.tmp")
    with suppress(OSError):  # leftovers of others must not make a save fail
        for path in [parent / entry for entry in os.listdir(parent) if name.fullmatch(entry)]:
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed; return None if it can't be locked."""
    import fcntl  # noqa: PLC0415 (Windows lacks it, and doesn't come here)

    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor
