"""What instep is to reach: each line a ratio of one run, or a cost, with what was measured beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import loop
import programs
import training
from harness import ARITHMETIC, LIMIT, SAME_ARRAYS
from results import Pieces
from rows import EIGHT_BITS, RULES, RULES_ON, TORCH, Row, name_stored
from storage_formats import FORMATS, OF_LARGE, THREADS
from task import CODED, NO_STEP, OURS
from traffic import sums_of


class Target(NamedTuple):
    what: str
    wanted: float
    at_least: bool
    unit: str
    measure: Callable[[Pieces], float]  # KeyError: that piece, or a peer in it, is missing
    # About the same for a step that takes as long as moving its bytes does or, beside NumPy's in the loop, no time at
    # all: more is not to be had by a better step.
    at_best: Callable[[Pieces], float] | None = None


class Least(NamedTuple):
    """What several are to reach, each at least: one line, that of the one which reaches least."""

    what: str
    targets: Sequence[Target]


COLUMNS = ("what", "wanted", "measured", "by pass", "passes", "at best", "")  # of Verdict.cells


class Verdict(NamedTuple):
    target: Target
    found: list[float]  # by pass
    at_best: float | None

    @property
    def measured(self) -> float | None:
        return statistics.median(self.found) if self.found else None

    @property
    def met(self) -> bool | None:
        return None if self.measured is None else self._meets(self.measured)

    def _meets(self, value: float) -> bool:
        wanted = self.target.wanted
        return value >= wanted if self.target.at_least else value <= wanted

    def cells(self) -> tuple[str, ...]:
        target = self.target
        bound = "at least" if target.at_least else "at most"
        spread = (
            " .. ".join(map(_digits, (min(self.found), max(self.found)))) if self.found else "-"
        )
        figures = [
            "-" if value is None else f"{_digits(value)} {target.unit}"
            for value in (self.measured, self.at_best)
        ]
        met = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        agree = sum(self._meets(value) == self.met for value in self.found)
        if agree < len(self.found):
            met += f" ({agree} of {len(self.found)})"
        wanted = f"{bound} {target.wanted:g} {target.unit}"
        return (target.what, wanted, figures[0], spread, str(len(self.found)), figures[1], met)


def _digits(value: float) -> str:
    return f"{value:.{3 if value < 2 else 2}f}"  # where a hair's breadth may decide


def _against(row: str, *peers: str) -> Callable[[Pieces], float]:
    """How many times as long as instep's the best of these peers' steps takes."""

    def measure(pieces: Pieces) -> float:
        contestants = pieces[f"step/{row}"]["contestants"]
        return min(float(contestants[peer]["by instep"]) for peer in peers)

    return measure


def _limit_against(row: str, *peers: str, limit: str = LIMIT) -> Callable[[Pieces], float]:
    """The same for the memory limit in instep's place."""
    return lambda pieces: _against(row, *peers)(pieces) / _against(row, limit)(pieces)


def _pytorchs_best(row: str, pieces: Pieces) -> float:
    return best_of(TORCH, pieces[f"step/{row}"]["contestants"])[1]


def best_of(peers: Sequence[str], contestants: Pieces) -> tuple[str, float]:
    """The quickest of those peers that took part, and its time by instep's; KeyError: none did."""
    found = {peer: float(contestants[peer]["by instep"]) for peer in peers if peer in contestants}
    if not found:
        raise KeyError(*peers)
    return min(found.items(), key=lambda one: one[1])


def loop_ratio(batch: int, others: Sequence[str], *peers: str) -> Callable[[Pieces], float]:
    """How many times as long as the best of others the best of these training loops takes."""

    def measure(pieces: Pieces) -> float:
        contestants = pieces[f"loop/{batch}"]["contestants"]
        best, least = (
            min(float(contestants[peer]["by instep"]) for peer in those)
            for those in (peers, others)
        )
        return best / least

    return measure


def _growth(pieces: Pieces) -> float:
    """How much more than the memory limit's the time for a parameter grows from there to 10⁸, at most."""
    lag = {
        size: 1 / pieces[f"scaling/{size}"]["contestants"][LIMIT]["by instep"]
        for size in (10**6, 10**7, 10**8)
    }
    return float(max(lag[10**8] / lag[size] for size in (10**6, 10**7)))


def _extra(name: str, whose: str, pieces: Pieces) -> float:
    found = pieces["extras"]["extras"][name]
    return float(found[whose] / found["bytes"])


FUSED = "torch fused"


# At least so many times as fast as PyTorch's best: where that is fused, and where PyTorch has no fused form.
BY_PYTORCH = {"gpt2": (1.0, 1.5), "mlp": (1.7, 5.0)}
OF_THE_LIMIT = 0.95, 0.9  # without sums over a tensor, and with them


def _of_rules() -> Iterator[Least]:
    """Of Adam there are lines of its own."""
    rows = [row for row in RULES.values() if row.brief]
    large = [row for row in rows if row.task.workload == "gpt2"]
    for summed, wanted in enumerate(OF_THE_LIMIT):
        those = [row for row in large if (sums_of(row.task) is not None) == summed]
        what = f"gpt2, rules {'with' if summed else 'without'} sums, of the memory limit"
        yield Least(what, [_by_the_limit(row, wanted) for row in those])
    for workload in RULES_ON:
        for unfused, wanted in enumerate(BY_PYTORCH[workload]):
            those = [row for row in rows if row.task.workload == workload and row.of_pytorch]
            those = [row for row in those if (FUSED not in row.peers) == unfused]
            what = f"{workload}, rules that PyTorch has {'not ' if unfused else ''}fused, against its best"
            yield Least(what, [_by_pytorch(row, wanted) for row in those])


def _by_the_limit(row: Row, wanted: float) -> Target:
    at_best = _limit_against(row.name, LIMIT, limit=SAME_ARRAYS)
    return Target(row.rule, wanted, True, "x", _against(row.name, LIMIT), at_best)


def _by_pytorch(row: Row, wanted: float) -> Target:
    best = partial(_pytorchs_best, row.name)
    limit = _against(row.name, LIMIT)
    return Target(row.rule, wanted, True, "x", best, lambda pieces: best(pieces) / limit(pieces))


def _trained(piece: str, row: str, who: str) -> Callable[[Pieces], float]:
    """The time of one of PyTorch's forms, or the best of all forms, by instep's."""

    def measure(pieces: Pieces) -> float:
        contestants = pieces[f"torch/{piece}"]["rows"][row]["contestants"]
        return best_of(training.TORCH if who == BEST else [who], contestants)[1]

    return measure


BEST = "PyTorch's best"


def _each_beyond_memory(piece: str, pieces: Pieces) -> float:
    """The time of a step beyond that of moving its bytes, in microseconds a tensor."""
    contestants = pieces[f"torch/{piece}"]["rows"][programs.STEP]["contestants"]
    limit = min(contestants[who]["by instep"] for who in (LIMIT, SAME_ARRAYS) if who in contestants)
    tensors = len(training.PIECES[piece][programs.STEP][0].task.shapes)
    return float(contestants[OURS]["median"] * (1 - limit) * 1e6 / tensors)


def _in_pytorch() -> Iterator[Target | Least]:
    small, large = (
        {
            f"{threads} thread{'s' if threads > 1 else ''}": f"{one.model}/{threads}"
            for threads in training.THREADS
        }
        for one in training.TRAININGS
    )
    for pieces, row, who, wanted in (
        (small, programs.ITERATION, programs.DEFAULT, 1.4),
        (small, programs.ITERATION, programs.FUSED, 1.15),
        (large, programs.ITERATION, programs.FUSED, 1.0),
        (large, programs.STEP, programs.FUSED, 3.0),
    ):
        model = next(iter(pieces.values())).partition("/")[0]
        yield Least(
            f"{model} in PyTorch, {row}, against {who}",
            [
                Target(on, wanted, True, "x", _trained(piece, row, who))
                for on, piece in pieces.items()
            ],
        )
    yield Target(
        "actor-critic in PyTorch, a step over its 12 tensors",
        9.0,
        False,
        "us",
        lambda pieces: (
            1e6
            * float(
                pieces["torch/actor-critic/1"]["rows"][programs.STEP]["contestants"][OURS]["median"]
            )
        ),
    )
    yield Target(
        "transformer-160 in PyTorch, a tensor's step beyond memory",
        1.0,
        False,
        "us",
        partial(_each_beyond_memory, "transformer-160/1"),
    )
    for one in training.TRAININGS:
        yield Least(
            f"{one.model} in PyTorch, every rule's step, against {BEST}",
            [
                Target(rule, 1.0, True, "x", _trained(f"{one.model}/rules", rule, BEST))
                for rule in training.RULES
            ],
        )


# In the caches on one thread, by the time of the same step in float32.
IN_THE_CACHES = {CODED: 2.2, "bfloat16-remainder-8bit": 2.8, "bfloat16-states": 1.7}
OF_THE_SLOWER = 0.9  # of its bytes and its arithmetic
BY_FLOAT32 = {CODED: 1.5, "bfloat16-remainder-8bit": 2.0, "bfloat16-stochastic-8bit": 2.2}
BY_EIGHT_BITS = 25


def _of_storage() -> Iterator[Target | Least]:
    for name, wanted in IN_THE_CACHES.items():
        what = f"in the caches, one thread, {FORMATS[name].title}: time by float32's"
        yield Target(what, wanted, False, "x", partial(_in_the_caches, name))
    few, many = THREADS
    yield Least(
        f"gpt2, {few} threads, stored narrow, of the slower of bytes and arithmetic",
        [
            Target(FORMATS[name].title, OF_THE_SLOWER, True, "x", partial(_of_the_slower, name))
            for name in OF_LARGE
        ],
    )
    for peer in EIGHT_BITS:
        what = f"gpt2, {few} threads, AdamW with 8-bit states, against {peer}"
        yield Target(what, BY_EIGHT_BITS, True, "x", _against("gpt2-8bit-peers", peer))
    for name, wanted in BY_FLOAT32.items():
        row = name_stored(name, many)
        what = f"gpt2, {many} threads, {FORMATS[name].title}, against torch fused in float32"
        both = (_against(row, FUSED), _limit_against(row, FUSED))
        yield Target(what, wanted, True, "x", *both)


def _in_the_caches(name: str, pieces: Pieces) -> float:
    return float(pieces["storage"]["formats"][name]["time"])


def _of_the_slower(name: str, pieces: Pieces) -> float:
    contestants = pieces[f"step/{name_stored(name, THREADS[0])}"]["contestants"]
    return max(float(contestants[which]["by instep"]) for which in (LIMIT, ARITHMETIC))


def _targets() -> list[Target | Least]:
    found: list[Target | Least] = []
    in_the_caches = {"tiny": 25, "mlp": 1.7, "many": 60, "one1M": 1.5}
    beyond = {"resnet50": 1.0, "gpt2": 1.0, "one100M": 1.0}
    for row, wanted in (in_the_caches | beyond).items():
        both = (_against(row, FUSED), _limit_against(row, FUSED))
        found.append(Target(f"{row}, Adam, against torch fused", wanted, True, "x", *both))
        if row in in_the_caches:
            continue
        found.append(
            Target(
                f"{row}, Adam, of the memory limit",
                0.95,
                True,
                "x",
                _against(row, LIMIT),
                _limit_against(row, LIMIT, limit=SAME_ARRAYS),
            )
        )
    for row, what, wanted in (
        ("gpt2-clip", "clip_norm, against clip_grad_norm_ and torch fused", 1.35),
        ("gpt2-bfloat16", "bfloat16 throughout, against torch fused in bfloat16", 1.3),
        ("gpt2-bfloat16-state", "bfloat16 state, against torch fused in float32", 1.3),
        ("gpt2-float64", "float64, against torch fused in float64", 1.0),
    ):
        both = (_against(row, FUSED), _limit_against(row, FUSED))
        found.append(Target(f"gpt2, {what}", wanted, True, "x", *both))
    found += _of_storage()
    found += _of_rules()
    found += _in_pytorch()
    in_loop = partial(loop_ratio, loop.JUDGED)
    by_batch = f"loop, batch {loop.JUDGED}: an iteration"
    return [
        *found,
        Target(
            f"{by_batch} / without a step",
            1.25,
            False,
            "x",
            in_loop([NO_STEP], OURS),
            in_loop([NO_STEP], *loop.LIMITS),
        ),
        *(
            Target(
                f"{by_batch}, {what}", 3.0, True, "x", in_loop([OURS], *by), in_loop([NO_STEP], *by)
            )
            for what, by in (
                ("against NumPy's Adam, as a program begins", ("NumPy",)),
                ("against NumPy's at its best", loop.NUMPY_AT_ITS_BEST),
            )
        ),
        Target("time a parameter, 10⁶ or 10⁷ to 10⁸, by the limit's", 1.1, False, "x", _growth),
        *(
            Target(
                f"Adam with clip_norm, ema_decay, copy_to {kind}: time / bytes",
                1.1,
                False,
                "x",
                partial(_extra, f"all three, {kind}", "time"),
                partial(_extra, f"all three, {kind}", "memory limit"),
            )
            for kind in ("float16", "bfloat16")
        ),
        Target(
            "import instep, beyond import numpy",
            20,
            False,
            "ms",
            lambda pieces: 1e3 * float(pieces["footprint"]["import instep"]),
        ),
        Target("wheel", 2, False, "MB", lambda pieces: float(pieces["footprint"]["wheel"]) / 1e6),
    ]


TARGETS = _targets()


def judge(passes: Sequence[Pieces]) -> list[Verdict]:
    """Say of each target what the passes have found."""
    return [
        _least(target, passes) if isinstance(target, Least) else _verdict(target, passes)
        for target in TARGETS
    ]


def _verdict(target: Target, passes: Sequence[Pieces]) -> Verdict:
    found = _figures(target.measure, passes)
    return Verdict(target, found, median_over(target.at_best, passes))


def _least(of: Least, passes: Sequence[Pieces]) -> Verdict:
    """Of the one that reaches least, which is named, with the others that miss it."""
    verdicts = [_verdict(target, passes) for target in of.targets]
    measured = sorted((v for v in verdicts if v.found), key=lambda v: v.measured or 0.0)
    if not measured:
        return verdicts[0]._replace(target=of.targets[0]._replace(what=of.what))
    first, *others = measured
    missed = [other.target.what for other in others if not other.met]
    what = f"{of.what}: {first.target.what}, the least of {len(measured)}"
    what += f" (also missed by {', '.join(missed)})" if missed else ""
    return first._replace(target=first.target._replace(what=what))


def _figures(measure: Callable[[Pieces], float], passes: Sequence[Pieces]) -> list[float]:
    found = []
    for pieces in passes:
        try:
            found.append(measure(pieces))
        except KeyError:  # a piece or a peer is missing
            continue
    return found


def median_over(
    measure: Callable[[Pieces], float] | None, passes: Sequence[Pieces]
) -> float | None:
    """The median of what the passes have found; None where none has."""
    found = _figures(measure, passes) if measure else []
    return statistics.median(found) if found else None
