"""States in files beside states in memory: the time of a step and the peak memory, each in a process of its own.

python bench/state_storage.py [--elements 100e6] [--rule Adam] [--folder FOLDER] [--steps 8] [--cold]

With --cold the system's cache of files is emptied before every step (as root, on Linux), so that each step reads from
the disk, as with states that are larger than memory. The times are medians after the first step, which is shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import instep
from tables import duration

MEGABYTE = 1e6


def peak() -> float:
    """The most memory that this process has held so far, without what it maps of files, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def empty_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    size = int(arguments.elements)
    params = np.ones(size, np.float32)
    grad = np.full(size, 1e-3, np.float32)
    before = peak()
    optimizer = getattr(instep, arguments.rule)(params, state_storage=arguments.worker or None)
    states = sum(array.nbytes for array in optimizer.state["0"].values())
    times = []
    for _ in range(arguments.steps + 1):
        if arguments.cold:
            empty_cache()
        start = time.perf_counter()
        optimizer.step(grad)
        times.append(time.perf_counter() - start)
    return {"states": states, "memory": peak() - before, "times": times}


def measured(arguments: list[str], folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments, "--worker", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def row(name: str, found: dict[str, Any], plain: dict[str, Any]) -> str:
    first, *later = found["times"]
    usual, other = statistics.median(later), statistics.median(plain["times"][1:])
    moved = 2 * found["states"] / usual / 1e9
    return (
        f"| {name} | {found['states'] / MEGABYTE:.0f} MB | {found['memory']:.0f} MB | {duration(first)} "
        f"| {duration(usual)} | {usual / other:.1f} | {moved:.1f} GB/s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--elements", type=float, default=100e6)
    parser.add_argument("--rule", default="Adam")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(worker(arguments)))
        return
    plain = measured(sys.argv[1:], "")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        stored = measured(sys.argv[1:], folder)
    print(
        "| states | size | memory beside parameters and gradient | first step | step | ratio | read and written |"
    )
    print("|---|---|---|---|---|---|---|")
    print(row("in memory", plain, plain))
    print(row("in files", stored, plain))


if __name__ == "__main__":
    main()
