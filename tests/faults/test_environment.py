"""Variables and files of the system with whatever may be in them: docs/faults.md."""

from __future__ import annotations

import builtins
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreters import output, run
from openmp import HAS_OPENMP

import instep
from instep import checkpoint
from instep.machine.threads import _cpu_quota

LIBRARY = instep.config()["openmp"]["library"]
ODD = b"caf\xe9\x85\x0b"  # no UTF-8, and where str.splitlines would break a line

# Every file of the system that is read while the package is imported.
IMPORT = """
    import builtins, io, sys
    def odd_files(path, *arguments, **keywords):
        if str(path).startswith(("/proc/self/", "/sys/fs/cgroup")):
            read.append(path)
            file = io.BytesIO({content!r})
            return file if "b" in str(arguments) + str(keywords) else io.TextIOWrapper(file, "utf-8")
        return opened(path, *arguments, **keywords)
    opened, builtins.open, read = open, odd_files, []
    import instep
    print(instep.get_num_threads() >= 1, "/proc/self/cgroup" in read)
"""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\xff\xfe\x00",
        b"no colon\n",
        b"0:\n0::\n",
        b"0::/" + ODD + b"\n",
        b"1:cpu:/" + ODD + b"\n0::/\n",
        b"7f00-7f01 r-xp 0000 00:00 1 /" + ODD + b"/libgomp.so.1\n",
        b"9" * 5000 + b" 1\n",
        b"9" * 4000 + b" 1\n",
    ],
    ids=lambda content: ascii(content[:20]),
)
def test_files_of_the_system_with_anything_in_them(content: bytes) -> None:
    assert output(IMPORT.format(content=content)) == "True True"


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are bytes of any kind")
@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_a_group_whose_name_is_no_text(version: int, tmp_path: Path) -> None:
    name = os.fsdecode(ODD)
    (tmp_path / "proc/self").mkdir(parents=True)
    line = b"0::/" if version == 2 else b"3:cpuset:/\n2:cpu,cpuacct:/"
    (tmp_path / "proc/self/cgroup").write_bytes(line + ODD + b"\n")
    folder = tmp_path / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/cpu") / name
    folder.mkdir(parents=True)
    if version == 2:
        (folder / "cpu.max").write_text("150000 100000\n", encoding="ascii")
    else:
        (folder / "cpu.cfs_quota_us").write_text("150000\n", encoding="ascii")
        (folder / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    assert _cpu_quota(str(tmp_path)) == 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are bytes of any kind")
@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
@pytest.mark.skipif(".libs" in LIBRARY, reason="a repaired wheel's lies in the package")
def test_a_library_in_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    """The OpenMP runtime. From Python 3.13 on, Python itself imports no compiled module from there."""
    folder = tmp_path / os.fsdecode(ODD)
    folder.mkdir()
    shutil.copy(LIBRARY, folder)
    code = """
        import os, instep
        openmp = instep.config()["openmp"]
        assert os.path.dirname(os.path.realpath(openmp["library"])) == os.environ["LD_LIBRARY_PATH"]
        print(openmp["idle_threads"])
    """
    assert output(code, LD_LIBRARY_PATH=str(folder.resolve())) == "asleep soon after a step"


def test_the_boots_name_may_be_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(path: Any, *arguments: Any, **keywords: Any) -> Any:
        if str(path).endswith("boot_id"):
            path = tmp_path / "boot_id"
        return opened(path, *arguments, **keywords)

    (tmp_path / "boot_id").write_bytes(b"\xff\xfe" + ODD)
    opened = open
    monkeypatch.setattr(builtins, "open", odd)
    optimizer = instep.SGD(np.ones(3))
    checkpoint.save(tmp_path / "run.safetensors", optimizer)
    checkpoint.load(tmp_path / "run.safetensors", optimizer)


@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "asleep soon"),
        (" ", "asleep soon"),
        ("0" * 5000, "as the environment says"),
        ("9" * 5000, "as the environment says"),
        ("\u0663", "as the environment says"),
        ("\udcff", "as the environment says"),
        ("1k", "as the environment says"),
    ],
    ids=lambda value: ascii(value[:10]),
)
def test_a_spin_count_with_anything_in_it(value: str, said: str) -> None:
    code = """
        import os, instep
        print(instep.config()["openmp"]["idle_threads"].encode("ascii", "backslashreplace").decode())
        print(os.environ["GOMP_SPINCOUNT"] == os.environ["SAME"])
    """
    first, second = output(code, GOMP_SPINCOUNT=value, SAME=value).splitlines()
    assert first.startswith(said)
    assert second == "True"


@pytest.mark.parametrize("value", ["x86-64-v9", " ", "\udcff", "\u0663", "v" * 5000])
def test_an_instruction_set_that_is_none(value: str) -> None:
    done = run("import instep", INSTEP_ISA=value)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: the environment variable INSTEP_ISA: ")
