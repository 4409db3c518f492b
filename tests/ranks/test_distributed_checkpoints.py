"""Checkpoints of several ranks: the bytes of one process's file, for any number of ranks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import checkpoint
from instep.checkpoint import writing
from instep.mpi import Distributed, over_threads

pytest.importorskip("safetensors")

SHAPES = {"a": (300, 100), "b": (16_384,), "c": (), "d": (0, 3), "e": (40_001,)}
DTYPES = {"a": np.float32, "b": np.float64, "c": np.float32, "d": np.float32, "e": np.float16}
MATRICES = {"a": (300, 100), "b": (7, 160), "c": (0, 4), "d": (9, 1)}

MAKERS: dict[str, Callable[[Any], Any]] = {
    "adamw": lambda p: instep.AdamW(p, lr=0.1, ema_decay=0.9, clip_norm=1.0),
    "nadam": lambda p: instep.NAdam(p, lr=instep.schedules.Linear(0.1, 0.0, steps=9)),
    "prodigy": instep.Prodigy,
    "lamb": lambda p: instep.LAMB(p, lr=0.1),
    "asgd": lambda p: instep.ASGD(p, lr=0.1),
    "muon": lambda p: instep.Muon(p, lr=0.1),
    "combined": lambda p: instep.Combined(
        instep.SGD([p["a"], p["b"]], lr=0.1, momentum=0.9),
        instep.Adam({"c": p["c"], "rest": [p["d"], p["e"]]}, lr=0.1, ema_decay=0.5),
        clip_norm=1.0,
    ),
}


def model(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = MATRICES if name == "muon" else SHAPES
    return {k: np.asarray(rng.standard_normal(s)).astype(DTYPES[k]) for k, s in shapes.items()}


def gradients(name: str, params: dict[str, Any], step: int, rank: int) -> Any:
    rng = np.random.default_rng([step, rank])
    found = {k: np.asarray(rng.standard_normal(p.shape)) for k, p in params.items()}
    if name != "combined":
        return found
    return [[found["a"], found["b"]], {"c": found["c"], "rest": [found["d"], found["e"]]}]


def one_process(name: str, steps: int) -> tuple[dict[str, Any], Any]:
    """The parameters and the optimizer of one process, after steps of two micro-batches each."""
    params = model(name)
    optimizer = MAKERS[name](params)
    go_on(name, params, optimizer, 0, steps)
    return params, optimizer


def go_on(name: str, params: dict[str, Any], optimizer: Any, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        for rank in range(2):
            optimizer.accumulate(gradients(name, params, step, rank))
        optimizer.step(grad_scale=0.5)


def on_ranks(
    name: str, size: int, path: Path, first: int, steps: int, *, shard: bool = True, **how: Any
) -> list[dict[str, Any]]:
    """Load, step with the gradients of the first two ranks, and save."""

    def each(comm: Any) -> dict[str, Any]:
        params = model(name)
        optimizer = Distributed(MAKERS[name], params, comm=comm, shard=shard)
        extra = optimizer.load(path, default={"step": 0}, **how)
        assert extra["step"] == first
        for step in range(first, first + steps):
            own = gradients(name, params, step, comm.rank) if comm.rank < 2 else None
            optimizer.step(own, grad_scale=0.5)
        mine = {"step": first + steps, "order": np.arange(5)} if comm.rank == 0 else "not mine"
        optimizer.save(path, extra=mine)
        return params

    return [rank.result() for rank in over_threads.run(size, each)]


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert {k: x.tobytes() for k, x in a.items()} == {k: x.tobytes() for k, x in b.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_any_number_of_ranks_goes_on_where_others_stopped(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    on_ranks(name, 3, path, 0, 2)
    on_ranks(name, 2, path, 2, 1, shard=False, via="root")
    params = model(name)
    optimizer = MAKERS[name](params)
    assert checkpoint.load(path, optimizer)["step"] == 3
    go_on(name, params, optimizer, 3, 1)
    checkpoint.save(path, optimizer, extra={"step": 4})
    found = on_ranks(name, 5, path, 4, 1, via="root")
    expected, plain = one_process(name, 5)
    for each in found:
        assert_same(each, expected)
    other = tmp_path / "plain.safetensors"
    checkpoint.save(other, plain, extra={"step": 5, "order": np.arange(5)})
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("via", ["each", "root"])
def test_every_rank_gets_the_extra(via: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    extra = {"rng": np.random.default_rng(0).bit_generator.state, "order": np.arange(3)}
    checkpoint.save(path, instep.SGD(np.zeros(3)), extra)

    def each(comm: Any) -> Any:
        return Distributed(instep.SGD, np.zeros(3), comm=comm, shard=True).load(path, via=via)

    for rank in over_threads.run(3, each):
        found = rank.result()
        assert found["rng"] == extra["rng"]
        assert found["order"].tolist() == [0, 1, 2]


def test_a_part_of_a_large_tensor_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    size = 2**22 + 20_000
    plain = instep.SGD(np.zeros(size, np.float32), lr=1.0, momentum=0.5)
    plain.step(np.arange(size, dtype=np.float32))
    checkpoint.save(path, plain)

    def each(comm: Any) -> Any:
        params = np.zeros(size, np.float32)
        optimizer = Distributed(instep.SGD, params, comm=comm, shard=True, momentum=0.5)
        optimizer.load(path, via="each")
        return params, optimizer.state["0"]["momentum_buffer"].copy()

    ranks = [rank.result() for rank in over_threads.run(3, each)]
    assert all(np.array_equal(params, plain.params["0"]) for params, _ in ranks)
    states = np.concatenate([state for _, state in ranks])
    assert np.array_equal(states, plain.state["0"]["momentum_buffer"])


def test_a_scaler_is_loaded_on_all_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def each(comm: Any) -> list[Any]:
        optimizer = Distributed(instep.SGD, np.zeros(3), comm=comm, nonfinite="skip")
        scaler = instep.LossScaler(scale=8.0, growth_interval=1)
        for _ in range(2):  # without a batch on the last rank
            scaler.step(optimizer, None if comm.rank == 2 else np.ones(3))
        optimizer.save(path, scaler=scaler)
        again = instep.LossScaler()
        optimizer.load(path, again)
        return [scaler.scale, again.scale]

    for rank in over_threads.run(3, each):
        assert rank.result() == [32.0, 32.0]


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def each(comm: Any) -> Any:
        optimizer = Distributed(instep.SGD, np.zeros(3), comm=comm)
        assert optimizer.load(path, default="a default") == "a default"
        optimizer.load(path)

    for rank in over_threads.run(3, each):
        assert isinstance(rank.exception(), FileNotFoundError)


@pytest.mark.parametrize("tensor", [0, 1, 2, 3])
def test_a_full_disk(tensor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    on_ranks("adamw", 3, path, 0, 1)
    before = path.read_bytes()
    stream, streamed, full = writing._stream, [0], [True]

    def fill(*arguments: Any) -> Any:
        streamed[0] += 1
        if full[0] and streamed[0] > tensor:
            raise OSError(errno.ENOSPC, "No space left on device")
        return stream(*arguments)

    def each(comm: Any) -> str:
        optimizer = Distributed(MAKERS["adamw"], model("adamw"), comm=comm, shard=True)
        optimizer.load(path)
        with pytest.raises(OSError, match="No space left") as caught:
            optimizer.save(path)
        if comm.rank == 0:
            full[0] = False
        assert path.read_bytes() == before
        comm.allgather(b"")
        optimizer.save(path)  # the ranks are still together
        return str(caught.value)

    monkeypatch.setattr(writing, "_stream", fill)
    found = [rank.result() for rank in over_threads.run(3, each)]
    assert found[1] == found[2] == f"rank 0: {found[0]}"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def refused(name: str, path: Path, make: Any = None, **how: Any) -> list[Any]:
    """What the ranks raise when they load; nothing has changed, and the next step is right."""

    def each(comm: Any) -> Any:
        params = model(name)
        optimizer = Distributed(make or MAKERS[name], params, comm=comm, shard=True)
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the caller looks)
            optimizer.load(path, **how)
        assert_same(params, model(name))
        optimizer.step(gradients(name, params, 0, comm.rank))
        return caught.value, params

    ranks = [rank.result() for rank in over_threads.run(2, each)]
    expected = model(name)
    plain = (make or MAKERS[name])(expected)
    for rank in range(2):
        plain.accumulate(gradients(name, expected, 0, rank))
    plain.step()
    for _, params in ranks:
        assert_same(params, expected)
    return [error for error, _ in ranks]


@pytest.mark.parametrize("via", ["auto", "root"])
def test_a_damaged_file(via: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    on_ranks("adamw", 3, path, 0, 1)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    first, second = refused("adamw", path, via=via)
    assert isinstance(first, checkpoint.CheckpointError)
    assert "must agree with its checksum" in str(first) or "rank 1" in str(first)
    assert "damaged" in str(second)


def test_a_file_of_another_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    on_ranks("adamw", 3, path, 0, 1)
    for error in refused("adamw", path, instep.SGD):
        assert "the rule of the state must be 'SGD', got 'AdamW'" in str(error)
    for error in refused("adamw", path, lambda p: instep.AdamW(p, amsgrad=True, ema_decay=0.5)):
        assert "state['a'] must have the expected keys; missing: 'max_exp" in str(error)
    first, *others = refused("adamw", path, lambda p: instep.Adam(p, ema_decay=0.5))
    assert isinstance(first, checkpoint.CheckpointError)
    for error in (first, *others):
        assert f"{path}: the rule of the state must be 'Adam', got 'AdamW'" in str(error)
    for error in refused("combined", path):
        assert "the checkpoint must be of a Combined" in str(error)


def test_sums_that_wait_for_a_step(tmp_path: Path) -> None:
    """They are refused in a save, and a file of one process that has some loads."""
    path = tmp_path / "run.safetensors"
    params, plain = one_process("adamw", 1)
    plain.accumulate(gradients("adamw", params, 1, 0))
    checkpoint.save(path, plain)
    plain.accumulate(gradients("adamw", params, 1, 1))
    plain.step(grad_scale=0.5)

    def each(comm: Any) -> Any:
        own = model("adamw")
        optimizer = Distributed(MAKERS["adamw"], own, comm=comm, shard=True)
        optimizer.load(path)
        with pytest.raises(ValueError, match="save must come after a step that has used all"):
            optimizer.save(path)
        optimizer.step(gradients("adamw", own, 1, 1) if comm.rank == 1 else None, grad_scale=0.5)
        return own

    for rank in over_threads.run(3, each):
        assert_same(rank.result(), params)


def test_checkpoint_save_says_what_to_call() -> None:
    def each(comm: Any) -> None:
        checkpoint.save("run.safetensors", Distributed(instep.SGD, np.zeros(3), comm=comm))

    for rank in over_threads.run(2, each):
        assert "call its save(path) and load(path)" in str(rank.exception())
