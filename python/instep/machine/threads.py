"""The number of threads that a step uses."""

import math
import os
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

from instep import _core
from instep._support.wording import shown

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

_MOST_THREADS = 1024
_own_default = 0  # INSTEP_NUM_THREADS as it was at import; 0: it was not set


def _cpu_quota(root: str = "/") -> float:
    """CPUs that this process's cgroup (version 2 or 1) grants; infinity without a limit."""
    quota = math.inf
    try:
        lines = _read(root, "proc/self/cgroup").split("\n")
    except OSError:
        return quota
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not path:  # the end, or a line that Linux doesn't write
            continue
        if controllers == "":
            mount, read = "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # The limit of every group above applies, too. In a container, the path may not exist below
        # the container's mount.
        names = [name for name in path.split("/") if name]
        for depth in range(len(names) + 1):
            quota = min(quota, read(os.path.join(root, mount, *names[:depth])))
    return quota


def _read(*path: str) -> str:
    with open(os.path.join(*path), "rb") as file:
        return os.fsdecode(file.read())  # a group's name may have any bytes, as a file's name


def _quota_v2(folder: str) -> float:
    try:
        granted, period = _read(folder, "cpu.max").split()
        return math.inf if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError, ArithmeticError):
        return math.inf


def _quota_v1(folder: str) -> float:
    try:
        granted, period = (int(_read(folder, f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        return math.inf if granted <= 0 else granted / period
    except (OSError, ValueError, ArithmeticError):
        return math.inf


def available_cpus(root: str = "/") -> int:
    """CPUs this process may run on, by its affinity and its cgroup's quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    # With more threads than the quota, the system would stop all of them for the rest of each
    # period.
    return max(1, math.floor(min(_cpu_quota(root), cpus)))


def _checked(count: object, who: str) -> int:
    expected = f"a whole number from 1 to {_MOST_THREADS}"
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"{who} must be {expected}, got {shown(count)}")
    number = int(count.__index__())
    if not 1 <= number <= _MOST_THREADS:
        raise ValueError(f"{who} must be {expected}, got {number}")
    return number


def _threads_from_environment() -> int | None:
    text = os.environ.get("INSTEP_NUM_THREADS")
    if not text:  # an empty value counts as not set, as in shells
        return None
    # Stricter than int, which takes "1_0" and the digits of every script.
    number = int(text) if re.fullmatch("[0-9]{1,9}", text.strip()) else 0
    if not 1 <= number <= _MOST_THREADS:
        raise ValueError(
            f"the environment variable INSTEP_NUM_THREADS must be a whole number from 1 to "
            f"{_MOST_THREADS}, got {reprlib.repr(text)}"
        )
    return number


def start() -> None:
    global _own_default  # noqa: PLW0603
    _own_default = _threads_from_environment() or 0
    _core.set_default_threads(min(available_cpus(), _MOST_THREADS))
    set_num_threads(None)


def set_num_threads(n: int | None) -> None:
    """Let a step use at most n threads, in this process and from now on.

    The result of a step is the same, bit for bit, at any number of threads. Small steps stay on
    the calling thread whatever n is.

    Parameters
    ----------
    n : int or None
        From 1 to 1024. None restores the default: the environment variable ``INSTEP_NUM_THREADS``.
        Without it, the default is the least of these: ``OMP_NUM_THREADS``, the number of CPUs in
        the calling thread's affinity (at the import and now), and the quota of the process's
        cgroup.

    Raises
    ------
    TypeError, ValueError
        If n is not such a number.

    Examples
    --------
    >>> import instep
    >>> instep.set_num_threads(1)
    >>> instep.get_num_threads()
    1
    >>> instep.set_num_threads(None)
    """
    _core.set_threads(_own_default if n is None else _checked(n, "n"))


def get_num_threads() -> int:
    """Return the number of threads that a long step on this thread uses.

    This is the number last given to `set_num_threads`, or the default described there; limits set
    by threadpoolctl apply, too. It is never more than the OpenMP runtime grants
    (``OMP_THREAD_LIMIT``). It is always 1 where steps stay on the calling thread: in a build
    without OpenMP, in a forked child, inside a parallel region of the same runtime.

    Examples
    --------
    >>> import instep
    >>> instep.get_num_threads() >= 1
    True
    """
    return _core.threads()


@contextmanager
def num_threads(n: int | None) -> Iterator[None]:
    """Let steps use at most n threads inside a ``with`` block, in the whole process.

    Parameters
    ----------
    n : int or None
        As for `set_num_threads`. At the end of the block, the previous number is restored.

    Raises
    ------
    TypeError, ValueError
        As `set_num_threads`.

    Examples
    --------
    >>> import instep
    >>> with instep.num_threads(1):
    ...     instep.get_num_threads()
    1
    """
    before = _core.wanted_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        _core.set_threads(before)
