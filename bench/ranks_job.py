"""One rank of `bench/ranks.py`, which starts it under mpiexec; rank 0 prints what was found, as JSON.

mpiexec -n 2 python -m mpi4py bench/ranks_job.py {steps,memory} WORKLOAD [--clip] [--seconds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

import instep
import instep.mpi
from instep.mpi import status
from package import turns, workloads
from ranks_parts import PARTS, Parts, TimedRanks, watch

OURS = "instep.mpi.Distributed"
ALLREDUCE = "Allreduce, plain step"
IN_PLACE = "Allreduce in place, plain step"
IN_PARTS = "in parts"
ZERO = "ZeroRedundancyOptimizer, gloo"
SETTINGS: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1}
ROUNDS_OF_STATUS = 2000
IN_A_TURN = 0.2  # seconds, about
MOST_CALLS = 25

Arrays = list[np.ndarray[Any, Any]]


class Contestant(NamedTuple):
    step: Callable[[], None]
    parameters: Callable[[], Arrays]


class Gradients:
    """This rank's gradients in one array, which some contestants spoil: written anew before each step, untimed."""

    def __init__(self, shapes: Any, rank: int) -> None:
        made = workloads.filled(shapes, "float32", 1 + rank)
        self._source = np.concatenate([array.ravel() for array in made])
        self.flat = self._source.copy()
        ends = np.cumsum([array.size for array in made])[:-1]
        pieces = np.split(self.flat, ends)
        self.arrays = [p.reshape(a.shape) for p, a in zip(pieces, made, strict=True)]

    def renew(self) -> None:
        np.copyto(self.flat, self._source)


def ours(comm: Any, shapes: Any, gradients: Gradients, clip: float | None) -> Contestant:
    params = workloads.filled(shapes, "float32", 0)
    opt = instep.mpi.Distributed(instep.AdamW, params, comm=comm, clip_norm=clip, **SETTINGS)
    scale = 1 / comm.size
    return Contestant(lambda: opt.step(gradients.arrays, grad_scale=scale), lambda: params)


def in_parts(
    comm: Any, shapes: Any, gradients: Gradients, clip: float | None, parts: Parts
) -> Contestant:
    timed = TimedRanks(instep.mpi.communicator(comm), parts)
    params = workloads.filled(shapes, "float32", 0)
    opt = instep.mpi.Distributed(instep.AdamW, params, comm=timed, clip_norm=clip, **SETTINGS)
    watch(opt, parts)
    scale = 1 / comm.size

    def step() -> None:
        parts.begin_step()
        opt.step(gradients.arrays, grad_scale=scale)

    return Contestant(step, lambda: params)


def by_allreduce(
    comm: Any, shapes: Any, gradients: Gradients, clip: float | None
) -> dict[str, Contestant]:
    """One call over all gradients, then the step of one process on every rank."""
    params = workloads.filled(shapes, "float32", 0)
    opt = instep.AdamW(params, clip_norm=clip, **SETTINGS)
    total = np.empty_like(gradients.flat)
    sums = np.split(total, np.cumsum([p.size for p in params])[:-1])
    sums = [s.reshape(p.shape) for s, p in zip(sums, params, strict=True)]
    scale = 1 / comm.size

    def apart() -> None:
        comm.Allreduce(gradients.flat, total)
        opt.step(sums, grad_scale=scale)

    def in_place() -> None:
        comm.Allreduce(MPI.IN_PLACE, gradients.flat)
        opt.step(gradients.arrays, grad_scale=scale)

    return {
        ALLREDUCE: Contestant(apart, lambda: params),
        IN_PLACE: Contestant(in_place, lambda: params),
    }


def by_zero(comm: Any, shapes: Any, gradients: Gradients, clip: float | None) -> Contestant:
    """What DDP and ZeroRedundancyOptimizer do: the mean of all gradients in buckets of 25 MB, then its step."""
    import torch  # noqa: PLC0415 - a peer
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: PLC0415

    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = comm.bcast(free.getsockname()[1])
    at = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=at, rank=comm.rank, world_size=comm.size)
    arrays = workloads.filled(shapes, "float32", 0)
    params = [torch.nn.Parameter(torch.from_numpy(a)) for a in arrays]
    flat = torch.from_numpy(gradients.flat)
    for p, g in zip(params, gradients.arrays, strict=True):
        p.grad = torch.from_numpy(g)
    opt = ZeroRedundancyOptimizer(
        params,
        optimizer_class=torch.optim.AdamW,
        parameters_as_bucket_view=True,
        fused=True,
        **SETTINGS,
    )
    buckets = flat.split(25 * 2**20 // 4)

    def step() -> None:
        works = [dist.all_reduce(bucket, async_op=True) for bucket in buckets]
        for work in works:
            work.wait()
        flat.div_(comm.size)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(params, clip)
        opt.step()

    return Contestant(step, lambda: [p.detach().numpy() for p in params])


def steps(comm: Any, workload: str, clip: float | None, seconds: float) -> dict[str, Any]:
    """Let the contestants take turns."""
    shapes = workloads.shapes_of(workload)
    gradients, parts = Gradients(shapes, comm.rank), Parts()
    who = {OURS: ours(comm, shapes, gradients, clip)}
    who |= by_allreduce(comm, shapes, gradients, clip)
    left_out: dict[str, str] = {}
    of_parts: list[tuple[float, dict[str, float], dict[str, int]]] = []
    try:
        who[ZERO] = by_zero(comm, shapes, gradients, clip)
    except ImportError as error:
        left_out[ZERO] = str(error)
    who[IN_PARTS] = in_parts(comm, shapes, gradients, clip, parts)

    def once(label: str) -> tuple[float, float]:
        """Seconds of a step, and of CPU time, on the rank that takes most."""
        gradients.renew()
        parts.clear()
        comm.Barrier()
        began, began_to_work = time.perf_counter(), time.process_time()
        who[label].step()
        took = time.perf_counter() - began, time.process_time() - began_to_work
        longest: float = comm.allreduce(took[0], MPI.MAX)
        if label == IN_PARTS:
            of_parts.append((longest, parts.seconds, parts.bytes_sent))
        return longest, comm.allreduce(took[1], MPI.MAX)

    calls = {}
    for label in who:  # the first step isn't counted
        once(label)
        calls[label] = max(1, min(MOST_CALLS, round(IN_A_TURN / once(label)[0])))
    of_parts.clear()
    load = os.getloadavg()[0]

    rounds: list[dict[str, float]] = []
    worked: list[dict[str, float]] = []
    single: dict[str, list[float]] = {label: [] for label in who}
    end, go_on = time.monotonic() + seconds, True
    while go_on:
        found, cpu = {}, {}
        for label, count in calls.items():
            taken = [once(label) for _ in range(count)]
            single[label] += [seconds for seconds, _ in taken]
            found[label], cpu[label] = map(statistics.median, zip(*taken, strict=True))
        rounds.append(found)
        worked.append(cpu)
        more = len(rounds) < turns.LEAST or time.monotonic() < end
        go_on = comm.bcast(more and len(rounds) < turns.MOST)

    of_parts.sort(key=lambda one: one[0])
    quick = of_parts[: max(1, len(of_parts) // 10)]
    return {
        "contestants": {
            label: {
                "median": statistics.median(r[label] for r in rounds),
                "quickest tenth": float(np.quantile(single[label], 0.1)),
                "cpu": statistics.median(c[label] for c in worked),
                "by instep": turns.ratio([r[label] for r in rounds], [r[OURS] for r in rounds]),
            }
            for label in who
        },
        "parts": {part: statistics.median(s[part] for _, s, _ in quick) for part in PARTS},
        "bytes sent": quick[0][2],
        "status round": _status_round(comm),
        "rounds": len(rounds),
        "calls a turn": calls,
        "left out": left_out,
        "load": [load, os.getloadavg()[0]],
    }


def _status_round(comm: Any) -> dict[str, float]:
    """Seconds of the round with which a step begins, alone."""
    with_ranks = instep.mpi.communicator(comm)
    took = []
    for _ in range(ROUNDS_OF_STATUS):
        began = time.perf_counter()
        status.meet(with_ranks, status.Kind.STEP, 5)
        took.append(time.perf_counter() - began)
    with_ranks.close()
    tenth, *_, last = statistics.quantiles(took, n=10)
    return {"median": statistics.median(took), "quickest tenth": tenth, "slowest tenth": last}


def memory(comm: Any, workload: str, clip: float | None) -> dict[str, Any]:
    """The growth of the peak since before construction, parameters and gradients there already."""
    shapes = workloads.shapes_of(workload)
    gradients = workloads.filled(shapes, "float32", 1 + comm.rank)
    params = workloads.filled(shapes, "float32", 0)
    # What the transport takes for itself, whatever it is for.
    warm = instep.mpi.Distributed(instep.SGD, np.zeros(1 << 20, np.float32), comm=comm, lr=0.1)
    warm.step(np.zeros(1 << 20, np.float32))
    warm.close()
    comm.Barrier()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status_line("VmRSS")
    opt = instep.mpi.Distributed(instep.AdamW, params, comm=comm, clip_norm=clip, **SETTINGS)
    for _ in range(3):
        opt.step(gradients, grad_scale=1 / comm.size)
    grown = _status_line("VmHWM") - before
    elements = workloads.elements(shapes)
    return {
        "peak": comm.allreduce(grown, MPI.MAX),
        "bucket": opt._job.routes.bucket,  # type: ignore[attr-defined]
        "elements": elements,
    }


def _status_line(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["steps", "memory"])
    parser.add_argument("workload")
    parser.add_argument("--clip", action="store_true", help="with clip_norm=1")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    clip = 1.0 if arguments.clip else None
    comm = MPI.COMM_WORLD
    if arguments.what == "memory":
        found = memory(comm, arguments.workload, clip)
    else:
        found = steps(comm, arguments.workload, clip, arguments.seconds)
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
