"""Python programs in processes of their own, with an environment that says nothing about threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

# Variables for a process in which coverage is not to be measured: the measurement allocates memory,
# and an exception that a signal raises inside it leaves its lock held.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}


def skip_what_llvms_openmp_does(openmp: dict[str, Any], value: str) -> None:
    """Skip the test if the runtime itself ends a process with this OMP_NUM_THREADS, or changes the number.

    LLVM's runtimes 14 and 16 abort on a value that is not a number, even in a program of three
    lines, and take 0 for 1.
    """
    if value in ("", "0", "-1", "abc") and "gomp" not in openmp["library"]:
        pytest.skip(f"LLVM's OpenMP itself deals with OMP_NUM_THREADS={value!r}")


def environment(**more: str) -> dict[str, str]:
    """This process's variables without those that decide about threads, and with these."""
    decides = ("OMP_", "INSTEP_", "GOMP_", "KMP_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(decides)}
    return {**clean, **more}


def python(
    *arguments: str | Path, timeout: float = 60, folder: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter with these arguments and variables; a hang raises TimeoutExpired."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run(code: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a fresh interpreter with these variables."""
    return python("-c", textwrap.dedent(code), timeout=timeout, **more)


def output(code: str, timeout: float = 60, **more: str) -> str:
    """The output of the program, which must end without an error."""
    done = run(code, timeout, **more)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    return done.stdout.strip()
