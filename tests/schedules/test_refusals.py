"""What the constructors and operators refuse, and in which words."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from schedule_classes import CLASSES

from instep.schedules import (
    Constant,
    CosineDecay,
    CosineRestarts,
    Cyclic,
    ExponentialDecay,
    HalfLife,
    InverseSqrtDecay,
    InverseTimeDecay,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PiecewiseLinear,
    PolynomialDecay,
    Product,
    ReduceOnPlateau,
    Sequential,
    Shifted,
    SqrtDecay,
    UniformAverage,
    Warmup,
    WarmupStableDecay,
)

ONE = Constant(1.0)

# A call that works, and for each argument the kind that it is.
KINDS = [
    (Constant, {"value": "number"}),
    (Linear, {"init": "number", "end": "number", "steps": "length"}),
    (
        PolynomialDecay,
        {
            "init": "number",
            "steps": "length",
            "end": "number",
            "power": "positive",
            "cycle": "bool",
        },
    ),
    (
        ExponentialDecay,
        {
            "init": "number",
            "rate": "positive",
            "steps": "length",
            "staircase": "bool",
            "end": "bound",
        },
    ),
    (PiecewiseConstant, {"values": "numbers", "boundaries": "boundaries"}),
    (PiecewiseLinear, {"values": "numbers", "boundaries": "boundaries"}),
    (
        InverseTimeDecay,
        {"init": "number", "rate": "non-negative", "steps": "length", "staircase": "bool"},
    ),
    (InverseSqrtDecay, {"init": "number", "timescale": "positive"}),
    (SqrtDecay, {"init": "number", "rate": "non-negative"}),
    (
        CosineDecay,
        {"init": "number", "steps": "length", "end": "number", "exponent": "positive"},
    ),
    (
        CosineRestarts,
        {
            "init": "number",
            "period": "length",
            "end": "number",
            "period_mult": "growth",
            "init_mult": "positive",
        },
    ),
    (
        Cyclic,
        {
            "low": "number",
            "high": "number",
            "up": "length",
            "down": "length",
            "mode": "triangular",
            "gamma": "up to one",
        },
    ),
    (
        OneCycle,
        {
            "peak": "number",
            "steps": "length",
            "warmup_fraction": "below one",
            "init_div": "positive",
            "end_div": "positive",
            "anneal": "cosine",
            "three_phase": "off",
        },
    ),
    (
        WarmupStableDecay,
        {
            "peak": "number",
            "warmup": "length or 0",
            "stable": "length or 0",
            "decay": "length",
            "init": "number",
            "end": "number",
            "shape": "sqrt",
        },
    ),
    (Warmup, {"schedule": "callable", "steps": "length or 0", "init": "number"}),
    (Sequential, {"schedules": "callables", "boundaries": "boundaries"}),
    (Shifted, {"schedule": "callable", "offset": "offset"}),
    (HalfLife, {"init": "fraction", "end": "fraction", "steps": "length"}),
    (UniformAverage, {"start": "length or 0"}),
    (
        ReduceOnPlateau,
        {
            "init": "number",
            "factor": "fraction",
            "patience": "length or 0",
            "threshold": "non-negative",
            "mode": "max",
            "cooldown": "length or 0",
            "end": "number",
            "threshold_mode": "abs",
        },
    ),
    (Product, {"factor": "number", "schedule": "callable"}),
]

NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400]
NO_NUMBERS = [True, "1", 1j, b"1", [1.0], np.ones(2)]
NO_COUNTS = [True, 2.0, "2", 1j, [2]]
NO_SEQUENCES = [None, 1, "12", b"12", {1: 2}]

# kind -> (what is accepted, ValueErrors, TypeErrors)
REFUSED = {
    "number": ([0.5], NOT_FINITE, [*NO_NUMBERS, None]),
    "positive": ([0.5, 1e-300, 2], [*NOT_FINITE, 0, -0.0, -1.0], [*NO_NUMBERS, None]),
    "non-negative": ([0.5, 0], [*NOT_FINITE, -1e-300, -1], [*NO_NUMBERS, None]),
    "bound": ([0.5, None], NOT_FINITE, NO_NUMBERS),
    "growth": ([1, 1.5, 1.000001], [*NOT_FINITE, 0.99, 0, -2, 1.0000001], [*NO_NUMBERS, None]),
    "up to one": ([0.5, 1], [*NOT_FINITE, 0, -0.5, 1.01], [*NO_NUMBERS, None]),
    "below one": ([0.5, 0], [*NOT_FINITE, 1, -0.01, 2], [*NO_NUMBERS, None]),
    "fraction": ([0.5], [*NOT_FINITE, 0, 1, -0.1, 2], [*NO_NUMBERS, None]),
    "length": ([3, 1, 2**53, np.int64(3)], [0, -1, 2**53 + 1, -(10**400)], NO_COUNTS),
    "length or 0": ([3, 0, 2**53], [-1, 2**53 + 1], [*NO_COUNTS, None]),
    "offset": ([3, -3, 0, -(2**53), 2**53], [2**53 + 1, -(2**53) - 1], [*NO_COUNTS, None]),
    "bool": ([True, False], [], [None, 0, 1, 1.0, "yes"]),
    "off": ([False, True], [], [None, 0, 1, 1.0, "yes"]),
    "numbers": ([[0.5, 0.25], (1, 2)], [[1.0, math.nan], [math.inf, 1]], NO_SEQUENCES),
    "boundaries": ([[3], (4,)], [[0], [-1], [3, 3], [4, 3]], [*NO_SEQUENCES, [2.0], [True]]),
    "callable": ([ONE, abs], [], [None, 1.0, "f", Constant, int]),
    "callables": ([[ONE, abs], (ONE, ONE)], [], [*NO_SEQUENCES, [ONE, 1.0], [ONE, Constant]]),
    "triangular": (["triangular2", "exp_range"], ["", "Triangular", "cosine"], [None, 2, True]),
    "cosine": (["cosine", "linear"], ["", "cos", "sqrt"], [None, 2]),
    "sqrt": (["linear", "cosine", "sqrt"], ["", "1-sqrt"], [None, 2]),
    "max": (["min", "max"], ["", "Min", "auto"], [None, 2]),
    "abs": (["rel", "abs"], ["", "Rel", "relative"], [None, 2]),
}


def working(kinds):
    return {name: REFUSED[kind][0][0] for name, kind in kinds.items()}


CASES = [
    pytest.param(cls, name, bad, error, id=f"{cls.__name__}-{name}-{str(bad)[:20]}")
    for cls, kinds in KINDS
    for name, kind in kinds.items()
    for error, bads in zip((ValueError, TypeError), REFUSED[kind][1:], strict=True)
    for bad in bads
]


@pytest.mark.parametrize(("cls", "kinds"), KINDS)
def test_accepts(cls, kinds):
    for name, kind in kinds.items():
        for good in REFUSED[kind][0]:
            cls(**{**working(kinds), name: good})


def test_table_has_every_argument():
    for cls, kinds in KINDS:
        assert list(cls.__match_args__) == list(kinds)
    assert {cls for cls, _ in KINDS} == set(CLASSES)


@pytest.mark.parametrize(("cls", "name", "bad", "error"), CASES)
def test_refuses_by_name(cls, name, bad, error):
    arguments = {**working(dict(KINDS)[cls]), name: bad}
    with pytest.raises(error) as caught:
        cls(**arguments)
    message = str(caught.value)
    assert re.match(rf"{cls.__name__}: {name}(\[\d\])? must ", message)
    assert ", got " in message
    assert "\n" not in message
    assert len(message) < 150


@pytest.mark.parametrize("name", ["steps", "down"])
def test_none_is_a_length_only_where_it_is_the_default(name):
    if name == "down":
        assert Cyclic(0, 1, 3, None).down is None
    else:
        with pytest.raises(TypeError, match=r"^CosineDecay: steps must be an int, got None"):
            CosineDecay(1.0, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CosineDecay(0.1, 0),
            "CosineDecay: steps must be an int >= 1 and <= 2**53, got 0",
        ),
        (
            lambda: CosineDecay(0.1, True),
            "CosineDecay: steps must be an int, got True",
        ),
        (
            lambda: CosineDecay([0.1], 3),
            "CosineDecay: init must be a number, got [0.1]",
        ),
        (
            lambda: CosineDecay(math.nan, 3),
            "CosineDecay: init must be a finite number, got nan",
        ),
        (
            lambda: SqrtDecay(0.1, -2),
            "SqrtDecay: rate must be a number >= 0, got -2.0",
        ),
        (
            lambda: Cyclic(0.1, 0.2, 3, mode="sine"),
            "Cyclic: mode must be 'triangular' or 'triangular2' or 'exp_range', got 'sine'",
        ),
        (
            lambda: PiecewiseConstant([1, 2], [3, 4]),
            "PiecewiseConstant: values must have 3 entries, one more than the boundaries, got 2",
        ),
        (
            lambda: PiecewiseConstant([], []),
            "PiecewiseConstant: values must have 1 entries, one more than the boundaries, got 0",
        ),
        (
            lambda: PiecewiseConstant([1, 2, 3], [4, 3]),
            "PiecewiseConstant: boundaries must increase strictly, got 3 after 4",
        ),
        (
            lambda: PiecewiseLinear([1, 2], [3, 4]),
            "PiecewiseLinear: values must have 3 entries, one more than the boundaries, got 2",
        ),
        (
            lambda: CosineDecay(0.1, 3, exponent=0),
            "CosineDecay: exponent must be a number > 0, got 0.0",
        ),
        (
            lambda: OneCycle(0.1, 9, 0.51, three_phase=True),
            "OneCycle: warmup_fraction must be a number >= 0 and <= 0.5 with three_phase, got 0.51",
        ),
        (
            lambda: Shifted(ONE, 2**53 + 1),
            "Shifted: offset must be an int >= -2**53 and <= 2**53, got 9007199254740993",
        ),
        (
            lambda: HalfLife(0.9, 1, 3),
            "HalfLife: end must be a number > 0 and < 1, got 1.0",
        ),
        (
            lambda: UniformAverage(-1),
            "UniformAverage: start must be an int >= 0 and <= 2**53, got -1",
        ),
        (
            lambda: Sequential([ONE], [3]),
            "Sequential: schedules must have 2 entries, one more than the boundaries, got 1",
        ),
        (
            lambda: Warmup(0.1, 3),
            "Warmup: schedule must be a schedule or another callable of the step, got 0.1",
        ),
        (
            lambda: Warmup(CosineDecay, 3),
            "Warmup: schedule must be a schedule or another callable of the step, "
            "got the class CosineDecay",
        ),
        (
            lambda: ExponentialDecay(0.1, 0.5, end=0.2),
            "ExponentialDecay: end must be <= init=0.1 at rate=0.5, got 0.2",
        ),
        (
            lambda: ExponentialDecay(0.1, 2, end=0.05),
            "ExponentialDecay: end must be >= init=0.1 at rate=2.0, got 0.05",
        ),
        (
            lambda: ExponentialDecay(-1, 0.5, end=-2),
            "ExponentialDecay: end must be >= init=-1.0 at rate=0.5, got -2.0",
        ),
        (
            lambda: ExponentialDecay(1e-200, 2, end=1e-210),
            "ExponentialDecay: end must be >= init=1e-200 at rate=2.0, got 1e-210",
        ),
        (
            lambda: ReduceOnPlateau(0.1, end=0.2),
            "ReduceOnPlateau: end must be <= init=0.1, got 0.2",
        ),
        (
            lambda: ONE * math.nan,
            "Product: factor must be a finite number, got nan",
        ),
        (
            lambda: True * ONE,
            "Product: factor must be a number, got True",
        ),
    ],
)
def test_words(make, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("other", [None, "x", 1j, [1.0], np.ones(3), object()])
def test_multiplies_by_numbers_and_callables_only(other):
    with pytest.raises(TypeError):
        ONE * other
    with pytest.raises(TypeError):
        other * ONE


def test_division_is_multiplication_by_the_inverse():
    schedule = CosineDecay(0.3, 9)
    for divisor in (2, 3, 0.1, np.float32(3), np.int64(-7), Fraction(1, 3)):
        assert schedule / divisor == schedule * (1 / float(divisor))
        assert (schedule / divisor)(5) == 1 / float(divisor) * schedule(5)
    assert (schedule / 4)(5) == schedule(5) / 4
    for other in (None, "x", True, 1j, schedule, np.ones(3), abs):
        with pytest.raises(TypeError, match=r"unsupported operand type|does not support ufuncs"):
            schedule / other
    with pytest.raises(TypeError, match=r"unsupported operand type"):
        2 / schedule
    with pytest.raises(ZeroDivisionError):
        schedule / 0
    with pytest.raises(ValueError, match="Product: factor must be a finite number"):
        schedule / 5e-324


def test_leaves_the_rest_to_the_other_factor():
    class Other:
        def __mul__(self, schedule):
            return "theirs"

        __rmul__ = __mul__

    assert ONE * Other() == "theirs"
    assert Other() * ONE == "theirs"


@pytest.mark.parametrize("divisors", [(5e-324, 1.0), (1.0, 5e-324), (1e-200, 1e-200)])
def test_one_cycle_refuses_divisors_that_leave_no_finite_value(divisors):
    with pytest.raises(ValueError, match=r"^OneCycle: peak / init_div.* must be a finite number"):
        OneCycle(1.0, 10, 0.3, *divisors)
