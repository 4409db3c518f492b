"""The rows of the step benchmark: what is stepped, by which rule, and who takes part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import instep
from harness import ARITHMETIC, LIMIT, SAME_ARRAYS, Entry
from peers import PEERS
from peers.rules_of_optax import OPTAX
from storage_formats import FORMATS, OF_LARGE, THREADS
from task import CODED, OURS, Task, cores
from traffic import is_split

EIGHT_BITS = ("bitsandbytes", "torchao")  # peers that are for 8-bit states alone
EVERYONE = tuple(peer for peer in PEERS if peer not in (ARITHMETIC, *EIGHT_BITS))
TORCH = ("torch loop", "torch foreach", "torch fused")
FUSED = ("Adagrad", "Adam", "AdamW", "SGD")  # that PyTorch has also fused, by its names
RULES_ON = ("mlp", "gpt2")  # the workloads on which every rule has a row
# Far below the norm of the gradients: they are always scaled, which costs more than to leave them as they are.
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    task: Task
    peers: tuple[str, ...] = EVERYONE
    # Where a peer's task is not instep's: float32 states where it has no others, PyTorch's name of a rule.
    peer_tasks: Mapping[str, Task] = field(default_factory=dict)
    rule: str = ""  # of a row in the table of rules: the rule and what was chosen of it
    slow: bool = False  # its peers take seconds for a step

    @property
    def of_pytorch(self) -> bool:
        return not set(TORCH).isdisjoint(self.peers)

    @property
    def brief(self) -> bool:
        """Whether it is measured briefly: one of many alike and no workload's own row, or of slow peers."""
        return self.slow or (bool(self.rule) and self.name != self.task.workload)

    @property
    def fits(self) -> bool:
        """Whether this machine has as many cores as its task has threads."""
        return (self.task.threads or 1) <= cores()

    def entries(self, peers: Sequence[str]) -> list[Entry]:
        return [Entry(peer, peer, self.peer_tasks.get(peer, self.task)) for peer in peers]


def _rows() -> list[Row]:
    rows = []
    for workload in ("tiny", "mlp", "many", "one1M", "resnet50", "gpt2", "one100M"):
        # Over tiny arrays a step waits for calls, not for memory, and over many small ones Python's lists of them cost.
        no_limits = {"tiny": (LIMIT, SAME_ARRAYS), "many": (SAME_ARRAYS,)}.get(workload, ())
        peers = tuple(peer for peer in EVERYONE if peer not in no_limits)
        rule = "Adam" if workload in RULES_ON else ""
        rows.append(Row(workload, "Adam, float32", Task(workload), peers, rule=rule))
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
    rows += _stored()
    return rows + [_row_of(*one, on) for one in _rules() if one[0] != "Adam" for on in RULES_ON]


def name_stored(name: str, threads: int) -> str:
    return f"gpt2-{name}-{threads}-threads"


def _stored() -> Iterator[Row]:
    """Ways to store states and parameters; PyTorch's AdamW has float32 throughout."""
    for threads in THREADS:
        plain = Task("gpt2", rule="AdamW", threads=threads)
        for name in OF_LARGE:
            peers = (OURS, LIMIT, ARITHMETIC, "torch fused")
            yield Row(
                name_stored(name, threads),
                f"AdamW, {FORMATS[name].title}, {threads} threads; torch: all float32",
                FORMATS[name].of(plain),
                peers,
                {"torch fused": plain},
            )
    task = FORMATS[CODED].of(Task("gpt2", rule="AdamW", threads=THREADS[0]))
    title = f"AdamW, {FORMATS[CODED].title}, {THREADS[0]} threads"
    yield Row("gpt2-8bit-peers", title, task, (OURS, *EIGHT_BITS), slow=True)


def rules() -> dict[str, type[instep.Optimizer]]:
    """Every rule of instep that steps arrays of any number of dimensions, by its name."""
    public = (getattr(instep, name) for name in instep.__all__)
    classes = (c for c in public if isinstance(c, type) and issubclass(c, instep.Optimizer))
    return {rule.__name__: rule for rule in classes if rule._rule and _steps_vectors(rule)}


def _steps_vectors(rule: type[instep.Optimizer]) -> bool:
    try:
        rule(np.zeros(1))
    except ValueError:  # a rule for matrices alone
        return False
    return True


def _rules() -> Iterator[tuple[str, type[instep.Optimizer], dict[str, Any]]]:
    """What has a row on each workload: its name there, the rule, and settings other than its defaults."""
    for name, rule in rules().items():
        yield name, rule, {}
    yield "Adam with clip_update", instep.Adam, {"clip_update": 1.0}


def _row_of(label: str, rule: type[instep.Optimizer], settings: dict[str, Any], on: str) -> Row:
    task = Task(on, rule=rule.__name__, settings=settings)
    their = {} if settings else dict.fromkeys(_forms(rule), _torchs(rule, task))
    peers = {OURS, LIMIT, *their, *({"optax"} if rule.__name__ in OPTAX and not settings else ())}
    if on == "gpt2" and not is_split(task):  # where memory is the limit
        peers.add(SAME_ARRAYS)
    named = tuple(peer for peer in EVERYONE if peer in peers)
    name = f"{on}-{label.lower().replace(' with ', '-').replace('_', '-')}"
    return Row(name, f"{label}, float32", task, named, their, label)


def _forms(rule: type[instep.Optimizer]) -> tuple[str, ...]:
    """The contestants that are PyTorch's forms of the rule."""
    if rule._torch is None:
        return ()
    return TORCH if rule._torch.name in FUSED else TORCH[:-1]


def _torchs(rule: type[instep.Optimizer], task: Task) -> Task:
    """The same task in PyTorch's names."""
    if rule._torch is None:
        return task
    (group,) = rule(np.zeros(1)).param_groups
    settings = {name: group[name] for name in rule._torch.hyperparameters if name != "lr"}
    return replace(task, rule=rule._torch.name, settings=settings)


ROWS = {row.name: row for row in _rows()}
RULES = {(row.rule, row.task.workload): row for row in ROWS.values() if row.rule}
