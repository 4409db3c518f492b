"""The configuration: what was compiled, what this machine supports, what is used."""

import importlib.util
from typing import Any

import numpy as np

from instep import _core
from instep.machine.isa import isa_levels
from instep.machine.threads import available_cpus, get_num_threads

__all__ = ["config"]

_idle_threads = "unknown"
_FORMATS = ("float64", "float32", "float16", "bfloat16", "8bit")


def set_idle_threads(how: str) -> None:
    global _idle_threads  # noqa: PLW0603 - said once, while the package is imported
    _idle_threads = how


def _has_bfloat16() -> bool:
    return importlib.util.find_spec("ml_dtypes") is not None


def config() -> dict[str, Any]:
    """Return what was compiled, what this machine supports and what is used.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``pybind11``, ``numpy``; under ``isa`` the levels ``compiled``
        and ``supported``, the level ``used``, and the compiler's ``target`` for it; under
        ``formats`` the formats in which states may be stored (bfloat16 if ml_dtypes is installed); under
        ``threads`` the number ``used`` by long steps, the CPUs ``available``, and whether the
        process was ``forked`` (then steps stay on the calling thread); under ``openmp`` the
        ``version`` compiled against (0 without OpenMP), the ``library`` loaded, and how
        ``idle_threads`` wait.

    Examples
    --------
    >>> import instep
    >>> instep.config()["version"] == instep.__version__
    True
    """
    build = _core.build()
    return {
        "version": build["version"],
        "compiler": build["compiler"],
        "pybind11": build["pybind11"],
        "numpy": np.__version__,
        "isa": {
            "compiled": tuple(_core.compiled_levels()),
            "supported": isa_levels(),
            "used": _core.level(),
            "target": _core.level_target(),
        },
        "formats": tuple(name for name in _FORMATS if name != "bfloat16" or _has_bfloat16()),
        "threads": {
            "used": get_num_threads(),
            "available": available_cpus(),
            "forked": _core.forked(),
        },
        "openmp": {
            "version": build["openmp"],
            "library": build["openmp_library"],
            "idle_threads": _idle_threads,
        },
    }
