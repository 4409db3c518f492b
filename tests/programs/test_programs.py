"""Whole programs as users write them: each runs, learns, and goes on to the same bits.

`nox -s lint` type-checks them as strictly as the package.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from interpreters import python

FOLDER = Path(__file__).parent
NEEDS = {
    "autograd_net": ["autograd"],
    "estimator": ["sklearn"],
    "processes_and_threads": ["joblib"],
    "reinforce": ["safetensors"],
}


def output(name: str, *arguments: str | Path) -> str:
    """What the program prints; its warnings are errors."""
    done = python("-W", "error", FOLDER / f"{name}.py", *arguments, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def told(text: str) -> dict[str, str]:
    """The lines that the program prints, each a label and what comes after the colon."""
    return dict(line.split(": ", 1) for line in text.splitlines())


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", text)]


def convolutional(lines: dict[str, str]) -> None:
    assert float(lines["accuracy"]) > 0.8
    assert float(lines["of the averages"]) > 0.8


def recurrent(lines: dict[str, str]) -> None:
    assert float(lines["loss before"]) == 1.0
    assert float(lines["loss after"]) < 0.05
    assert float(lines["right"]) > 0.98
    largest, rate = numbers(lines["largest norm, and rate at the end"])
    assert largest > 1.0, "there was something to clip"
    assert 0.0 < rate <= 0.01


def sparse_logistic(lines: dict[str, str]) -> None:
    right, large, _ = numbers(lines["l1 0.0, share right, weights above 0.1, of these matter"])
    assert right > 0.85
    assert large > 50
    again, few, matter = numbers(lines["l1 0.004, share right, weights above 0.1, of these matter"])
    assert again > right
    assert few < 20
    assert matter == 8


def evolution_strategies(lines: dict[str, str]) -> None:
    before, after = float(lines["reward before"]), float(lines["reward after"])
    assert before < -1.0
    assert after > -0.5
    assert lines["steps"] == "60"


def recommender(lines: dict[str, str]) -> None:
    assert float(lines["error before"]) > 1.0
    assert float(lines["error after"]) < 0.5
    assert lines["rows of the first batch"] == lines["users in it"]
    least, most, all_ = numbers(lines["steps of the rows"])
    assert 0 < least < most < all_ == 720


def autograd_net(lines: dict[str, str]) -> None:
    assert float(lines["accuracy before"]) < 0.3
    assert float(lines["accuracy after"]) > 0.95
    assert lines["parameters"] == "0.0 0.1 1.0 1.1 2.0 2.1"


def processes_and_threads(lines: dict[str, str]) -> None:
    assert lines.pop("one process's copy") == "3 4"
    assert set(lines.values()) == {"True"}
    assert list(lines) == ["threads", "processes", "goes on alike", "joblib"]


def estimator(lines: dict[str, str]) -> None:
    assert all(score > 0.7 for score in numbers(lines["SGD"]))
    best, score = numbers(lines["best rate and its score"])
    assert best == 0.05
    assert score > 0.8
    assert lines["fits alike"] == "True"
    assert lines["steps"] == "90"


def any_rule(lines: dict[str, str]) -> None:
    assert lines.pop("as in Careful") == "raise"
    assert lines.pop("refused").split() == [
        *("TypeError", "TypeError", "ValueError", "TypeError", "TypeError", "TypeError")
    ]
    assert list(lines) == ["SGD", "Momentum", "RMSprop", "Adam", "AdamW", "Careful"]
    assert set(lines.values()) == {"True 200"}


FINDINGS: dict[str, Callable[[dict[str, str]], None]] = {
    finding.__name__: finding
    for finding in (
        convolutional,
        recurrent,
        sparse_logistic,
        evolution_strategies,
        recommender,
        autograd_net,
        processes_and_threads,
        estimator,
        any_rule,
    )
}


def skip_without(name: str) -> None:
    for package in NEEDS.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def test_every_program_is_tested_and_short() -> None:
    programs = {path.stem: path for path in FOLDER.glob("*.py") if path != Path(__file__)}
    assert set(programs) == {*FINDINGS, "reinforce"}
    for name, path in programs.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, name


@pytest.mark.parametrize("name", FINDINGS)
def test_program(name: str) -> None:
    skip_without(name)
    FINDINGS[name](told(output(name)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_reinforce_killed_and_started_again(tmp_path: Path) -> None:
    skip_without("reinforce")
    whole = told(output("reinforce", tmp_path / "whole"))
    (mean, least) = numbers(whole["mean length"])
    assert least == 5
    assert mean < 8
    for episode, first in ((7, 0), (120, 100), (299, 275)):
        killed = python(FOLDER / "reinforce.py", tmp_path / "run", str(episode))
        assert (killed.returncode, killed.stderr) == (-9, "")
        again = told(output("reinforce", tmp_path / "run"))
        assert again.pop("goes on with episode") == str(first)
        assert again == whole
        (tmp_path / "run").unlink()
