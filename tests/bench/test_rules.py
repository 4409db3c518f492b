"""A row a rule: every rule has them, with the bytes that it moves, beside whoever has the same rule."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import bench_folder  # noqa: F401 - makes these modules importable
import numpy as np
import pytest
from bench_peers import check_peers
from interpreters import output

import instep

rows = importlib.import_module("rows")
traffic = importlib.import_module("traffic")
FORMS = {"torch loop", "torch foreach", "torch fused"}
MANY_STREAMS = ["Adan", "Prodigy"]  # more than the loop of the memory limit goes through together
# Larger than in the rows, so that a difference shows. Prodigy's steps are d times as long, and d begins at 1e-6.
RATES = {"Prodigy": 2e3}
LARGE = {label: row for (label, workload), row in rows.RULES.items() if workload == "gpt2"}


def classes() -> dict[str, type[instep.Optimizer]]:
    public = {name: getattr(instep, name) for name in instep.__all__}
    return {n: c for n, c in public.items() if isinstance(c, type) and getattr(c, "_rule", "")}


def test_every_rule_has_its_rows() -> None:
    for name, rule in classes().items():
        if name in rows.rules():
            assert (name, "mlp") in rows.RULES
            assert (name, "gpt2") in rows.RULES
        else:
            rule(np.zeros((2, 2)))
            with pytest.raises(ValueError, match="two axes"):
                rule(np.zeros(2))
    assert rows.RULES["Adam", "gpt2"] is rows.ROWS["gpt2"]
    assert rows.RULES["RMSprop", "mlp"] is rows.ROWS["mlp-rmsprop"]
    assert rows.RULES["Adam with clip_update", "mlp"] is rows.ROWS["mlp-adam-clip-update"]


def test_a_rule_for_matrices_alone_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, params: Any) -> None:
        raise ValueError("parameter '0' must have two axes")

    monkeypatch.setattr(instep.Lion, "__init__", refuse)
    assert set(LARGE) - set(rows.rules()) == {"Lion", "Adam with clip_update"}
    assert "Muon" not in LARGE


def test_who_takes_part_beside_a_rule() -> None:
    same = "memory limit, same arrays"
    ours = {"instep", "memory limit", same}
    peers = {label: set(row.peers) - ours for label, row in LARGE.items()}
    assert peers["NAdam"] == {"torch loop", "torch foreach", "optax"}
    assert peers["Adagrad"] == {*FORMS, "optax"}
    assert peers["Lion"] == {"optax"}
    assert peers["FTRL"] == peers["Adam with clip_update"] == set()
    assert all(ours - {same} <= set(row.peers) for row in LARGE.values())
    assert [label for label, row in LARGE.items() if same not in row.peers] == MANY_STREAMS
    torchs = LARGE["Momentum"].peer_tasks["torch foreach"]
    assert (torchs.rule, torchs.settings["momentum"]) == ("SGD", 0.9)


FUSED = """
import inspect, json, torch
classes = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type)}
print(json.dumps(sorted(n for n, c in classes.items() if "fused" in inspect.signature(c).parameters)))
"""


def test_which_rules_torch_has_fused() -> None:
    pytest.importorskip("torch")
    assert json.loads(output(FUSED)) == list(rows.FUSED)


@pytest.mark.parametrize("label", LARGE)
def test_which_rules_have_sums(label: str) -> None:
    """With sums over a tensor, its halves step otherwise than the whole."""
    asked, rng = LARGE[label].task, np.random.default_rng(0)
    whole = rng.standard_normal(10)
    halves = [whole[:5].copy(), whole[5:].copy()]
    make, lr = getattr(instep, asked.rule), RATES.get(label, 0.1)
    parts = [make(p, lr=lr, **asked.settings) for p in (whole, *halves)]
    for scale in (1.0, 10.0, 100.0):
        grad = scale * rng.standard_normal(10)
        for optimizer, g in zip(parts, (grad, grad[:5], grad[5:]), strict=True):
            optimizer.step(g)
    apart = not np.array_equal(whole, np.concatenate(halves))
    assert apart == (traffic.sums_of(asked) is not None), "SUMS of bench/traffic.py"


@pytest.mark.parametrize("peer", ["memory limit", "memory limit, same arrays"])
def test_the_memory_limit_moves_what_each_rule_moves(
    peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = importlib.import_module("peers")
    core = importlib.import_module("instep._core.testing")
    moved: list[int] = []
    make = core.make_memory_traffic

    def record(pieces: list[list[np.ndarray]], passes: list[tuple[int, int]], copied: bool) -> Any:
        moved.append(pieces[0][0].nbytes // 1000 * sum(map(sum, passes)))
        return make(pieces, passes, copied)

    monkeypatch.setattr(core, "make_memory_traffic", record)
    those = [row for row in LARGE.values() if peer in row.peers]
    assert len(those) >= len(LARGE) - len(MANY_STREAMS)
    for row in those:
        small = dataclasses.replace(row.task, workload="1000")
        contestant = peers.PEERS[peer].start(small, [np.ones(1000, np.float32)])
        contestant.call([np.ones(1000, np.float32)])()
    assert moved == [sum(map(sum, traffic.passes_of(row.task))) for row in those]


# What optax computes otherwise (docs/semantics.md, "Where others differ"), and settings by which instep computes it,
# too: NAdam without a decay of the momentum, which so large a number brings to 0 at once. There are none for Adan,
# whose differences have the weight 1 - b2, and for Rprop, which is a step late.
OPTAXS_OWN: dict[str, dict[str, Any] | None] = {
    "Adagrad": {"eps_inside_sqrt": True},
    "Adan": None,
    "NAdam": {"momentum_decay": 1e9},
    "Prodigy": {"use_bias_correction": True},
    "Rprop": None,
}
# PyTorch keeps some numbers as tensors of its default dtype, float32.
IN_FLOAT32 = {"ASGD", "NAdam"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("package", ["torch", "optax"])
def test_peers_take_the_same_step_by_every_rule(package: str, dtype: str) -> None:
    def small(given: Any, more: dict[str, Any]) -> Any:
        settings = {**given.settings, "lr": RATES.get(label, 0.1), **more}
        return dataclasses.replace(given, workload="1000", dtype=dtype, settings=settings)

    asked, differing = {}, {}
    for label, row in LARGE.items():
        for peer in (peer for peer in row.peers if peer.startswith(package) and row.brief):
            more = OPTAXS_OWN.get(label, {}) if package == "optax" else {}
            wide = 1e-7 if package == "torch" and label in IN_FLOAT32 else 1e-14
            ours = small(row.task, more or {})
            one = (peer, small(row.peer_tasks.get(peer, row.task), {}), ours)
            tolerance = 2e-5 if dtype == "float32" else wide
            (differing if more is None else asked)[f"{label}, {peer}"] = (*one, tolerance)
    assert len(asked) >= 15
    check_peers(package, asked)
    for name, one in differing.items():
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check_peers(package, {name: one})


@pytest.fixture
def page_of(tmp_path: Path) -> Any:
    """The verdicts and the page of the rules' rows, each with these figures by instep's, of those that it has."""
    pytest.importorskip("matplotlib")
    page, results, targets = map(importlib.import_module, ("page", "results", "targets"))

    def make(changed: dict[tuple[str, str], float]) -> tuple[dict[str, Any], str]:
        usual = {"memory limit": 1.0, "torch foreach": 9.0, "torch loop": 8.0, "optax": 7.0}
        found = results.Results(tmp_path, importlib.import_module("machine").describe())
        for row in rows.RULES.values():
            ratios = {p: changed.get((row.name, p), usual.get(p, 2.0)) for p in row.peers}
            contestants = {p: {"median": 1e-3, "by instep": ratio} for p, ratio in ratios.items()}
            contestants["instep"]["by instep"] = 1.0
            what = {"when": "2026-01-01 00:00 UTC", "contestants": contestants}
            if row.brief:
                found.pieces[f"step/{row.name}"] = [what]
        verdicts = targets.judge(found.passes)
        page.write(tmp_path, found, verdicts)
        text = (tmp_path / "README.md").read_text("utf-8")
        return {v.target.what: v for v in verdicts if "rules" in v.target.what}, text

    return make


def test_the_rule_that_reaches_least_is_judged(page_of: Any) -> None:
    low = {("gpt2-lion", "memory limit"): 0.8, ("gpt2-yogi", "memory limit"): 0.9}
    verdicts, _ = page_of(low | {("gpt2-lion", "memory limit, same arrays"): 1.6})
    count = len(LARGE) - 1 - len(traffic.SUMS) - 1
    lion = verdicts[
        f"gpt2, rules without sums, of the memory limit: Lion, the least of {count} (also missed by Yogi)"
    ]
    assert (lion.measured, lion.met, lion.at_best, lion.target.wanted) == (0.8, False, 0.5, 0.95)
    with_sums = [v for what, v in verdicts.items() if what.startswith("gpt2, rules with sums")]
    assert [(v.measured, v.target.wanted) for v in with_sums] == [(1.0, 0.9)]
    by_torch = {
        what.partition(":")[0]: (v.measured, v.target.wanted, v.met)
        for what, v in verdicts.items()
        if "PyTorch" in what
    }
    assert by_torch == {
        "gpt2, rules that PyTorch has fused, against its best": (2.0, 1.0, True),
        "gpt2, rules that PyTorch has not fused, against its best": (8.0, 1.5, True),
        "mlp, rules that PyTorch has fused, against its best": (2.0, 1.7, True),
        "mlp, rules that PyTorch has not fused, against its best": (8.0, 5.0, True),
    }


def test_the_page_of_the_rules_alone(page_of: Any) -> None:
    _, text = page_of({("mlp-radam", "torch loop"): 6.5, ("gpt2-lars", "optax"): 3.25})
    assert (
        "| RAdam | 28 | 1.00 ms | 1.00 | 2.00 | 8.00 (loop) | 7.00 | 1.00 ms | 1.00 | 6.50 (loop) | 7.00 |"
        in text
    )
    assert "| LARS | 28 | 1.00 ms | 1.00 | 2.00 |  | 3.25 | 1.00 ms | 1.00 |  | 7.00 |" in text
    assert "| Adam |" not in text
    assert "A step of Adam" not in text
    assert "## Other formats" not in text


def test_the_rows_of_the_rules_are_measured_by_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    names = {row.name for row in rows.RULES.values()} - {"mlp", "gpt2"}
    assert sorted(report.GROUPS["rules"]) == sorted(f"step/{name}" for name in names)
    assert set(report.GROUPS["rules"]) <= set(report.PIECES)
    taken: list[str] = []
    monkeypatch.setattr(report, "PIECES", dict.fromkeys(report.PIECES, lambda _: {"found": 1.0}))
    monkeypatch.setattr(report.page, "write", lambda _, found, __: taken.extend(found.pieces))
    monkeypatch.setattr(sys, "argv", ["report.py", "rules", "step/mlp", "--folder", str(tmp_path)])
    assert report.main() == 0
    assert sorted(taken) == sorted([*report.GROUPS["rules"], "step/mlp"])
