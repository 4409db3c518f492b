"""Fewer bytes: the training that docs/storage.md shows, and the rows of its speed."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_folder  # noqa: F401 - makes these modules importable
import numpy as np
import pytest
from bench_peers import check_peers

import instep

pytest.importorskip("matplotlib")
pytest.importorskip("ml_dtypes")
pytest.importorskip("sklearn")

choices = importlib.import_module("storage_choices")
formats = importlib.import_module("storage_formats")
nets = importlib.import_module("storage_nets")
rows = importlib.import_module("rows")
speed = importlib.import_module("storage_speed")
task = importlib.import_module("task")
traffic = importlib.import_module("traffic")
training = importlib.import_module("storage_training")

# --- The networks


@pytest.mark.parametrize("name", nets.PROBLEMS)
def test_gradients_are_those_of_the_loss(name: str) -> None:
    """By differences along the gradient of each parameter."""
    start = nets.PROBLEMS[name].start(0)
    data = next(start.batches)
    for parameter, w in start.net.params.items():
        if "bias" in parameter:
            w[...] = 0.01  # where pixels are 0, relu would be at its kink
    _, grads = start.net.loss_and_gradients(*data)
    assert grads.keys() == start.net.params.keys()
    for parameter, w in start.net.params.items():
        square, before = float(np.sum(grads[parameter] ** 2)), w.copy()
        losses = []
        for sign in (1, -1):
            w[...] = before + np.float32(sign * 3e-4 / math.sqrt(square)) * grads[parameter]
            losses.append(start.net.loss_and_gradients(*data)[0])
        w[...] = before
        slope = (losses[0] - losses[1]) / (2 * 3e-4)
        assert slope == pytest.approx(math.sqrt(square), rel=0.05), parameter


@pytest.mark.parametrize("name", nets.PROBLEMS)
def test_all_choices_of_a_seed_see_the_same(name: str) -> None:
    first, second, other = (nets.PROBLEMS[name].start(seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first.net.params.values(), second.net.params.values()))
    for _ in range(3):
        batch, same, another = (next(one.batches) for one in (first, second, other))
        assert all(map(np.array_equal, same, batch))
        assert not np.array_equal(another[0], batch[0])
    assert first.loss() == second.loss()
    assert max(w.size for w in first.net.params.values()) >= choices.LEAST_CODED


def test_the_text() -> None:
    text = nets.text()
    assert text.startswith("The Zen of Python")
    assert len(text) > 800


# --- What is compared


FOLLOWED = [name for name, setting in choices.SETTINGS.items() if setting.tracked]


@pytest.mark.parametrize("name", FOLLOWED)
def test_second_moments_are_followed_as_in_float32(name: str) -> None:
    setting, rng = choices.SETTINGS[name], np.random.default_rng(0)
    tracked = setting.tracked
    params = {"a": np.ones(5, np.float32), "b": np.ones((2, 3), np.float32)}
    optimizer = getattr(instep, setting.rule)(params, **setting.hyperparameters)
    for _ in range(4):
        grads = {k: rng.standard_normal(w.shape, dtype=np.float32) for k, w in params.items()}
        tracked.see(grads)
        optimizer.step(grads)
    for parameter, states in optimizer.state.items():
        np.testing.assert_allclose(tracked.values[parameter], states[tracked.state], rtol=1e-5)


@pytest.mark.parametrize("signed", [True, False])
def test_what_8_bits_keep(signed: bool) -> None:
    """As the package encodes; at random, each element goes to one of its two neighbours, without a bias."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((7, 41)) * 10.0 ** rng.integers(-8, 3, (7, 41))).astype("f4")
    values[3] = 0
    values = values if signed else values**2
    nearest = choices.through_8_bits(values, signed, None)
    ours = instep.storage.decode(*instep.storage.encode(values, signed=signed))
    np.testing.assert_allclose(nearest, ours, rtol=1e-6)
    drawn = [choices.through_8_bits(values, signed, rng) for _ in range(2_000)]
    roots = np.sqrt(np.abs(drawn)).mean(axis=0)
    kept = np.abs(nearest) > np.abs(values).max() / 100
    np.testing.assert_allclose(roots[kept], np.sqrt(np.abs(values[kept])), rtol=0.01)
    assert all(np.all(one[values == 0] == 0) for one in drawn)
    assert signed or all(np.all(one[values > 0] > 0) for one in drawn)


@pytest.mark.parametrize("name", choices.SETTINGS)
def test_every_choice_is_what_its_label_says(name: str) -> None:
    """By the arrays that its optimizer has after a step."""
    setting = choices.SETTINGS[name]
    for choice in setting.choices:
        params = {"w": np.ones((64, 64), np.float32)}
        stepper = choices.Stepper(setting, choice, params, {"lr": 1e-2}, seed=3)
        stepper.step({"w": np.ones((64, 64), np.float32)})
        states = stepper.optimizer.state["w"]
        kinds = {str(v.dtype) for k, v in states.items() if not k.endswith(("_unit", "remainder"))}
        for kind in ("bfloat16", "float16"):
            assert choice.label.startswith(f"{kind} states") == (kind in kinds), choice.label
        coded = "8-bit states" in choice.label or "previous_grad" in choice.label
        assert coded == bool(kinds & {"int8", "uint8"}), choice.label
        widths = {"remainder of 8 bits": "int8", "remainder of 16 bits": "int16"}
        wanted = [kind for label, kind in widths.items() if label in choice.label]
        assert [str(states[k].dtype) for k in states if k == "remainder"] == wanted
        assert ("bfloat16 parameters" in choice.label) == (stepper.stored["w"].itemsize == 2)
        assert np.array_equal(stepper.stored["w"].astype("f4"), params["w"]), "the net sees it"
        if name in FOLLOWED:
            tried = bool(choice.tried and choice.tried[0] == setting.tracked.state)
            narrow = tried or kinds != {"float32"}
            assert bool(stepper.narrow(setting.tracked.state)) == narrow, choice.label


def test_a_nudge_is_one_last_place() -> None:
    (setting, *_) = choices.SETTINGS.values()
    params = {"w": np.ones(3, np.float32)}
    choices.Stepper(setting, choices.NUDGED, params, {}, seed=0)
    assert params["w"].tolist() == [float(np.nextafter(np.float32(1), np.float32(2)))] * 3


def test_losses_by_those_of_float32() -> None:
    found = {
        "float32": {"losses": [1.0, 2.0, 3.0]},
        "near": {"losses": [1.1, 2.2, 3.3]},
        "far": {"losses": [4.0, 8.0, 12.0]},
        "never": {"losses": [4.0, math.nan, 12.0]},
    }
    near, far, never = (training.compared(found, label) for label in ("near", "far", "never"))
    assert (near.ratio, near.within, far.ratio, far.within) == (
        pytest.approx(1.1),
        True,
        4.0,
        False,
    )
    assert near.error == pytest.approx(0.0, abs=1e-12), "of seeds that agree"
    assert [training._loss(one) for one in (near, far, never)] == [
        "1.10 ± 0.00",
        "**4.00 ± 0.00**",
        "diverged",
    ]


# --- The page


def figures() -> Any:
    return json.loads((training.FOLDER / training.FIGURES).read_text(encoding="utf-8"))["figures"]


def test_the_figures_are_complete() -> None:
    found, lacking = figures(), []
    for name, setting in choices.SETTINGS.items():
        for problem in setting.problems:
            by_choice = found.get(name, {}).get(problem, {})
            assert all(len(one["losses"]) == training.SEEDS for one in by_choice.values())
            labels = {choice.label for choice in setting.choices}
            assert by_choice.keys() <= labels
            lacking += [f"{name}, {problem}"] if by_choice.keys() < labels else []
    if lacking:
        pytest.skip(f"python bench/storage_training.py has to measure {'; '.join(lacking)}")


def test_the_page_has_the_tables_of_the_figures(tmp_path: Path) -> None:
    text = (training.FOLDER / training.PAGE).read_text(encoding="utf-8")
    (tmp_path / training.PAGE).write_text(text, encoding="utf-8")
    training.write(tmp_path, figures())
    assert (tmp_path / training.PAGE).read_text(encoding="utf-8") == text
    if training.PICTURE in text:
        assert (tmp_path / training.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_short_run_writes_the_page_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (training.FOLDER / training.PAGE).read_text(encoding="utf-8")
    (tmp_path / training.PAGE).write_text(text, encoding="utf-8")
    arguments = ["storage_training.py", "--quick", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    training.main()
    first = capsys.readouterr().out
    once = json.loads((tmp_path / training.FIGURES).read_text(encoding="utf-8"))["figures"]
    assert first.count(" s\n") == sum(
        len(by_choice) for by_problem in once.values() for by_choice in by_problem.values()
    )
    assert (tmp_path / training.PAGE).read_text(encoding="utf-8") != text
    training.main()
    assert capsys.readouterr().out == "", "nothing is lacking"
    for name in ("AdamW, beta2 0.95", "Momentum"):
        setting = choices.SETTINGS[name]
        again = training.run(nets.PROBLEMS["digits"], setting, setting.choices[-1], 0, 3)
        losses = once[name]["digits"][setting.choices[-1].label]["losses"]
        assert losses == [again.loss], "the same numbers again"
    monkeypatch.setattr(sys, "argv", arguments[:2])
    with pytest.raises(SystemExit):
        training.main()


# --- Speed


@pytest.mark.parametrize(
    ("name", "passes", "width", "streams"),
    [
        ("8bit", [(10, 6)], 2, [(5, 3)]),
        ("bfloat16-states", [(12, 8)], 4, [(3, 2)]),
        ("bfloat16-remainder-8bit", [(7, 5)], 1, [(3, 2), (4, 3)]),
        ("bfloat16-stochastic-8bit", [(6, 4)], 2, [(3, 2)]),
    ],
)
def test_bytes_of_a_step(name: str, passes: Any, width: int, streams: Any) -> None:
    asked = formats.FORMATS[name].of(task.Task("tiny", rule="AdamW"))
    assert traffic.passes_of(asked) == passes
    found = traffic.in_streams(passes)
    assert (found[0], sorted(found[1])) == (width, sorted(streams))


def test_the_arithmetic_is_that_of_all_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = importlib.import_module("peers").PEERS["arithmetic"]
    assert not peer.needs_arrays
    asked = task.Task("600000", rule="AdamW", state_dtype="bfloat16", threads=2)
    call = peer.start(asked, []).call([])
    call()
    monkeypatch.setattr("peers.arithmetic.turns.pace", lambda step, seconds: (step(), seconds)[1])
    assert call.turn(0.5) == 0.5 * 600_000 / 60_000 / 2


def test_the_rows_of_a_machine() -> None:
    report, cores = importlib.import_module("report"), task.cores()
    for name, row in rows.ROWS.items():
        assert (f"step/{name}" in report.PIECES) == ((row.task.threads or 1) <= cores)
    names = [name for name in rows.ROWS if name.endswith("-threads")]
    assert len(names) == len(formats.OF_LARGE) * len(formats.THREADS)
    assert not set(rows.EIGHT_BITS) & set(rows.EVERYONE)
    assert rows.ROWS["gpt2-8bit-peers"].brief


COARSE = 2.5e-3  # less than three steps


@pytest.mark.parametrize("peer", rows.EIGHT_BITS)
def test_peers_take_about_the_same_step(peer: str) -> None:
    """As in float32; small elements beside a large one have coarse states in 8 bits."""
    asked = task.Task("16384", rule="AdamW", state_dtype="8bit")
    float32 = replace(asked, state_dtype=None)
    check_peers(peer, {peer: (peer, asked, float32, COARSE)})


def test_torch_takes_about_the_step_of_narrow_states() -> None:
    asked = {}
    for row in rows.ROWS.values():
        if row.task.threads and row.task.dtype == "float32" and "torch fused" in row.peers:
            small = {"workload": "8192", "threads": 1}
            their = replace(row.peer_tasks["torch fused"], **small)
            tolerance = COARSE if row.task.state_dtype == "8bit" else 3e-4
            asked[row.name] = ("torch fused", their, replace(row.task, **small), tolerance)
    assert len(asked) == 2 * len(formats.THREADS)
    check_peers("torch", asked)


def test_the_speed_in_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "TURN", 1e-6)
    path = tmp_path / "found.json"
    page = tmp_path / "page.md"
    page.write_text("<!-- speed: here -->\n<!-- end of speed -->\n", encoding="utf-8")
    options = ["--elements", "5000", "--seconds", "0.001", "--json", str(path), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["storage_speed.py", *options])
    speed.main()
    told, found = capsys.readouterr().out, json.loads(path.read_text("utf-8"))
    assert found["formats"].keys() == formats.FORMATS.keys()
    assert found["formats"]["float32"] | {"an element": 0} == {
        "time": 1.0,
        "an element": 0,
        "states": 8,
        "moved": 28,
    }
    counts = {name: (one["states"], one["moved"]) for name, one in found["formats"].items()}
    assert counts["8bit"] == (2, 16)
    assert counts["bfloat16-remainder-8bit"] == (3, 12)
    assert all(one["time"] > 0 for one in found["formats"].values())
    assert "5,000 elements" in told
    assert "| float32, 8-bit states | 2 | 16 |" in page.read_text(encoding="utf-8")
    assert all(stored.title in told for stored in formats.FORMATS.values())
    assert speed.section({}) == ""
