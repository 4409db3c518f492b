"""Which machine this is, since when: for what must not be taken for another machine's."""

from __future__ import annotations

import hashlib
import platform

__all__ = ["boot_name", "host_mark"]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Linux has it


def boot_name() -> str | None:
    """Return a name for the present boot of this machine, None if the system has none."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return None


def host_mark() -> bytes:
    """Return 32 bytes that only processes of this host have: its name alone may be another host's, too."""
    return hashlib.sha256(f"{platform.node()}\n{boot_name()}".encode()).digest()
