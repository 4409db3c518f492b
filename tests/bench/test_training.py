"""Training in PyTorch: the models, who takes part in what, and that all of them train alike."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_folder
import pytest

pytest.importorskip("torch", reason="the benchmarks of instep.torch need PyTorch")

models = importlib.import_module("models")
programs = importlib.import_module("programs")
task = importlib.import_module("task")
training = importlib.import_module("training")


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [("actor-critic", 12, 9_155), ("transformer-160", 160, 668_352)],
)
def test_models_have_the_shapes_that_are_listed(name: str, tensors: int, parameters: int) -> None:
    found = [tuple(p.shape) for p in models.make(name).module.parameters()]
    assert sorted(found) == sorted(models.SHAPES[name])
    assert len(found) == tensors
    assert task.Task(name).elements == parameters
    assert all(len(shape) == 2 for shape in models.SHAPES[name + models.MATRICES])


LOSSES = """
import json, sys
sys.path.insert(0, {bench!r})
import models, programs
from task import Task
asked = json.loads(sys.stdin.read())
losses = {{}}
make = models.make
for who in asked["who"]:
    seen = []
    def noted(name):
        model = make(name)
        loss = model.loss
        def once(batch):
            found = loss(batch)
            seen.append(found.item())
            return found
        model.loss = once
        return model
    models.make = noted
    call = programs.call(who, Task(**asked["task"]))
    for _ in range(6):
        call()
    losses[who] = seen
print("RESULTS", json.dumps(losses))
"""


@pytest.mark.parametrize("program", [programs.ITERATION, programs.LOOP])
@pytest.mark.parametrize("which", training.TRAININGS, ids=lambda which: which.model)
def test_everybody_trains_alike(which: Any, program: str) -> None:
    """But for the one without a step, whose loss stays."""
    entries = training.PIECES[f"{which.model}/1"][program]
    asked = {"who": [e.label for e in entries], "task": entries[0].task.as_dict() | {"batch": 2}}
    done = subprocess.run(
        [sys.executable, "-c", LOSSES.format(bench=str(bench_folder.BENCH))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout.partition("RESULTS ")[2])
    still = losses.pop(training.NO_STEP)
    assert still == [still[0]] * 6
    first = losses["instep"]
    assert first[0] == still[0]
    assert abs(first[-1] - first[0]) > 1e-3
    for who, found in losses.items():
        assert found == pytest.approx(first, rel=1e-4, abs=1e-5), who


def test_who_takes_part() -> None:
    rules = training.PIECES["actor-critic/rules"]
    assert set(rules) == set(training.RULES)
    labels = {rule: {entry.label for entry in entries} for rule, entries in rules.items()}
    assert labels["Adam"] == {"instep", *training.TORCH}
    assert labels["Rprop"] == {"instep", *training.TORCH} - {"torch fused"}
    assert labels["Muon"] == {"instep", "torch default"}
    for threads in training.THREADS:
        rows = training.PIECES[f"transformer-160/{threads}"]
        assert {entry.task.threads for entries in rows.values() for entry in entries} == {threads}
        assert {"memory limit", "no step"}.isdisjoint(e.label for e in rows["an iteration"][:4])
        assert "memory limit" in {entry.label for entry in rows["a step"]}
        assert "no step" in {entry.label for entry in rows["an iteration"]}


def test_a_rule_of_pytorch_has_a_row() -> None:
    face = importlib.import_module("instep.torch")
    torch = importlib.import_module("torch")
    both = {n for n in face.__all__ if isinstance(getattr(torch.optim, n, None), type)}
    assert both == set(training.RULES)


def test_a_piece_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        name: [entry for entry in entries if entry.label in ("instep", "torch fused", "no step")]
        for name, entries in training.PIECES["actor-critic/1"].items()
    }
    monkeypatch.setitem(training.PIECES, "actor-critic/1", small)
    monkeypatch.setattr(training, "TURN", dict.fromkeys(training.TURN, 1e-4))
    found = training.measure("actor-critic/1", 1e-3, starts=1)
    assert found["left out"] == {}
    assert set(found["versions"]) == {"instep", "PyTorch"}
    assert list(found["rows"]) == list(programs.PROGRAMS)
    for name, row in found["rows"].items():
        assert set(row["contestants"]) == {entry.label for entry in small[name]}
    text = training.as_text("actor-critic/1", found)
    assert "torch fused" in text
    assert "load average" in text


def test_the_command_refuses_another_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training.py", "x"])
    with pytest.raises(SystemExit):
        training.main()
    assert "a piece must be one of actor-critic/1, " in capsys.readouterr().err


def test_reinforcement_learning_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="bench/hosts/torch_rl.py needs it")
    pytest.importorskip("gymnasium", reason="bench/hosts/torch_rl.py needs it")
    script, report = bench_folder.BENCH / "hosts" / "torch_rl.py", tmp_path / "report.json"
    arguments = ["--algorithm", "SAC", "--steps", "120", "--seeds", "0", "--json", str(report)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text("utf-8"))["rows"]
    assert list(found) == ["SAC on Pendulum-v1"]
    for row, contestants in found.items():
        assert row in done.stdout
        assert list(contestants) == ["torch default", "torch fused", "instep"]
        assert all(0 < one["in steps"] < one["seconds"] for one in contestants.values())
        assert len({one["steps"] for one in contestants.values()}) == 1
