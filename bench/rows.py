"""The rows of the step benchmark: what is stepped, by which rule, and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness import LIMIT, OURS, SAME_ARRAYS, Entry
from peers import PEERS
from task import Task

EVERYONE = tuple(PEERS)
# Far below the norm of the gradients: they are always scaled, which costs more than to leave them as they are.
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    task: Task
    peers: tuple[str, ...] = EVERYONE
    # Where a peer's task is not instep's: float32 states where it has no others.
    peer_tasks: dict[str, Task] = field(default_factory=dict)

    def entries(self, peers: Sequence[str]) -> list[Entry]:
        return [Entry(peer, peer, self.peer_tasks.get(peer, self.task)) for peer in peers]


def _rows() -> list[Row]:
    rows = []
    for workload in ("tiny", "mlp", "many", "one1M", "resnet50", "gpt2", "one100M"):
        # Over tiny arrays a step waits for calls, not for memory, and over many small ones Python's lists of them cost.
        no_limits = {"tiny": (LIMIT, SAME_ARRAYS), "many": (SAME_ARRAYS,)}.get(workload, ())
        peers = tuple(peer for peer in EVERYONE if peer not in no_limits)
        rows.append(Row(workload, "Adam, float32", Task(workload), peers))
    rows.append(
        Row(
            "resnet50-side-by-side",
            "Adam, float32, all parameters in one array, all gradients in another",
            Task("resnet50", side_by_side=True),
            (OURS, LIMIT),
        )
    )
    torch = (OURS, LIMIT, "torch fused")
    adam = Task("gpt2")
    rows += [
        Row(
            "gpt2-clip",
            "Adam, float32, clip_norm; torch: clip_grad_norm_, then fused",
            replace(adam, clip_norm=CLIP_NORM),
            torch,
        ),
        Row(
            "gpt2-bfloat16",
            "Adam, weights, gradients and states bfloat16",
            replace(adam, dtype="bfloat16"),
            torch,
        ),
        Row(
            "gpt2-bfloat16-state",
            "Adam, float32 with bfloat16 states; torch: all float32",
            replace(adam, state_dtype="bfloat16"),
            torch,
            {"torch fused": adam},
        ),
        Row("gpt2-float64", "Adam, float64", replace(adam, dtype="float64"), torch),
    ]
    for workload in ("mlp", "gpt2"):
        rows.append(
            Row(
                f"{workload}-rmsprop",
                "RMSprop, float32",
                Task(workload, rule="RMSprop"),
                (OURS, LIMIT, "torch loop", "torch foreach"),
            )
        )
    momentum = Task("gpt2", rule="SGD", settings={"momentum": 0.9})
    return [*rows, Row("gpt2-momentum", "SGD with momentum, float32", momentum, torch)]


ROWS = {row.name: row for row in _rows()}
