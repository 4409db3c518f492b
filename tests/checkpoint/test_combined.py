"""Checkpoints of a Combined: they go on to the bit, and fit a Combined alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from checkpoint_files import document_of, parts, refused, with_document
from snapshots import bits

import instep
from instep import checkpoint
from instep.commands import cli

pytest.importorskip("safetensors")


def made(**limits: Any) -> instep.Combined:
    first = instep.Momentum([np.full((2, 3), 9.0), np.full(4, 9.0, BFLOAT16)], lr=0.5)
    second = instep.Adam({"0": np.full(5, 9.0, "f4"), "a/b": np.full((), 9.0)}, ema_decay=0.5)
    return instep.Combined(first, second, **{"clip_norm": math.inf, **limits})


def grads(k: int) -> list[Any]:
    rng = np.random.default_rng(k)
    return [
        [rng.standard_normal((2, 3)), rng.standard_normal(4)],
        {"0": rng.standard_normal(5), "a/b": rng.standard_normal(())},
    ]


def all_bits(combined: instep.Combined) -> Any:
    counts = combined.step_count, combined.skipped_steps, combined.clip_norm
    return [bits(optimizer) for optimizer in combined.optimizers], counts


@pytest.fixture
def file(tmp_path: Path) -> tuple[Path, instep.Combined]:
    combined = made(nonfinite="skip")
    combined.step(grads(1))
    combined.step([[np.full((2, 3), np.nan), None], None])
    combined.accumulate(grads(2))
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, combined, {"epoch": 3, "order": np.arange(3)}, instep.LossScaler(8.0))
    return path, combined


def test_a_run_goes_on_to_the_bit(file: tuple[Path, instep.Combined]) -> None:
    path, combined = file
    other, scaler = made(clip_norm=1.0, nonfinite="skip"), instep.LossScaler()
    other.step(grads(7))
    extra = checkpoint.load(path, other, scaler)
    assert (extra["epoch"], extra["order"].tolist(), scaler.scale) == (3, [0, 1, 2], 8.0)
    assert all_bits(other) == all_bits(combined)
    for one in (combined, other):
        one.step(grads(3), grad_scale=0.5)
        one.step(grads(4))
    assert all_bits(other) == all_bits(combined)
    assert other.grad_norm == combined.grad_norm


def test_what_inspect_tells(file: tuple[Path, instep.Combined], capsys: Any) -> None:
    path, _ = file
    found = checkpoint.inspect(path)
    assert (found["rule"], found["step_count"], found["skipped_steps"]) == ("Combined", 1, 1)
    assert found["hyperparameters"] == {"clip_norm": math.inf}
    assert [one["rule"] for one in found["optimizers"]] == ["Momentum", "Adam"]
    assert found["optimizers"][0]["hyperparameters"]["param_groups"][0]["lr"] == 0.5
    assert {
        *(
            "0/weights/0",
            "0/weights/1",
            "0/state/momentum_buffer/1",
            "1/weights/0",
            "1/weights/a/b",
        ),
        *("1/state/exp_avg/a/b", "1/averages/0", "0/accumulated/1", "extra/order"),
    } <= set(found["tensors"])
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("Combined", "optimizers[0]", "optimizers[1]", "Momentum", "0/weights/0"):
        assert part in text


def test_the_other_kind_is_refused(file: tuple[Path, instep.Combined], tmp_path: Path) -> None:
    path, combined = file
    match = "must be of one optimizer, got one of a Combined of 2; load it into a Combined"
    refused(path, combined.optimizers[0], instep.LossScaler(), match=match)
    one = tmp_path / "one.safetensors"
    checkpoint.save(one, combined.optimizers[0])
    assert b'"combined"' not in one.read_bytes()
    before = all_bits(combined)
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"must be of a Combined, got one of one optimizer \('Momentum'\); load it into an opt",
    ):
        checkpoint.load(one, combined)
    assert all_bits(combined) == before


def changed(content: bytes, change: Any) -> bytes:
    document = document_of(content)
    change(document)
    return with_document(content, json.dumps(document))


CHANGES: dict[str, tuple[Any, str]] = {
    "both kinds": (lambda d: d.update(optimizer=d["combined"]["optimizers"][0]), "unknown: 'optim"),
    "neither": (lambda d: d.pop("combined"), "missing: 'optimizer'"),
    "keys": (lambda d: d["combined"].pop("clip_norm"), "missing: 'clip_norm'"),
    "no list": (lambda d: d["combined"].update(optimizers=3), "must be a list, got an int"),
    "one missing": (
        lambda d: d["combined"]["optimizers"].pop(),
        "must be of 2 optimizers, got one of 1",
    ),
    "keys of one": (
        lambda d: d["combined"]["optimizers"][1].pop("rule"),
        r"the state of optimizers\[1\] must have the expected keys; missing: 'rule'",
    ),
    "the other order": (
        lambda d: d["combined"]["optimizers"].reverse(),
        r"optimizers\[0\]: the rule of the state must be 'Momentum', got 'Adam'",
    ),
    "schema": (lambda d: d.update(schema=4), "the schema of the checkpoint must be 1 to 3, got 4"),
    "count": (lambda d: d["combined"].update(step_count=-1), "step_count must be a count"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_documents_that_are_refused(case: str, file: tuple[Path, instep.Combined]) -> None:
    change, message = CHANGES[case]
    path, combined = file
    path.write_bytes(changed(path.read_bytes(), change))
    before = all_bits(combined)
    with pytest.raises(checkpoint.CheckpointError, match=message) as caught:
        checkpoint.load(path, combined, instep.LossScaler())
    assert "\n" not in str(caught.value)
    assert all_bits(combined) == before


def test_optimizers_that_a_file_does_not_fit(file: tuple[Path, instep.Combined]) -> None:
    path, combined = file
    first, second = combined.optimizers
    for other, message in (
        (instep.Combined(first), "must be of 1 optimizers, got one of 2"),
        (instep.Combined(second, first), r"optimizers\[0\]: .*"),
        (
            instep.Combined(instep.Momentum([np.ones((2, 3)), np.ones(4)]), second),
            r"optimizers\[0\]: the stored parameter '1' must have shape \(4,\) and dtype float64",
        ),
    ):
        before = all_bits(other)
        with pytest.raises(checkpoint.CheckpointError, match=message):
            checkpoint.load(path, other, instep.LossScaler())
        assert all_bits(other) == before
    with pytest.raises(checkpoint.CheckpointError, match="scaler must be a LossScaler, got None"):
        checkpoint.load(path, combined)


def test_a_tensor_of_none_of_them(file: tuple[Path, instep.Combined]) -> None:
    path, combined = file
    content = path.read_bytes()
    header, data = parts(content)
    text = content.replace(b"1/averages/0", b"2/averages/0")
    assert header["1/averages/0"]
    assert data
    path.write_bytes(changed(text, lambda d: None))
    before = all_bits(combined)
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"a tensor must be of one of the optimizers, got '2/averages/0'$",
    ):
        checkpoint.load(path, combined, instep.LossScaler())
    assert all_bits(combined) == before


def test_arguments_and_averages(tmp_path: Path) -> None:
    combined = made()
    path = tmp_path / "run.safetensors"
    for wrong in (None, [combined], combined.optimizers):
        with pytest.raises(TypeError, match="optimizer must be an Optimizer of instep, got"):
            checkpoint.save(path, wrong)  # type: ignore[arg-type]
    combined.step(grads(1))
    with combined.averaged():
        with pytest.raises(RuntimeError, match=r"save must come after the block of averaged\(\)"):
            checkpoint.save(path, combined)
        assert not path.exists()
    checkpoint.save(path, combined)
    with combined.averaged(), pytest.raises(RuntimeError, match="load must come after the block"):
        checkpoint.load(path, combined)
