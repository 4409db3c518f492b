"""The machine and the build that figures come from."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import package
from task import cores


def describe() -> dict[str, Any]:
    """What to state beside figures; equal for runs whose figures may stand in one table."""
    import instep  # noqa: PLC0415 - a peer's process describes nothing

    config = instep.config()
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "caches": _caches(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "numpy": config["numpy"],
        "instep": config["version"],
        "build": _build(),
        "compiler": config["compiler"],
        "isa": config["isa"]["used"],
        "threads": config["threads"]["used"],
        "idle threads": config["openmp"]["idle_threads"],
    }


def _cpu() -> str:
    """Its name and, as a virtual machine's may say little, family and model, by which its microarchitecture goes."""
    said: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            said.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = said.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in said or "model" not in said:
        return name
    return f"{name} (family {said['cpu family']}, model {said['model']})"


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


def _build() -> str:
    """A digest of the installed package: other code, other figures."""
    digest = hashlib.sha256()
    root = package.folder()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".so", ".pyd"):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
