"""Modules of the installed package instep by themselves, without the package around them.

Importing instep loads an OpenMP runtime and tells it to let idle threads sleep. A peer that uses the same library would
find that setting, and not be what its users get. So the processes of the peers load from the package only what is plain
Python: the timer, the workloads, the NumPy optimizer and network of the demonstration.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def folder() -> Path:
    spec = find_spec("instep")  # finds it, doesn't import it
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("instep is not installed: pip install .")
    return Path(spec.origin).parent


def module(name: str) -> ModuleType:
    """A module of instep that imports nothing of instep, by its name in the package."""
    alone = f"instep_alone.{name}"
    if alone not in sys.modules:
        path = folder().joinpath(*name.split(".")).with_suffix(".py")
        spec = spec_from_file_location(alone, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[alone] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[alone])
    return sys.modules[alone]


options = module("commands.bench.options")
turns = module("commands.bench.turns")
workloads = module("commands.bench.workloads")
