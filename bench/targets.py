"""What instep is to reach: each line a ratio of one run, or a cost, with what was measured beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import loop
from harness import LIMIT, OURS, SAME_ARRAYS
from results import Pieces
from worker import NO_STEP


class Target(NamedTuple):
    what: str
    wanted: float
    at_least: bool
    unit: str
    measure: Callable[[Pieces], float]  # KeyError: that piece, or a peer in it, is missing
    # About the same for a step that takes as long as moving its bytes does or, beside NumPy's in the loop, no time at
    # all: more is not to be had by a better step.
    at_best: Callable[[Pieces], float] | None = None


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


def _targets() -> list[Target]:
    found = []
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
        ("gpt2-momentum", "SGD with momentum, against torch fused", 1.0),
    ):
        both = (_against(row, FUSED), _limit_against(row, FUSED))
        found.append(Target(f"gpt2, {what}", wanted, True, "x", *both))
    unfused = ("torch foreach", "torch loop")
    for workload, wanted in (("mlp", 5.0), ("gpt2", 1.5)):
        what = f"{workload}, RMSprop, against the better of torch foreach and loop"
        found.append(Target(what, wanted, True, "x", _against(f"{workload}-rmsprop", *unfused)))
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
        Target("wheel", 1, False, "MB", lambda pieces: float(pieces["footprint"]["wheel"]) / 1e6),
    ]


TARGETS = _targets()


def judge(passes: Sequence[Pieces]) -> list[Verdict]:
    """Say of each target what the passes have found."""
    return [
        Verdict(target, _figures(target.measure, passes), median_over(target.at_best, passes))
        for target in TARGETS
    ]


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
