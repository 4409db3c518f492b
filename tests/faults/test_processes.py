"""Forks, other ways to start processes, processes side by side, the end of the interpreter: docs/faults.md."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from interpreters import environment, output, run

import instep

HAS_OPENMP = instep.config()["openmp"]["version"] > 0
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
PASSING = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # of os.fork beside threads

# A program that steps with a team, and whose children do.
STEPS = """
    import hashlib, multiprocessing, os, sys
    import numpy as np
    import instep
    from instep import _core

    _core.testing.set_least_work(1)
    instep.set_num_threads(2)

    def grad(k):
        return np.random.default_rng(k).standard_normal(100_000).astype("f4")

    def make():
        return instep.Adam(np.random.default_rng(9).standard_normal(100_000).astype("f4"), clip_norm=1.0)

    def stepped(optimizer):
        '''Digest of the weights, whether this process was forked, its threads, its parallel regions.'''
        before = _core.testing.counters()["parallel_regions"]
        for k in range(3):
            optimizer.step(grad(k))
        regions = _core.testing.counters()["parallel_regions"] - before
        digest = hashlib.sha256(optimizer.params["0"].tobytes()).hexdigest()
        return digest, _core.forked(), instep.get_num_threads(), regions
"""


def program(folder: Path, main: str) -> Path:
    """A file, for children that import their parent's main module."""
    path = folder / "program.py"
    main = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), "    ")
    path.write_text(textwrap.dedent(STEPS) + main, encoding="utf-8")
    return path


def finish(process: subprocess.Popen[str], timeout: float = 60) -> str:
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def start(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment(**PASSING),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_start_methods(method: str, tmp_path: Path) -> None:
    """A pool whose parent has a live team: optimizers made there and optimizers sent there take the same steps."""
    path = program(
        tmp_path,
        """
        if sys.argv[1] not in multiprocessing.get_all_start_methods():
            sys.exit("absent")
        mine = stepped(make())
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            children = pool.map(stepped, [make(), make()])
        for digest, forked, threads, regions in [mine, *children]:
            print(digest, forked, threads, regions)
        """,
    )
    process = start(path, method)
    out, err = process.communicate(timeout=60)
    if "absent" in err:
        pytest.skip(f"no {method} on this system")
    assert process.returncode == 0, err
    parent, *children = (line.split() for line in out.splitlines())
    assert parent[1:3] == ["False", "2" if HAS_OPENMP else "1"]
    assert (int(parent[3]) > 0) == HAS_OPENMP
    for digest, forked, threads, regions in children:
        assert digest == parent[0]
        if forked == "True":  # fork, and a fork server that has imported the main module
            assert (threads, regions) == ("1", "0")
        else:
            assert method != "fork"
            assert (int(regions) > 0) == HAS_OPENMP


@needs_fork
def test_a_forked_child_says_how_many_threads_it_uses() -> None:
    code = """
        import os, instep
        instep.set_num_threads(2)
        child = os.fork()
        if child == 0:
            assert instep.get_num_threads() == 1
            instep.set_num_threads(3)
            assert instep.get_num_threads() == 1
            assert instep.config()["threads"]["used"] == 1
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(instep.get_num_threads())
    """
    assert output(code, **PASSING) == ("2" if HAS_OPENMP else "1")


@needs_fork
def test_a_fork_in_the_middle_of_a_step() -> None:
    """By a schedule: parent and child both finish the step, each on its own arrays."""
    code = """
        import os, numpy as np, instep
        children = []
        def rate(step):
            if step == 1:
                children.append(os.fork())
            return 1.0
        w = np.zeros(5)
        optimizer = instep.SGD(w, lr=rate)
        for _ in range(3):
            optimizer.step(np.ones(5))
        assert w.tolist() == [-3.0] * 5 and optimizer.step_count == 3
        if children[0] == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
    """
    output(code, **PASSING)


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Each with as many threads as there are cores, so that the teams are in each other's way."""
    path = program(tmp_path, "print([stepped(make()) for _ in range(20)])")
    both = [start(path) for _ in range(2)]
    first, second = (finish(process) for process in both)
    assert first == second
    assert len(set(first.split("'")[1::2])) == 1, "twenty times the same bits"


# ---- the end of the interpreter ----------------------------------------------------------------------

LONG = 'size = 20_000_000\noptimizer = instep.SGD(np.zeros(size, "f4"))\ng = np.ones(size, "f4")\n'
FOR_EVER = "def steps():\n    while True:\n        optimizer.step(g)\n"
DAEMON = FOR_EVER + "threading.Thread(target=steps, daemon=True).start()\ntime.sleep(0.05)\n"
SHORT = "optimizer = instep.Adam(np.zeros(9))\ng = np.ones(9)\n"
TEAM = (
    "_core.testing.set_least_work(1)\ninstep.set_num_threads(2)\n"
    'optimizer = instep.Adam(np.zeros(200_000, "f4"), ema_decay=0.5)\ng = np.ones(200_000, "f4")\n'
    "optimizer.step(g)\n"
)
CYCLE = (
    "class Tracked(np.ndarray):\n    def __del__(self):\n        self.optimizer.step(g)\n"
    "w = np.zeros(200_000).view(Tracked)\nw.optimizer = instep.SGD(w)\n"
)
ENDS = {
    "a live team": TEAM,
    "accumulated gradients and averages in the parameters' place": TEAM
    + "optimizer.accumulate(g)\nblock = optimizer.averaged()\nblock.__enter__()\n",
    "atexit": "import atexit\n"
    + TEAM
    + "atexit.register(optimizer.step, g)\natexit.register(lambda: optimizer.step(g))\n",
    "a cycle that steps when it is collected": TEAM + CYCLE,
    "a daemon thread in short steps": SHORT + DAEMON,
    "a daemon thread in long steps": LONG + DAEMON,
    "the same, and objects that step as the modules go": LONG
    + "class Last:\n    def __del__(self, step=optimizer.step, g=g):\n        step(g)\n"
    # The thread keeps what is in this module; another one goes.
    "from types import ModuleType\nsys.modules['own'] = ModuleType('own')\nsys.modules['own'].last = Last()\n"
    + DAEMON,
    "sys.exit in a schedule": "optimizer = instep.SGD(np.zeros(3), lr=lambda step: sys.exit(0))\n"
    "optimizer.step(np.ones(3))\n",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_the_end_of_the_interpreter(code: str) -> None:
    """It ends, in time and with status 0; a daemon thread that comes back from a step too late is no crash."""
    head = "import sys, threading, time, numpy as np, instep\nfrom instep import _core\n"
    said = ""
    for _ in range(4 if "size" in code else 1):  # with long steps it is a race
        done = run(head + code, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "terminate" not in done.stderr
        assert "Fatal" not in done.stderr
        said += done.stderr
    assert "class Last" not in code or "a step must come before the interpreter shuts down" in said
