"""Any ramp: between its ends, one way, its warm-up and its stored form included."""

import contextlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from instep.schedules import (
    CosineDecay,
    CosineRestarts,
    HalfLife,
    Linear,
    PiecewiseConstant,
    PiecewiseLinear,
    PolynomialDecay,
    Sequential,
    Shifted,
    Warmup,
    WarmupStableDecay,
    from_dict,
)

LARGEST = np.finfo(np.float64).max
numbers = st.floats(-1e6, 1e6)
lengths = st.integers(1, 10**6)
times = st.one_of(st.integers(0, 10**7), st.floats(0, 1e7), st.floats(0, 1e300))
ramps = st.one_of(
    st.builds(Linear, numbers, numbers, lengths),
    st.builds(CosineDecay, numbers, lengths, numbers, st.floats(0.1, 10)),
    st.builds(HalfLife, st.floats(1e-3, 0.999999), st.floats(1e-3, 0.999999), lengths),
    st.builds(lambda a, b, n: PiecewiseLinear([a, b], [n]), numbers, numbers, lengths),
    st.builds(PolynomialDecay, numbers, lengths, numbers, st.floats(0.1, 10)),
    st.builds(
        WarmupStableDecay,
        numbers,
        st.just(0),
        lengths,
        lengths,
        st.just(0.0),
        numbers,
        st.sampled_from(["linear", "cosine", "sqrt"]),
    ),
)


def first_and_last(schedule):
    values = schedule.to_dict()
    if "values" in values:
        return values["values"]
    return values.get("init") if "peak" not in values else values["peak"], values["end"]


@given(ramps, times)
def test_ramp_stays_between_its_ends(schedule, t):
    first, last = first_and_last(schedule)
    slack = 1e-12 * max(abs(first), abs(last))
    assert min(first, last) - slack <= schedule(t) <= max(first, last) + slack


@given(ramps, times, times)
def test_ramp_goes_one_way(schedule, t, u):
    first, last = first_and_last(schedule)
    slack = 1e-12 * max(abs(first), abs(last))
    way = schedule(max(t, u)) - schedule(min(t, u))
    assert way >= -slack if last >= first else way <= slack


@given(
    st.integers(1, 10**4),
    st.one_of(st.just(1.0), st.sampled_from([2.0, 3.0]), st.floats(1.000001, 1e6)),
    st.floats(0.1, 1.0),
    times,
)
def test_restarts_stay_below_their_peak(period, period_mult, init_mult, t):
    schedule = CosineRestarts(1.0, period, 0.0, period_mult, init_mult)
    assert 0.0 <= schedule(t) <= 1.0
    assert 0.0 <= CosineRestarts(1.0, period, 0.0, period_mult, 1 / init_mult)(t) <= LARGEST


@given(st.lists(st.integers(1, 1000), max_size=8, unique=True), st.floats(0, 1100))
def test_boundaries_are_counted(boundaries, t):
    boundaries.sort()
    values = [float(k) for k in range(len(boundaries) + 1)]
    passed = sum(b <= t for b in boundaries)
    assert PiecewiseConstant(values, boundaries)(t) == passed
    line = PiecewiseLinear(values, boundaries)(t)
    assert passed <= line <= min(passed + 1, len(boundaries))
    parts = [Linear(v, v + 1, 10) for v in values]
    since = t - ([0, *boundaries][passed])
    assert Sequential(parts, boundaries)(t) == parts[passed](since)


@given(ramps, st.integers(0, 1000), numbers, st.integers(0, 10**7))
def test_warmup_only_moves_its_schedule(schedule, steps, init, t):
    warmup = Warmup(schedule, steps, init)
    assert warmup(t + steps) == schedule(t)
    assert warmup(0) == (init if steps else schedule(0))


@given(ramps, st.integers(-1000, 1000), st.integers(0, 10**7))
def test_shifted_only_moves_its_schedule(schedule, offset, t):
    assert Shifted(schedule, offset)(t) == schedule(max(t + offset, 0))


@given(ramps, st.integers(1, 1000), st.integers(0, 10**7))
def test_shifted_by_its_start_a_part_sees_the_steps_of_the_whole(schedule, start, t):
    shifted = Shifted(schedule, start)
    for whole in (Sequential([abs, shifted], [start]), Warmup(shifted, start)):
        assert whole(start + t) == schedule(start + t)


@given(ramps, numbers, times)
def test_dictionary_keeps_every_bit(schedule, factor, t):
    product = factor * Warmup(schedule, 3)
    again = from_dict(json.loads(json.dumps(product.to_dict())))
    assert again == product
    assert again(t) == product(t)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(ramps, st.integers(0, 9), junk)
def test_from_dict_accepts_or_raises_value_error(schedule, index, value):
    stored = Warmup(schedule, 3).to_dict()
    keys = [*stored["of"], "another"]
    stored["of"][keys[index % len(keys)]] = value
    with contextlib.suppress(ValueError):
        assert isinstance(from_dict(stored), Warmup)
