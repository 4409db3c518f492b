"""Shows that instep works in the environment that runs this, with NumPy alone: `python tools/try_wheel.py`.

Ends with a traceback where it doesn't. Run outside the source's python folder, so that it is the installed one.
"""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np

before = set(sys.modules)
import instep  # noqa: E402
from instep import _core  # noqa: E402


def main() -> None:
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    pythons = {*sys.stdlib_module_names, "_xxsubinterpreters"}  # which that list lacks
    others = new - pythons - {"instep", "numpy"}
    assert not others, f"importing instep imported {others}"

    versions = {importlib.metadata.version("instep"), instep.__version__, _core.__version__}
    assert len(versions) == 1, f"versions {versions}"
    assert np.float64(5e-324) * 1.0 > 0, "importing instep has switched subnormals off"

    rng = np.random.default_rng(0)
    w, g = rng.standard_normal((2, 2_000_001)).astype(np.float32)
    wanted = w.copy()
    for level in instep.isa_levels():
        instep.set_isa(level)
        for threads in (1, 2):
            instep.set_num_threads(threads)
            instep.SGD(w, lr=0.1).step(g)
            wanted -= np.float32(0.1) * g
            assert w.tobytes() == wanted.tobytes(), f"{level}, {threads} threads: other bits"
    config = instep.config()
    regions = _core.testing.counters()["parallel_regions"]
    assert regions > 0 or not config["openmp"]["version"], "no step went parallel"
    print(f"instep {versions.pop()}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    print(f"from {instep.__file__}")
    print(f"levels {config['isa']['supported']}; OpenMP {config['openmp']}")


if __name__ == "__main__":
    main()
