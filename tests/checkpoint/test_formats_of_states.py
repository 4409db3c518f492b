"""Codes, units, remainders and the seed in a file: as they are, in the dtypes of safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from checkpoint_files import document_of, parts, refused, with_document
from reference import assert_same_bits
from snapshots import bits

import instep
from instep import checkpoint

F = np.float32


def made(**more: Any) -> Any:
    params = {"w": np.linspace(-1, 1, 5000).astype(BFLOAT16), "b": np.ones(3, BFLOAT16)}
    options = {"state_dtype": "8bit", "master_bits": 24, "seed": 2**64 - 1, **more}
    return instep.Adam(params, lr=0.01, **options)


def stepped(optimizer: Any) -> Any:
    rng = np.random.default_rng(0)
    optimizer.step({n: rng.standard_normal(p.shape) for n, p in optimizer.params.items()})
    return optimizer


def test_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    checkpoint.save(path, stepped(made()))
    header, _ = parts(path.read_bytes())
    dtypes = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert dtypes == {
        **{f"weights/{name}": "BF16" for name in ("w", "b")},
        **{f"state/remainder/{name}": "I8" for name in ("w", "b")},
        "state/exp_avg/w": "I8",
        "state/exp_avg_sq/w": "U8",
        **{f"state/{key}_unit/w": "F32" for key in ("exp_avg", "exp_avg_sq")},
        **{f"state/{key}/b": "F32" for key in ("exp_avg", "exp_avg_sq")},
    }
    found = checkpoint.inspect(path)
    assert found["seed"] == 2**64 - 1
    assert found["tensors"]["state/exp_avg_unit/w"]["shape"] == (79,)
    other = stepped(made(master_bits=32))
    checkpoint.save(path, other)
    assert checkpoint.inspect(path)["tensors"]["state/remainder/w"]["dtype"] == "int16"
    checkpoint.save(path, instep.Combined(other, instep.SGD({"v": np.ones(2)}, seed=3)))
    assert [one["seed"] for one in checkpoint.inspect(path)["optimizers"]] == [2**64 - 1, 3]


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (
            {"state_dtype": None},
            r"state 'exp_avg' of 'w' must be stored as float32, got 8bit; make the optimizer with "
            "state_dtype='8bit' for it and the same min_8bit_size, or convert the state_dict",
        ),
        (
            {"min_8bit_size": 1},
            "state 'exp_avg' of 'b' must be stored as 8bit, got float32; .* the same min_8bit_size",
        ),
        (
            {"master_bits": 32},
            "state 'remainder' of 'w' must be int16, of 32 bits with the parameter, got int8; make .*=24",
        ),
        (
            {"master_bits": None},
            "the state of 'w' must be of a parameter without a remainder, .*=24",
        ),
    ],
)
def test_another_format_is_refused(mine: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", stepped(made()))
    refused(tmp_path / "run", stepped(made(**mine)), match=message)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, None, True])
def test_a_seed_that_is_none(seed: Any, tmp_path: Path) -> None:
    path = tmp_path / "run"
    checkpoint.save(path, made())
    document = document_of(path.read_bytes())
    document["optimizer"]["seed"] = seed
    path.write_bytes(with_document(path.read_bytes(), document))
    refused(path, stepped(made()), match="seed must be an int from 0 to")


def of_the_first_version(path: Path) -> None:
    """Make of a file what the version before wrote for the same content: no seed."""
    content = path.read_bytes()
    document = json.loads(json.dumps(document_of(content)))
    for state in (
        document["combined"]["optimizers"] if "combined" in document else [document["optimizer"]]
    ):
        assert state.pop("seed") is not None
        assert state["schema"] == 2
        state["schema"] = 1
    if "combined" in document:
        document["combined"]["schema"] = 1
    path.write_bytes(with_document(content, document))


@pytest.mark.parametrize("way", ["one", "of a Combined"])
@pytest.mark.parametrize("state_dtype", [None, BFLOAT16, np.float16])
def test_a_file_of_the_version_before(state_dtype: Any, way: str, tmp_path: Path) -> None:
    """What it wrote in float16 for second moments were the moments; the seed here stays."""

    def fresh() -> Any:
        params = {"w": np.ones(5000, F), "b": np.ones(3, F)}
        optimizer = instep.AdamW(params, state_dtype=state_dtype, seed=5)
        return optimizer if way == "one" else instep.Combined(optimizer)

    path, written, loaded = tmp_path / "run", fresh(), fresh()
    for states in written.state.values():
        for array in states.values():
            array[...] = np.random.default_rng(1).uniform(0, 1, array.shape)
    checkpoint.save(path, written)
    of_the_first_version(path)
    checkpoint.load(path, loaded)
    for name, states in written.state.items():
        for key, array in states.items():
            wanted = array
            if state_dtype == np.float16 and key == "exp_avg_sq":
                wanted = np.sqrt(array.astype(F)).astype(np.float16)
            assert_same_bits(loaded.state[name][key], wanted, key)
    seeds = [one.seed for one in getattr(loaded, "optimizers", [loaded])]
    assert seeds == [5]
    if state_dtype is None and way == "one":
        assert bits(loaded) == bits(written)
    found = checkpoint.inspect(path)
    assert "seed" not in (found if way == "one" else found["optimizers"][0])
