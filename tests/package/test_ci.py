"""What .ci/run says that it left out, with everything that it calls replaced."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci/run"

pytestmark = pytest.mark.skipif(
    not CI.exists() or sys.platform != "linux", reason=".ci/run is for clones, on Linux"
)

TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "dirname",
    "env",
    "grep",
    "id",
    "mktemp",
    "nice",
    "rm",
    "timeout",
)

# Makes an environment whose programs are those in stubs/, and runs tools/left_out.py.
PYTHON = """#!/bin/bash
if [ "$1" != -m ]; then exec {python} "$@"; fi
{mkdir} -p "$3/bin" && cp {stubs}/* "$3/bin"
"""
PIP = "#!/bin/bash\nexit 0\n"
SCCACHE = "#!/bin/bash\nexit 1\n"
PYTEST = """#!/bin/bash
path=${PYTEST_ADDOPTS#--junitxml=}
echo '<testsuites><testsuite>
<testcase classname="tests.a.test_one" name="test_a"/>
<testcase classname="tests.a.test_one" name="test_b[v4]"><skipped message="no v4"/></testcase>
<testcase classname="tests.a.test_one" name="test_b[v5]"><skipped message="no v4"/></testcase>
<testcase classname="tests.a.test_two" name="test_c"><skipped message="not a repaired wheel"/></testcase>
<testcase classname="" name="tests.a.test_three"><skipped message="no peer"/></testcase>
</testsuite></testsuites>' >"$path"
echo "1 passed, 4 skipped"
exit ${FAILS:-0}
"""
# The niced sessions go on while the tests run.
NOX = """#!/bin/bash
last=${!#}
case "$*" in
*machines*) echo "nox > [2026] s390x was not checked: it needs the package qemu-user" ;;
*serial*) echo '<testsuites><testsuite><testcase classname="" name="tests.a.test_one"><skipped message="no OpenMP"/>
</testcase></testsuite></testsuites>' >"${last#--junitxml=}" ;;
*wheel*) echo '<testsuites><testsuite><testcase classname="tests.a.test_two" name="test_c"/>
</testsuite></testsuites>' >"${last#--junitxml=}" ;;
esac
"""
APT = """#!/bin/bash
echo "$*" >>apt.log
exit ${APT_FAILS:-0}
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with nothing but what .ci/run reads, and in bin/ all programs that there are."""
    for name in (".ci/run", "README.md", "pyproject.toml", "tools/left_out.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stubs, programs = tmp_path / "stubs", tmp_path / "bin"
    for name, text in {"pip": PIP, "sccache": SCCACHE, "pytest": PYTEST, "nox": NOX}.items():
        program(stubs / name, text)
    python = PYTHON.format(python=sys.executable, stubs=stubs, mkdir=shutil.which("mkdir"))
    program(programs / "python3", python)
    program(programs / "apt-get", APT)
    program(programs / "sudo", '#!/bin/bash\nshift\nexec "$@"\n')
    for name in TOOLS:
        (programs / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def ci(clone: Path, **variables: str) -> tuple[int, list[str]]:
    """Exit status and lines of what is printed."""
    done = subprocess.run(
        [clone / ".ci/run"],
        env={"PATH": str(clone / "bin"), "TMPDIR": str(clone), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_the_last_lines_say_what_was_left_out(clone: Path) -> None:
    """By name; and nothing that another of its runs did."""
    status, lines = ci(clone)
    assert status == 0
    assert "1 passed, 4 skipped" in lines
    assert [line for line in lines if line.startswith("left out")] == lines[-4:]
    assert lines[-4:-1] == [
        "left out: s390x was not checked: it needs the package qemu-user",
        "left out: 1 test: no peer (tests.a.test_three)",
        "left out: 2 tests: no v4 (tests.a.test_one)",
    ]
    assert lines[-1].startswith("left out: large_memory: needs")


def test_they_come_where_a_step_fails(clone: Path) -> None:
    status, lines = ci(clone, FAILS="3")
    assert status == 3
    assert "left out: 2 tests: no v4 (tests.a.test_one)" in lines[-6:]
    assert lines[-1] == "left out: whatever comes after the step that failed"


DEBIAN = Path("/etc/os-release").exists() and any(
    line.startswith(("ID=", "ID_LIKE=")) and ("debian" in line or "ubuntu" in line)
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
)


@pytest.mark.skipif(not DEBIAN, reason="Debian and Ubuntu have the packages")
@pytest.mark.parametrize("fails", ["0", "100"])
def test_emulators_are_installed_where_that_can_be(fails: str, clone: Path) -> None:
    """And are no failure where not."""
    status, lines = ci(clone, APT_FAILS=fails)
    asked = (clone / "apt.log").read_text(encoding="utf-8").splitlines()
    assert status == 0
    assert "update" in asked[0]
    assert asked[1].endswith("qemu-user g++-aarch64-linux-gnu g++-s390x-linux-gnu")
    assert any(line.startswith("left out: s390x") for line in lines)


def test_a_machine_that_has_them_installs_nothing(clone: Path) -> None:
    for name in ("qemu-s390x", "aarch64-linux-gnu-g++", "s390x-linux-gnu-g++"):
        program(clone / "bin" / name, PIP)
    assert ci(clone)[0] == 0
    assert not os.path.exists(clone / "apt.log")


def test_a_machine_without_apt(clone: Path) -> None:
    (clone / "bin/apt-get").unlink()
    assert ci(clone)[0] == 0


def test_one_list_of_pythons() -> None:
    """What is tested here, built and tested as wheels, and said to be supported."""

    def found(name: str, pattern: str) -> list[str]:
        return re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"))

    supported = found("pyproject.toml", r'"Programming Language :: Python :: (3\.\d+)"')
    assert [f"3{minor}" for minor in found("pyproject.toml", r'"cp3(\d+)-\*"')] == [
        version.replace(".", "") for version in supported
    ]
    (pythons,) = found("noxfile.py", r"@nox.session\(python=\[(.*?)\]")
    assert re.findall(r"3\.\d+", pythons) == supported
    assert set(found(".github/workflows/tests.yml", r'"(3\.\d+)"')) == set(supported)
    assert f"CPython {supported[0]} to {supported[-1]}" in " ".join(found("CHANGELOG.md", r"\S+"))
