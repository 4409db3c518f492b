"""States of ranks in files: each rank has those that it owns, in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep.mpi import Distributed, over_threads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="refused on Windows")

MAKERS: dict[str, Any] = {
    "adam": lambda p, **how: instep.Adam(p, lr=0.1, ema_decay=0.5, clip_norm=1.0, **how),
    "lamb": lambda p, **how: instep.LAMB(p, lr=0.1, **how),
    "prodigy": instep.Prodigy,
    "codes": lambda p, **how: instep.AdamW(p, lr=0.1, ema_decay=0.5, state_dtype="8bit", **how),
    "muon": lambda p, **how: instep.Muon(p, lr=0.1, **how),
}


def model() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(np.float32) for s in ((300, 200), (150, 70), (1, 9))]


def gradients(step: int, rank: int) -> list[np.ndarray]:
    rng = np.random.default_rng([step, rank])
    return [rng.standard_normal(p.shape).astype(np.float32) for p in model()]


@pytest.mark.parametrize("shard", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_the_same_bits_as_in_memory(name: str, shard: bool, tmp_path: Path) -> None:
    expected = model()
    plain = MAKERS[name](expected)
    for step in range(4):
        for rank in range(3):
            plain.accumulate(gradients(step, rank))
        plain.step()

    def make(params: Any) -> Any:
        return MAKERS[name](params, state_storage=tmp_path / "states")

    def each(comm: Any) -> Any:
        params = model()
        optimizer = Distributed(make, params, comm=comm, shard=shard)
        folder = tmp_path / "states" / f"rank-{comm.rank}"
        assert str(folder) in repr(optimizer)
        assert os.listdir(folder)
        path = tmp_path / "run.safetensors"
        for step in range(4):
            optimizer.step(gradients(step, comm.rank))
            if step == 1:
                optimizer.save(path)
                optimizer.load(path)
        return params, optimizer.state_dict()

    ranks = [rank.result() for rank in over_threads.run(3, each)]
    for params, _ in ranks:
        assert [p.tobytes() for p in params] == [p.tobytes() for p in expected]
    for key, states in plain.state_dict()["state"].items():
        for state, array in states.items():
            assert ranks[0][1]["state"][key][state].tobytes() == array.tobytes()


def test_a_folder_that_cannot_be_made_is_refused_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "rank-1").write_text("a file")

    def each(comm: Any) -> Any:
        return Distributed(instep.Adam, model(), comm=comm, state_storage=tmp_path)

    ranks = over_threads.run(3, each)
    assert all(isinstance(rank.exception(), OSError) for rank in ranks)
    assert str(ranks[0].exception()).startswith("rank 1: ")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and os.listdir(path)] == []
