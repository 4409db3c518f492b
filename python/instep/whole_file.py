"""Replacing a file in one step: whatever happens, the old or the new one is there, whole."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file"]

_IS_POSIX = os.name == "posix"  # elsewhere folders can't be opened, nor open files renamed
_BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Linux has it


def replace_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], None]) -> None:
    """Have a file's content written beside it, and put it there when it is on the disk.

    Raises OSError, or what write does; the old file is still there then, unless the folder itself
    could not be synced.
    """
    target = Path(os.path.realpath(path))  # what a symbolic link leads to, not the link
    folder = os.open(target.parent, os.O_RDONLY) if _IS_POSIX else None
    try:
        machine = _machine()
        if machine is not None:
            _remove_leftovers(target.parent, machine)
        made: list[Path] = []
        try:
            with _temporary(target.parent, machine, made) as file:  # and locked until it is renamed
                write(file)
                file.flush()
                os.fsync(file.fileno())
                if not _IS_POSIX:
                    file.close()
                if target.exists():
                    shutil.copymode(target, made[-1])
                os.replace(made[-1], target)
        except BaseException:
            for unfinished in made:
                _unlink(unfinished)
            raise
        if folder is not None:
            _sync_folder(folder)
    finally:
        if folder is not None:
            os.close(folder)


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise


# A program that is killed leaves its temporary file. Who saves next removes it, if its writer is
# dead for certain: a writer holds a lock on its file, which ends with the writer. Locks may not
# reach another machine that has the same disk, and end with the boot; so the name says of which
# machine's boot a file is, and those of others are let alone.


def _machine() -> str | None:
    """Return a name of this machine's present boot, None where there is none."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return None


def _temporary(folder: Path, machine: str | None, made: list[Path]) -> BinaryIO:
    """Make a file that nobody takes for a leftover while it is written; its path is made's last.

    A path is there before its file, so that whatever comes between, the caller can remove it.
    """
    token = secrets.token_hex(8)
    if machine is not None:
        made.append(folder / f".instep-{machine}-{token}.tmp")
        file = open(made[-1], "xb")  # noqa: SIM115 (the caller closes it)
        # One that was taken for a leftover before it was locked is gone, or is being locked.
        if _lock(file.fileno()) and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()
        _unlink(made[-1])
    made.append(folder / f".instep-{token}.tmp")  # not of a name that is looked for
    return open(made[-1], "xb")


def _remove_leftovers(folder: Path, machine: str) -> None:
    name = re.compile(rf"\.instep-{machine}-[0-9a-f]{{16}}\.tmp")
    with suppress(OSError):  # a folder may be writeable and not readable
        for path in [folder / entry for entry in os.listdir(folder) if name.fullmatch(entry)]:
            with suppress(OSError), open(path, "rb") as file:
                if _lock(file.fileno()):
                    os.unlink(path)


def _lock(descriptor: int) -> bool:
    """Lock a file and return True, if nobody has and the file system can."""
    import fcntl  # noqa: PLC0415 (Windows lacks it, and is not asked)

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlink(path: Path) -> None:
    with suppress(OSError):  # gone, or out of reach: what has been raised before says more
        os.unlink(path)
