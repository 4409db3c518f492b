"""The measurements of several ranks: parts that add up, a model that counts as instep.mpi does, and a job."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_folder import BENCH
from rank_launchers import program_over_mpi

import instep.mpi
from instep.mpi import making, moving, over_threads, shards

model = importlib.import_module("ranks_model")
ranks_parts = importlib.import_module("ranks_parts")
ranks = importlib.import_module("ranks")

BIG = 2_000_000  # elements, shared out


def test_the_model_has_the_sizes_of_the_package() -> None:
    assert model.CHUNK == shards.CHUNK
    assert model.SMALL == making._SMALL
    for shard in (0, 1, 8 << 20, 9 << 20, 64 << 20, 65 << 20):
        assert model.bucket_bytes(shard) == moving.bucket_bytes(shard)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("elements", [16_384, 1_000_000, 2_000_001, 100_000_000])
def test_the_model_counts_buckets(elements: int, count: int) -> None:
    stretches = shards.cut([shards.Parameter(elements, 1, False)], count)
    size = moving.bucket_bytes(shards.shard_bytes(stretches, [4], count))
    found = len(moving.buckets(stretches[0], [4], count, size))
    assert model.buckets(elements, count) == pytest.approx(found, abs=1)


def timed(size: int, clip: float | None) -> list[tuple[Any, float, np.ndarray]]:
    """The parts of three steps on each rank, their whole time, and what became of the parameters."""

    def rank(comm: Any) -> tuple[Any, float, np.ndarray]:
        parts, w = ranks_parts.Parts(), np.zeros(BIG, np.float32)
        opt = instep.mpi.Distributed(
            instep.Adam, w, comm=ranks_parts.TimedRanks(comm, parts), clip_norm=clip
        )
        ranks_parts.watch(opt, parts)
        gradient = np.random.default_rng(comm.rank).standard_normal(BIG).astype(np.float32)
        parts.clear()
        began = time.perf_counter()
        for _ in range(3):
            parts.begin_step()
            opt.step(gradient)
        return parts, time.perf_counter() - began, w

    return [end.result() for end in over_threads.run(size, rank)]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_parts_add_up(clip: float | None) -> None:
    plain = np.zeros(BIG, np.float32)
    opt = instep.Adam(plain, clip_norm=clip)
    gradients = [np.random.default_rng(k).standard_normal(BIG).astype(np.float32) for k in range(3)]
    for _ in range(3):
        for gradient in gradients:
            opt.accumulate(gradient)
        opt.step()
    for rank, (parts, whole, w) in enumerate(timed(3, clip)):
        assert w.tobytes() == plain.tobytes()
        assert 0.5 * whole < sum(parts.seconds.values()) < whole
        there = {part for part, seconds in parts.seconds.items() if seconds}
        assert there == set(ranks_parts.PARTS) - (set() if clip else {ranks_parts.NORM}), rank
    sent = [sum(parts.bytes_sent[part] for parts, _, _ in timed(3, clip)) / 3 for part in WIRE]
    # What all ranks send together, of gradients and of parameters: two thirds of all, three times.
    assert sent == pytest.approx([2 * 4 * BIG] * 2)


WIRE = ("gradients", "parameters")


def test_predictions() -> None:
    wire, machine = model.Wire(1e-5, 0.0, 1e9), model.Machine(1e10, 2e10)
    parts = model.predict(10**9, 8, wire, machine)
    assert parts["gradients"] == pytest.approx(7 / 8 * 4, rel=0.01)
    assert sum(parts.values()) > model.predict(10**9, 8, wire, machine, clip=True)["gradients"]
    assert model.predict(1000, 8, wire, machine)["parameters"] == 0
    assert model.memory(10**9, 8) == 9.5e9 + 2 * (64 << 20)
    said = {
        "ranks": 2,
        "elements": 10**8,
        "status round": {"median": 1e-5},
        "parts": model.predict(10**8, 2, wire, machine),
    }
    found, fitted = model.fitted([said])
    assert found.bandwidth == pytest.approx(1e9, rel=0.01)
    assert fitted == pytest.approx((1e10, 2e10), rel=0.01)
    assert model.crowded(found, fitted, 0.5)[1].sums == pytest.approx(1e10, rel=0.01)


def test_a_job_under_mpiexec(tmp_path: Path) -> None:
    program = BENCH / "ranks_job.py"
    rows = []
    for what in ("steps", "memory"):
        done = program_over_mpi(program, 2, tmp_path, what, "one1M", "--clip", "--seconds", "0.1")
        assert done.status == 0, done.output
        rows.append(json.loads(next(x for x in done.output.splitlines() if x.startswith("{"))))
    row = {"ranks": 2, "workload": "one1M", "clip": True, **rows[0], **rows[1]}
    assert set(row["contestants"]) >= {ranks.OURS, "Allreduce, plain step", "in parts"}
    assert row["peak"] < 1.3 * ranks.formula(row)
    for table in ranks.TABLES:
        head, line = table([row])
        assert len(head) == len(line)
