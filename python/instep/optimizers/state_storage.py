"""The folder in whose files an optimizer's states lie: scratch of this optimizer, under a lock."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._support.wording import kind

if TYPE_CHECKING:
    from instep import _core
    from instep.optimizers.containers import Array

__all__ = ["StateFolder", "in_folder", "on_disk"]

LOCK = "instep.lock"
_STATES = re.compile(r"instep-[0-9]+-\w+\.states")
_BLOCK = 1 << 20  # bytes
#: A collection does nothing while another thread is in one, so that waits for it.
_COLLECTION = threading.RLock()


@contextmanager
def in_folder(path: str | os.PathLike[str] | None) -> Iterator[StateFolder | None]:
    """Open a folder for an optimizer that is made in the block; if it can't be made, nothing is left behind."""
    if path is None:
        yield None
        return
    storage = StateFolder(path)
    try:
        yield storage
    except BaseException:
        storage.undo()
        raise
    finally:
        storage.plan = None  # which holds the storage


class StateFolder:
    """A locked folder, and the files that are made there; the core takes over the lock and the files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if sys.platform == "win32":
            raise NotImplementedError(
                "state_storage must be None on Windows, got a folder; states lie in memory there"
            )
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"state_storage must be a path or None, got {kind(path)}")
        if not os.fspath(path):
            raise ValueError(f"state_storage must be the path of a folder, got {path!r}")
        self.plan: _core.Plan | None = None
        self.path = os.path.abspath(os.fsdecode(path))
        self.shown = os.fsencode(self.path).decode("utf-8", "replace")  # as part of a message
        self.lock_path = os.fsencode(os.path.join(self.path, LOCK))
        self._files = 0
        self._made = _make_folders(self.path)
        self._lock = -1
        try:
            try:
                self._lock = self._locked()
            except BlockingIOError:  # by an optimizer in a cycle of garbage, perhaps
                with _COLLECTION:
                    gc.collect()
                self._lock = self._locked()
            self._clear()
        except BlockingIOError:
            self.undo()
            raise OSError(
                errno.EBUSY,
                "state_storage must be a folder of this optimizer alone, got one that another "
                "optimizer uses, in this or another process; delete that one first, or give another "
                "folder",
                self.path,
            ) from None
        except BaseException:
            self.undo()
            raise

    def _locked(self) -> int:
        """Open the lock file and lock it; the lock is the core's when it has taken the descriptor."""
        import fcntl  # noqa: PLC0415 (not on Windows)

        while True:
            lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:  # such as a file system without locks
                    raise OSError(error.errno, error.strerror, self.lock_path) from None
                # Its holder may have removed the file between the two calls.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(lock), os.stat(self.lock_path)):
                        return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _clear(self) -> None:
        """Remove what a process left that was killed."""
        if os.pread(self._lock, 4, 0) == b"half":
            warnings.warn(
                f"{self.path} has half a step of a run that ended in the middle; the states begin at "
                "zero, and parameters in files may be half stepped: resume from a checkpoint",
                RuntimeWarning,
                stacklevel=7,
            )
        for entry in os.listdir(self.path):
            if _STATES.fullmatch(entry):
                os.unlink(os.path.join(self.path, entry))

    def take_lock(self) -> int:
        """Return the descriptor of the lock file, which is the caller's from now on."""
        lock, self._lock = self._lock, -1
        return lock

    def make(self, name: str, size: int) -> tuple[bytes, int, Array]:
        """Make a file of zeros; return its path, its descriptor, and a map that can only be read."""
        import mmap  # noqa: PLC0415 (only here)

        path = os.path.join(self.path, f"instep-{self._files}-{name}.states")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(path, flags, 0o666)
        try:
            _allocate(file, size, path)
            view = mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except BaseException:
            os.close(file)
            os.unlink(path)
            raise
        self._files += 1
        return os.fsencode(path), file, np.frombuffer(view, np.uint8)

    def undo(self) -> None:
        """Remove everything, for an optimizer that could not be made."""
        if self.plan is not None:
            self.plan.remove_files()
        elif self._lock >= 0:
            os.unlink(self.lock_path)
            os.close(self.take_lock())
        for folder in self._made:
            with contextlib.suppress(OSError):  # another process uses it by now
                os.rmdir(folder)


def on_disk(array: Array, folder: str) -> Array:
    """Return a copy of a C-contiguous array in a file of this folder that has no name, or a small array itself."""
    import mmap  # noqa: PLC0415 (only here)

    if array.nbytes < _BLOCK:
        return array
    try:
        with tempfile.TemporaryFile(dir=folder, prefix="instep-") as file:
            file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            view = mmap.mmap(file.fileno(), array.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError as error:
        raise OSError(error.errno, error.strerror, folder) from None
    return np.frombuffer(view, np.uint8).view(array.dtype).reshape(array.shape)


def _make_folders(path: str) -> list[str]:
    """Make a folder and those above it; return those that were made, the innermost first."""
    made: list[str] = []
    above = path
    while not os.path.lexists(above):
        made.append(above)
        above = os.path.dirname(above)
    os.makedirs(path, exist_ok=True)
    return made


def _allocate(file: int, size: int, path: str) -> None:
    """Make sure that the disk has room for every byte, so that no step finds it full."""
    try:
        allocate: Any = getattr(os, "posix_fallocate", None)
        if allocate is not None:
            try:
                allocate(file, 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
            else:
                return
        zeros = memoryview(bytes(_BLOCK))
        for begin in range(0, size, _BLOCK):
            _write(file, zeros[: size - begin], begin)
    except OSError as error:
        what = f"{error.strerror}; the states need {size} bytes here"
        raise OSError(error.errno, what, path) from None


def _write(file: int, data: memoryview, begin: int) -> None:
    while data:
        written = os.pwrite(file, data, begin)
        data, begin = data[written:], begin + written
