"""How many threads a step takes is found out by trying: here on machines made up for the purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from reference import assert_same_bits

import instep
from instep import _core

MILLISECOND = 1_000_000
MIDDLING = 1 << 23  # bytes
Machine = Callable[[int], float]  # threads -> milliseconds


def steps(
    pace: _core.testing.Pace, machine: Machine, count: int, most: int = 2, work: int = MIDDLING
) -> list[int]:
    """Threads of each of so many steps."""
    taken = []
    for _ in range(count):
        threads = pace.choose(most, work)
        taken.append(threads)
        if pace.timed:
            pace.took(round(machine(threads) * MILLISECOND))
    return taken


def idle_cores(threads: int) -> float:
    return 1 / threads


def busy_cores(threads: int) -> float:
    return 1.0 if threads == 1 else 1.5


def best_is_four(threads: int) -> float:
    return {1: 8.0, 2: 4.5, 4: 2.5, 8: 3.0, 16: 6.0}[threads]


@pytest.mark.parametrize("work", [MIDDLING, 1 << 25])
@pytest.mark.parametrize(("machine", "best"), [(idle_cores, 2), (busy_cores, 1)])
def test_what_is_quicker_stays(machine: Machine, best: int, work: int) -> None:
    taken = steps(_core.testing.make_pace(), machine, 10_000, work=work)
    assert Counter(taken[:100]).most_common(1)[0][0] == best, "soon"
    assert taken[1000:].count(best) / 9000 > 0.99, "and trials are rare"
    assert len(set(taken[5000:])) == 2, "but never cease"


def test_the_machine_changes() -> None:
    pace = _core.testing.make_pace()
    steps(pace, idle_cores, 5_000)
    assert steps(pace, busy_cores, 3_000)[-100:].count(1) > 90
    assert steps(pace, idle_cores, 3_000)[-100:].count(2) > 90


def test_halving_and_doubling_find_the_best_of_many() -> None:
    for work in (MIDDLING, 1 << 25):  # from either end
        taken = steps(_core.testing.make_pace(), best_is_four, 2_000, most=16, work=work)
        assert Counter(taken[500:]).most_common(1)[0][0] == 4
        assert set(taken) <= {1, 2, 4, 8, 16}


def test_both_neighbours_are_tried() -> None:
    taken = steps(_core.testing.make_pace(), best_is_four, 8_000, most=16)
    assert set(taken[2000:]) == {2, 4, 8}


@pytest.mark.parametrize(("work", "first"), [(MIDDLING, 1), (1 << 25, 16)])
def test_where_it_begins(work: int, first: int) -> None:
    assert steps(_core.testing.make_pace(), best_is_four, 5, most=16, work=work) == [first] * 5


@pytest.mark.parametrize(
    ("trial", "after"),
    [
        ([9.0, 0.5, 0.5, 9.0], 2),  # an interruption doesn't decide
        ([1.0, 0.1, 1.0, 1.0], 1),  # nor does a lucky one
        ([0.1, 1.0, 1.0, 1.0], 1),  # and the first doesn't count
        ([1.0, 0.97, 0.97, 0.97], 1),  # what gains less than two timings of the same differ by
        ([1.0, 0.93, 0.93, 0.93], 2),
    ],
)
def test_what_a_trial_decides(trial: list[float], after: int) -> None:
    """One thread takes a millisecond in each of five steps, then two take these."""
    times = iter([1.0] * 5 + trial + [1.0])
    taken = steps(_core.testing.make_pace(), lambda _: next(times), 10)
    assert taken == [1] * 5 + [2] * 4 + [after]


def test_a_hundred_disturbed_steps_in_a_thousand_change_nothing() -> None:
    """The system is away now and then, for a while: in the mean two threads are still the quicker."""
    rng = np.random.default_rng(4)
    count = 0

    def disturbed(threads: int) -> float:
        nonlocal count
        count += 1
        away = threads == 2 and 60 <= count % 1000 < 160 and rng.random() < 0.3
        return 8.0 if away else 1 / threads

    taken = steps(_core.testing.make_pace(), disturbed, 30_000)
    assert taken[2000:].count(2) / 28_000 > 0.85


def test_one_interruption_before_a_trial_makes_it_no_longer() -> None:
    times = iter([1.0, 1.0, 30.0, 1.0, 1.0] + [1.5] * 4 + [1.0])
    taken = steps(_core.testing.make_pace(), lambda _: next(times), 10)
    assert taken == [1] * 5 + [2] * 4 + [1]


def test_half_the_work_in_half_the_time_is_no_gain() -> None:
    pace = _core.testing.make_pace()
    assert steps(pace, lambda _: 1.0, 5) == [1] * 5
    assert steps(pace, lambda _: 0.5, 4, work=MIDDLING // 2) == [2] * 4
    assert steps(pace, lambda _: 1.0, 1) == [1]


def test_after_a_change_the_next_trial_comes_soon() -> None:
    pace = _core.testing.make_pace()
    steps(pace, busy_cores, 1_000)
    taken = steps(pace, idle_cores, 1_000)
    begin = taken.index(2)
    assert begin > 50, "trials had become rare"
    assert taken[begin : begin + 13] == [2] * 9 + [1] * 4


def test_interruptions_change_nothing() -> None:
    """One step in ten takes twenty times as long, whatever the threads."""
    rng = np.random.default_rng(1)
    taken = steps(
        _core.testing.make_pace(),
        lambda n: idle_cores(n) * (20 if rng.random() < 0.1 else 1),
        20_000,
    )
    assert taken[2000:].count(2) / 18_000 > 0.9


def test_threads_that_others_interrupt_cost_more_than_they_gain() -> None:
    """Two halve nearly every step, but one in fifty of theirs waits for a core that others hold."""
    rng = np.random.default_rng(3)

    def beside_others(threads: int) -> float:
        return 1.0 if threads == 1 else 40.0 if rng.random() < 0.02 else 0.5

    for work in (MIDDLING, 1 << 25):
        taken = steps(_core.testing.make_pace(), beside_others, 20_000, work=work)
        assert taken[2000:].count(1) / 18_000 > 0.8


def test_long_steps_and_single_threads_are_not_tried() -> None:
    pace = _core.testing.make_pace()
    assert set(steps(pace, busy_cores, 100, work=1 << 30)) == {2}
    assert set(steps(pace, busy_cores, 100, most=1)) == {1}
    assert not pace.timed


def test_another_limit_begins_anew() -> None:
    pace = _core.testing.make_pace()
    assert set(steps(pace, best_is_four, 500, most=4)[-50:]) <= {2, 4}
    assert max(steps(pace, best_is_four, 500, most=2)) == 2


def test_trials_leave_no_trace_in_the_bits() -> None:
    rng = np.random.default_rng(2)
    start, grads = rng.standard_normal(150_000), rng.standard_normal((3, 150_000))
    results = []
    for threads in (1, 2):
        p = start.astype("f4")
        optimizer = instep.Adam(p, clip_norm=100.0)
        with instep.num_threads(threads):
            for k in range(60):
                optimizer.step(grads[k % 3])
        results.append(p)
    assert_same_bits(*results, "with and without trials")


def test_a_pace_is_made_by_the_core_alone() -> None:
    with pytest.raises(TypeError, match="is not safe"):
        _core.testing.Pace.__new__(_core.testing.Pace)
