"""A model of what a step of several ranks costs: the calls that it makes, the bytes that it moves, how fast both go.

The counts are those of `instep.mpi`; the speeds are given. With N ranks, P parameters of b bytes, and gradients of as
many, a rank takes

    status        1 swap
    gradients     2 K swaps,  K (N-1) messages,  (N-1)/N b P bytes out and as many in
    sums          (N+1)/N b P bytes of memory: the gradients of all ranks for its share, and the sum
    norm          1 swap,  N-1 messages,  8 bytes a chunk
    sweep         28/N P bytes of memory (AdamW in float32: gradient, parameter and two states; all but the first
                  are written back)
    parameters    K swaps,  K (N-1) messages,  (N-1)/N b P bytes out and as many in

A swap gives every rank a frame of 128 bytes of every other: it takes `latency` and, for each other rank, `message`.
K, the number of buckets, is the largest shard by a bucket's part for one rank, which is a chunk at least. A bucket
is the largest shard, but at least 8 MiB and at most 64 MiB. Small models move all gradients to all ranks at once, and
every rank sums and steps everything.

    python bench/ranks_model.py

prints the predictions for 64 hosts that docs/ranks-speed.md has. `bench/ranks.py` fits the speeds to what it measures
on one host with two ranks, and prints what the model says of four beside what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, NamedTuple

from ranks_parts import GRADIENTS, NORM, OVER_THE_WIRE, PARAMETERS, STATUS, SUMS, SWEEP
from tables import duration, markdown_table

# As in instep.mpi.
CHUNK, SMALL = 16_384, 4 << 20
LARGEST_BUCKET, LEAST_BUCKET = 64 << 20, 8 << 20
SWEEP_BYTES = 28  # an element, of AdamW in float32


class Wire(NamedTuple):
    """What connects the ranks. `bandwidth` is a rank's, each way at the same time."""

    latency: float  # seconds of a swap between two
    message: float  # seconds more for each message
    bandwidth: float  # bytes a second


class Machine(NamedTuple):
    """What a rank computes with: bytes a second that its sweep and its sums move."""

    sweep: float
    sums: float


# One rank a host, TCP over 25 Gbit/s: the line rate, and a latency that such networks have. The memory is that of one
# core of the machine of docs/ranks-speed.md, beside another that is as busy.
NETWORK = Wire(latency=30e-6, message=2e-6, bandwidth=25e9 / 8)
HOST = Machine(sweep=30e9, sums=11e9)


def bucket_bytes(largest_shard: float) -> float:
    """The size of a bucket."""
    return min(LARGEST_BUCKET, max(LEAST_BUCKET, largest_shard))


def buckets(elements: int, ranks: int, width: int = 4) -> int:
    """How many buckets a step of one large array moves, each way."""
    chunks = ceil(elements / CHUNK)
    shard = min(elements, ceil(chunks / ranks) * CHUNK) * width
    share = max(int(bucket_bytes(shard)) // ranks, CHUNK * width)
    return ceil(shard / (share // (CHUNK * width) * CHUNK * width))


def is_shared(elements: int, ranks: int, width: int = 4) -> bool:
    """Whether `shard="auto"` shares out states and step."""
    return ranks > 1 and elements * width * ranks >= SMALL


def predict(
    elements: int, ranks: int, wire: Wire, machine: Machine, *, clip: bool = False, width: int = 4
) -> dict[str, float]:
    """Seconds of each part of a step."""
    others, size = ranks - 1, elements * width
    swap = wire.latency + others * wire.message if others else 0.0
    if not is_shared(elements, ranks, width):
        return {
            STATUS: swap,
            GRADIENTS: swap + others * (wire.message + size / wire.bandwidth),
            SUMS: (ranks + 1) * size / machine.sums,
            NORM: 0.0,
            SWEEP: SWEEP_BYTES * elements / machine.sweep,
            PARAMETERS: 0.0,
        }
    count = buckets(elements, ranks, width)
    moved = others / ranks * size / wire.bandwidth + count * others * wire.message
    sums = 8 * others / ranks * elements / CHUNK / wire.bandwidth
    return {
        STATUS: swap,
        GRADIENTS: 2 * count * swap + moved,
        SUMS: (ranks + 1) / ranks * size / machine.sums,
        NORM: swap + others * wire.message + sums if clip else 0.0,
        SWEEP: SWEEP_BYTES * elements / ranks / machine.sweep,
        PARAMETERS: count * swap + moved,
    }


def by_allreduce(elements: int, ranks: int, wire: Wire, machine: Machine, width: int = 4) -> float:
    """Seconds of a ring's all-reduce, which adds what comes to what is there, and of the whole step on every rank."""
    share = (ranks - 1) / ranks * elements * width
    calls = 2 * (ranks - 1) * (wire.latency + wire.message)
    moved = 2 * share / wire.bandwidth + 3 * share / machine.sums
    return calls + moved + SWEEP_BYTES * elements / machine.sweep


def memory(elements: int, ranks: int, width: int = 4) -> float:
    """Bytes that a rank takes: parameters, gradients, Adam's states and sums, two buckets or what moves."""
    size = elements * width
    bucket = min(bucket_bytes(size / ranks), size * (ranks - 1) / ranks)
    return 2 * size + 12 * elements / ranks + 2 * bucket


def fitted(found: Sequence[Mapping[str, Any]]) -> tuple[Wire, Machine]:
    """The speeds of one host, by the medians of what some runs say that share out their step.

    `found` has a run's elements, ranks, and seconds of the parts and of the status round alone.
    """
    moved, swept, summed = [], [], []
    for run in found:
        size, ranks, parts = 4 * run["elements"], run["ranks"], run["parts"]
        moved += [(ranks - 1) / ranks * size / parts[part] for part in (GRADIENTS, PARAMETERS)]
        swept.append(SWEEP_BYTES / 4 * size / ranks / parts[SWEEP])
        summed.append((ranks + 1) / ranks * size / parts[SUMS])
    swap = median(run["status round"]["median"] for run in found)
    return Wire(swap, 0.0, median(moved)), Machine(median(swept), median(summed))


def crowded(wire: Wire, machine: Machine, share: float) -> tuple[Wire, Machine]:
    """The speeds of ranks that have this share of a core each: on one host, cores also move what they exchange."""
    return (
        wire._replace(bandwidth=wire.bandwidth * share),
        Machine(machine.sweep * share, machine.sums * share),
    )


def size_text(elements: int) -> str:
    return next(f"{elements / n:g} {t}" for n, t in ((10**9, "G"), (10**6, "M")) if elements >= n)


def network_table(
    sizes: Iterable[int] = (10**6, 25 * 10**6, 10**9), ranks: Iterable[int] = (2, 8, 64)
) -> list[tuple[str, ...]]:
    """Steps over a network of 25 Gbit/s, one rank a host."""
    rows: list[tuple[str, ...]] = [
        (
            "parameters",
            "hosts",
            "a step",
            "of it the wire",
            "Allreduce, plain step",
            "memory a rank",
        )
    ]
    for elements in sizes:
        for n in ranks:
            parts = predict(elements, n, NETWORK, HOST, clip=True)
            total = sum(parts.values())
            wire = sum(parts[part] for part in OVER_THE_WIRE)
            other = by_allreduce(elements, n, NETWORK, HOST)
            rows.append(
                (
                    size_text(elements),
                    str(n),
                    duration(total),
                    f"{wire / total:.0%}",
                    duration(other),
                    f"{memory(elements, n) / 1e9:,.3g} GB",
                )
            )
    return rows


if __name__ == "__main__":
    print(markdown_table(network_table()))
