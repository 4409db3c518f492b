"""Says what a run of `.ci/run` left out: `python tools/left_out.py REPORT... RUN.xml...`.

The reports are what sessions of nox printed, in which `machines` names those that it could not check. The .xml files
are those of `pytest --junitxml`: a test counts that was skipped in every run that had it, each reason once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]


def outcomes(run: Path) -> Iterator[tuple[str, str | None]]:
    """Tests of a run, and why each was skipped: None where it ran."""
    try:
        cases = ElementTree.parse(run).iter("testcase")
    except (OSError, ElementTree.ParseError):  # the run was ended before it wrote it
        return
    for case in cases:
        skipped = case.find("skipped")
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        yield name, None if skipped is None else (skipped.get("message") or "no reason given")


def skipped(runs: list[Path]) -> dict[str, list[str]]:
    """Reason -> tests that no run took."""
    found = [outcome for run in runs for outcome in outcomes(run)]
    ran = {name for name, reason in found if reason is None}
    # A module that is skipped as a whole is one entry; where it ran, its tests are.
    ran |= {name[: match.start()] for name in ran for match in re.finditer(r"\.", name)}
    reasons: dict[str, list[str]] = {}
    for name, reason in found:
        if reason is not None and name not in ran:
            tests = reasons.setdefault(reason, [])
            if name not in tests:
                tests.append(name)
    return reasons


def deselected() -> Iterator[str]:
    """Markers that pyproject.toml leaves out, with what it says about them."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for marker in re.findall(r'"-m", "not (\w+)"', settings):
        yield from re.findall(rf'"({marker}: [^"]*)"', settings)


def main(paths: list[Path]) -> None:
    lines = []
    for report in (path for path in paths if path.suffix != ".xml" and path.exists()):
        text = report.read_text(encoding="utf-8", errors="replace")
        lines += re.findall(r"(\S+ was not checked: .*)", text)
    runs = [path for path in paths if path.suffix == ".xml"]
    for reason, tests in sorted(skipped(runs).items()):
        files = sorted({re.sub(r"\.test_(\w+).*", r".test_\1", test) for test in tests})
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        number = "1 test" if len(tests) == 1 else f"{len(tests)} tests"
        lines.append(f"{number}: {reason} ({', '.join(files[:3])}{more})")
    lines += deselected()
    for line in dict.fromkeys(lines):
        print(f"left out: {line}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
