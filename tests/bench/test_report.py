"""A report of the benchmarks: measured pass after pass, judged by what was to be reached, shown on a page."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import bench_folder  # noqa: F401 - makes these modules importable
import pytest

pytest.importorskip("matplotlib")

page = importlib.import_module("page")
report = importlib.import_module("report")
results = importlib.import_module("results")
rows = importlib.import_module("rows")
targets = importlib.import_module("targets")


CORES = importlib.import_module("task").cores()


@pytest.fixture
def pieces() -> dict[str, Any]:
    """What one pass may find: instep is as fast as everybody, but for one."""
    one = {"median": 1e-3, "quartiles": [9e-4, 1.1e-3], "rounds": 9, "by instep": 1.0}
    names = {name: list(row.peers) for name, row in rows.ROWS.items()}
    of_any_machine = [*report.PIECES, *(f"step/{name}" for name in names)]
    scaling, loop = report.scaling, report.loop
    everyone = [*scaling.PEERS, "instep", "memory limit"]
    everyone += scaling.on_fewer_threads("instep", CORES)
    found: dict[str, Any] = {
        name: {"when": "2026-01-01 00:00 UTC", "versions": {}, "left out": {}}
        for name in dict.fromkeys(of_any_machine)
    }
    for name, piece in found.items():
        kind, _, what = name.partition("/")
        labels = {"step": names.get(what), "scaling": everyone}.get(kind)
        if kind == "loop":
            labels = [*loop.PEERS, loop.NO_STEP, loop.ONE_THREAD, loop.NO_FAULTS, *loop.LIMITS]
        if labels:
            piece["contestants"] = {label: dict(one) for label in labels}
        if kind == "torch":
            piece["load average"] = [0.5, 1.5]
            piece["rows"] = {
                row: {"contestants": {entry.label: dict(one) for entry in entries}}
                for row, entries in report.training.PIECES[what].items()
            }
    found["step/mlp"]["contestants"]["Numba"]["by instep"] = 0.5
    found["step/tiny"]["left out"] = {"optax": "ModuleNotFoundError: No module named 'optax'"}
    found["extras"] |= {
        "elements": 1000,
        "extras": {
            name: {"bytes": 1.5, "time": 1.5, "memory limit": 1.2, "reached": 0.9}
            for name in report.extras.EXTRAS
        },
    }
    one = {"time": 1.5, "an element": 5e-10, "states": 8, "moved": 28}
    formats = importlib.import_module("storage_formats").FORMATS
    found["storage"] |= {"elements": 1000, "formats": dict.fromkeys(formats, one)}
    found["call"]["steps"] = {"tiny, constant lr": 1e-6}
    found["threads"]["sizes"] = {"65,536": {"1 thread": 1e-4, "2 threads": 2e-4, "ratio": 0.5}}
    found["footprint"] |= {"import numpy": 0.1, "import instep": 0.01, "wheel": 500_000}
    return found


def test_every_target_finds_its_figures(pieces: dict[str, Any]) -> None:
    verdicts = targets.judge([pieces])
    assert len(verdicts) == len(targets.TARGETS) >= 20
    for verdict in verdicts:
        assert verdict.measured is not None, verdict.target.what
    met = {verdict.target.what: verdict.met for verdict in verdicts}
    assert met["wheel"]
    assert not met["tiny, Adam, against torch fused"]
    assert met["gpt2, Adam, against torch fused"]
    # A limit that takes half of instep's time leaves room for twice the ratio.
    pieces["step/gpt2"]["contestants"]["memory limit"]["by instep"] = 0.5
    at_best = {verdict.target.what: verdict.at_best for verdict in targets.judge([pieces])}
    assert at_best["gpt2, Adam, against torch fused"] == 2.0
    assert at_best["wheel"] is None
    # The limit itself has one that goes through the same arrays; in the loop the quicker of two.
    assert at_best["gpt2, Adam, of the memory limit"] == 0.5
    pieces["loop/64"]["contestants"]["memory limit, same arrays, 1 thread"]["by instep"] = 0.75
    pieces["loop/64"]["contestants"]["no step"]["by instep"] = 0.5
    at_best = {verdict.target.what: verdict.at_best for verdict in targets.judge([pieces])}
    assert at_best["loop, batch 64: an iteration / without a step"] == 1.5
    assert at_best["loop, batch 64: an iteration, against NumPy's at its best"] == 2.0
    kind = "Adam with clip_norm, ema_decay, copy_to float16: time / bytes"
    assert at_best[kind] == pytest.approx(1.2 / 1.5)
    # Of several the quickest counts.
    pieces["loop/64"]["contestants"]["NumPy in place"]["by instep"] = 0.5
    measured = {verdict.target.what: verdict.measured for verdict in targets.judge([pieces])}
    assert measured["loop, batch 64: an iteration, against NumPy's at its best"] == 0.5
    assert all(verdict.met is None for verdict in targets.judge([]))


def test_what_counts_is_the_median_of_the_passes(pieces: dict[str, Any]) -> None:
    passes = []
    for ratio, limit in ((0.9, 0.8), (26.0, 0.5), (30.0, 0.25)):
        one = json.loads(json.dumps(pieces))
        one["step/tiny"]["contestants"]["torch fused"]["by instep"] = ratio
        one["step/gpt2"]["contestants"]["memory limit"]["by instep"] = limit
        passes.append(one)
    del passes[0]["call"]
    at_best = {verdict.target.what: verdict.at_best for verdict in targets.judge(passes)}
    assert at_best["gpt2, Adam, against torch fused"] == 2.0
    verdict = targets.judge(passes)[0]
    assert verdict.met
    assert verdict.cells() == (
        "tiny, Adam, against torch fused",
        "at least 25 x",
        "26.00 x",
        "0.900 .. 30.00",
        "3",
        "-",
        "met (2 of 3)",
    )
    assert not targets.judge(passes[:1])[0].met
    assert targets.judge([])[0].cells()[2:] == ("-", "-", "0", "-", "not measured")


def test_the_page_says_where_instep_does_not_win(pieces: dict[str, Any], tmp_path: Path) -> None:
    machine = importlib.import_module("machine").describe()
    found = results.Results(tmp_path, machine)
    found.pieces = {name: [piece, piece] for name, piece in pieces.items()}
    page.write(tmp_path, found, targets.judge(found.passes))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| mlp | Numba | 0.50 | faster |" in text
    assert f"| loop, batch 64 | {report.loop.ONE_THREAD} | 1.00 | as fast |" in text
    assert "| 1,000,000 parameters | NumPy | 1.00 | as fast |" in text
    assert "| loop, batch 64 | no step |" not in text
    assert "| loop, batch 64 | memory limit" not in text
    assert "it missed: tiny, Adam, against torch fused; " in text
    assert "optax: ModuleNotFoundError: No module named 'optax'" in text
    assert "| measured | 2 passes, 2026-01-01 00:00 UTC |" in text
    assert "| torch/actor-critic/1, an iteration | torch fused | 1.00 | as fast |" in text
    assert "| torch/actor-critic/1, an iteration | no step |" not in text
    assert "| Muon | 1.00 ms | 1.00 |  |  | 1.00 ms | 1.00 |  |  |" in text
    assert "load averages from 0.5 to 1.5" in text
    assert machine["cpu"] in text
    assert "1,000 parameters: bytes moved" in text
    assert "| float32, 8-bit states | 8 | 28 | 0.50 ns | 1.50 |" in text
    assert text.startswith(f"# Benchmarks: {machine['cpu']}, {machine['cores']} cores\n")
    again = re.search(r"`python bench/report.py --all --folder (.+)` from", text)
    assert again is not None
    # Where that is run; a folder inside of it has a shorter name.
    root = Path(page.__file__).parents[1]
    assert (root / again[1]).resolve() == tmp_path.resolve()
    for name, row in rows.ROWS.items():
        assert f"| {row.rule or name} |" in text
    for picture in (page.STEPS, page.GROWTH, page.TRAINING):
        assert picture in text
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_report_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def piece(name: str) -> Any:
        return lambda _: log.append(name) or {"found": len(log)}

    monkeypatch.setattr(report, "PIECES", {name: piece(name) for name in "abc"})
    found = results.Results(tmp_path, {"build": "a"})
    plan = report.plan(found, [], passes=2)
    assert plan == [["a", "b", "c"], ["a", "b", "c"]]
    assert report.measure(found, plan, limit=-1.0) == ["a", "b", "c", "a", "b", "c"]
    assert log == []
    assert report.measure(found, [["b"], ["b"], ["a"]], limit=60.0) == []
    plan = report.plan(results.Results(tmp_path, {"build": "a"}), ["c"], passes=2)
    assert plan == [["c"], ["a", "c"]]
    log.clear()
    assert report.measure(found, report.plan(found, [], passes=2), limit=60.0) == []
    assert log == ["c", "a", "c"]
    assert report.plan(found, [], passes=2) == []


def test_threads_of_the_machine_that_was_measured(pieces: dict[str, Any], tmp_path: Path) -> None:
    machine = importlib.import_module("machine").describe() | {"cores": 2 * CORES}
    piece = pieces["scaling/1000"]
    label = report.scaling.on_threads("instep", 1)
    more = report.scaling.on_fewer_threads("instep", 2 * CORES)
    one = {"median": 2e-3, "quartiles": [1e-3, 3e-3], "rounds": 9, "by instep": 2.0}
    piece["contestants"] |= dict.fromkeys(more, one)
    found = results.Results(tmp_path, machine)
    found.pieces = {"scaling/1000": [piece]}
    page.write(tmp_path, found, targets.judge(found.passes))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert label in more
    assert f"| parameters | instep | {' | '.join(more)} | memory limit |" in text


def test_the_command_of_the_documentation_names_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(page.__file__).parents[1])
    where = page._command(Path("docs") / "benchmarks" / "zen3")
    assert where == "python bench/report.py --all --folder docs/benchmarks/zen3"


def test_results_of_another_machine_are_kept(
    tmp_path: Path,
    pieces: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = importlib.import_module("machine").describe()
    theirs = results.Results(tmp_path, machine | {"cpu": "another"})
    theirs.add("call", pieces["call"], ["call"])
    before = theirs.path.read_bytes()
    monkeypatch.setattr(report, "PIECES", {"call": lambda _: pieces["call"]})
    folder = ["report.py", "--folder", str(tmp_path)]
    for arguments in (["--all"], ["call"], ["--all", "--passes", "1"]):
        monkeypatch.setattr(sys, "argv", [*folder, *arguments])
        with pytest.raises(SystemExit):
            report.main()
        assert (
            "is of another machine or build; --all --again replaces it" in capsys.readouterr().err
        )
        assert theirs.path.read_bytes() == before
    # Page and pictures can be made of them anywhere.
    monkeypatch.setattr(sys, "argv", folder)
    assert report.main() == 0
    assert (tmp_path / "README.md").read_text("utf-8").startswith("# Benchmarks: another, ")
    assert theirs.path.read_bytes() == before
    monkeypatch.setattr(sys, "argv", [*folder, "--all", "--again", "--passes", "1"])
    assert report.main() == 0
    assert results.Results(tmp_path, {}).machine == machine


def test_the_command_measures_so_many_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["report.py", "--folder", str(tmp_path), *arguments])
        assert report.main() == 0
        return capsys.readouterr().out

    def kept() -> dict[str, int]:
        pieces = json.loads((tmp_path / "results.json").read_text("utf-8"))["pieces"]
        return {name: len(found) for name, found in pieces.items()}

    monkeypatch.setattr(report, "PIECES", {name: lambda _: {"found": 1.5} for name in "ab"})
    assert "left for the next run: a x 2, b x 2" in run("--all", "--passes", "2", "--limit", "-1")
    run("--all", "--passes", "2")
    assert kept() == {"a": 2, "b": 2}
    assert "| measured | 2 passes, " in (tmp_path / "README.md").read_text("utf-8")
    run("--all", "--passes", "1", "--again")
    assert kept() == {"a": 1, "b": 1}
    for wrong in (["--passes", "2"], ["--all", "--passes", "0"], ["c"]):
        with pytest.raises(SystemExit):
            run(*wrong)
        assert "error: " in capsys.readouterr().err
