"""Programs that train together, as one rank runs them over MPI or gloo; and the same run in one process.

``python -m mpi4py distributed_programs.py FOLDER NAME mpi``, or ``python distributed_programs.py FOLDER NAME gloo RANK
SIZE``: each rank writes what became of it to a file in the folder.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import instep
import instep.mpi

STEPS = 5
MIDDLE = 3  # completed steps, when something happens to rank 1
TIMEOUT = 1.5  # seconds, of the program with a late rank
SHAPES: dict[str, Any] = {"w": (300, 200), "b": (5,), "scalar": (), "bias": (40_000,)}
#: 25 million parameters.
LARGE: dict[str, Any] = {"a": (4000, 5000), "b": (1000,), "c": (4_999_000,)}


def model() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {n: np.asarray(rng.standard_normal(shape), "f4") for n, shape in SHAPES.items()}
    found["b"] = found["b"].astype("f8")
    return found


def gradients(step: int, rank: int) -> dict[str, Any]:
    rng = np.random.default_rng([step, rank])
    found: dict[str, Any] = {n: rng.standard_normal(shape) for n, shape in SHAPES.items()}
    if (step + rank) % 3 == 0:
        found["b"] = None
    return found


def schedule(step: int) -> float:
    return 0.1 / (1 + step)


SETTINGS: dict[str, Any] = {"weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9}


def digest(params: Any, state: Any) -> str:
    found = hashlib.sha256()
    each = [params, *state["state"].values(), state["averages"]]
    for array in (array for arrays in each for array in arrays.values()):
        found.update(np.ascontiguousarray(array).view(np.uint8).tobytes())
    found.update(repr([state[key] for key in ("step_count", "skipped_steps", "steps")]).encode())
    return found.hexdigest()


def in_one_process(size: int) -> str:
    params = model()
    optimizer = instep.LAMB(params, lr=schedule, **SETTINGS)
    for step in range(STEPS):
        for rank in range(size):
            optimizer.accumulate(gradients(step, rank))
        optimizer.step(grad_scale=1 / size)
    return digest(params, optimizer.state_dict())


def made(comm: Any, **more: Any) -> tuple[dict[str, np.ndarray], Any]:
    params = model()
    settings = {"lr": schedule, "shard": True, **SETTINGS, **more}
    return params, instep.mpi.Distributed(instep.LAMB, params, comm=comm, **settings)


def step(optimizer: Any) -> None:
    """Take the next step."""
    comm = optimizer.comm
    optimizer.step(gradients(optimizer.step_count, comm.rank), grad_scale=1 / comm.size)


def trains(comm: Any) -> str:
    """To the end, without leaving by a call."""
    params, optimizer = made(comm)
    for _ in range(STEPS):
        step(optimizer)
    state = optimizer.state_dict()
    # Others have no state: their parameters alone.
    return (
        digest(params, state)
        if optimizer.comm.rank == 0
        else hashlib.sha256(params["w"]).hexdigest()
    )


def trains_and_finalizes(comm: Any) -> str:
    """The transport ends before the interpreter."""
    found = trains(comm)
    if hasattr(comm, "Get_rank"):
        importlib.import_module("mpi4py.MPI").Finalize()
    return found


def one_is_killed(comm: Any) -> str:
    _, optimizer = made(comm)
    while True:
        step(optimizer)
        if optimizer.step_count == MIDDLE and optimizer.comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def one_exits(comm: Any) -> str:
    _, optimizer = made(comm)
    for _ in range(STEPS):
        step(optimizer)
        if optimizer.step_count == MIDDLE and optimizer.comm.rank == 1:
            sys.exit(0)
    return "went on"


def one_raises(comm: Any) -> str:
    """Alone, between two steps."""
    _, optimizer = made(comm)
    for _ in range(STEPS):
        step(optimizer)
        if optimizer.step_count == MIDDLE and optimizer.comm.rank == 1:
            raise ZeroDivisionError("between two steps")
    return "went on"


class Failing:
    """A schedule that fails once on rank 1."""

    def __init__(self, rank: int) -> None:
        self.fails = rank == 1

    def __call__(self, count: int) -> float:
        if count == MIDDLE and self.fails:
            self.fails = False
            raise ZeroDivisionError("in a schedule")
        return schedule(count)


def a_schedule_raises(comm: Any) -> str:
    _, optimizer = made(comm, lr=Failing(rank_of(comm)))
    for _ in range(STEPS):
        step(optimizer)
    return "went on"


def trains_after_refusals(comm: Any) -> str:
    """To the end, between errors of rank 1 that all ranks raise and go on after."""
    bias = SHAPES["bias"]
    if rank_of(comm) == 1:
        SHAPES["bias"] = (39_999,)
    found = [as_found(lambda: made(comm))]
    SHAPES["bias"] = bias
    params, optimizer = made(comm, lr=Failing(rank_of(comm)))
    for _ in range(MIDDLE):
        step(optimizer)
    found.append(as_found(lambda: step(optimizer)))
    if rank_of(comm) == 1:
        lr, optimizer.lr = optimizer.lr, 0.5
    found.append(as_found(lambda: step(optimizer)))
    if rank_of(comm) == 1:
        optimizer.lr = lr
    for _ in range(STEPS - MIDDLE):
        step(optimizer)
    state = optimizer.state_dict()
    return "\n".join(
        [
            *found,
            hashlib.sha256(params["w"]).hexdigest() if state is None else digest(params, state),
        ]
    )


def kilobytes(name: str) -> int:
    """A line of Linux's account of this process."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def fills_memory(comm: Any) -> str:
    """The growth of the memory at its peak, in bytes, with Adam's states and float32 parameters and gradients."""
    params = {n: np.ones(shape, "f4") for n, shape in LARGE.items()}
    grads = {name: np.ones_like(array) for name, array in params.items()}
    before = kilobytes("VmRSS")
    optimizer = instep.mpi.Distributed(instep.Adam, params, comm=comm, clip_norm=1.0)
    for _ in range(3):
        optimizer.step(grads)
    return str((kilobytes("VmHWM") - before) * 1024)


def as_found(work: Any) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return "nothing"


def one_is_late(comm: Any) -> str:
    """And all end as if all were well."""
    _, optimizer = made(comm, timeout=TIMEOUT)
    for _ in range(MIDDLE):
        step(optimizer)
    if optimizer.comm.rank == 1:
        time.sleep(3 * TIMEOUT)
    return as_found(lambda: step(optimizer))


def rank_of(comm: Any) -> int:
    rank = comm.rank
    return int(rank() if callable(rank) else rank)


def main(folder: Path, name: str, transport: str, *numbers: str) -> None:
    dist: Any = None
    if transport == "mpi":
        comm = importlib.import_module("mpi4py.MPI").COMM_WORLD
    else:
        dist = importlib.import_module("torch.distributed")
        rank, size = map(int, numbers)
        store = f"file://{folder / 'store'}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        comm = dist.group.WORLD
    place = folder / str(rank_of(comm))
    try:
        found = globals()[name](comm)
    except Exception as error:
        place.write_text(f"{type(error).__name__} {error}", "utf-8")
        raise
    place.write_text(found, "utf-8")
    if dist is not None:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
