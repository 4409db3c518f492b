"""`ReduceOnPlateau`: when it reduces, and that its state can be stored and restored."""

import copy
import json
import math
import pickle
import random

import numpy as np
import pytest

from instep.schedules import ReduceOnPlateau, Warmup, from_dict

FRESH = {"best": None, "bad": 0, "cooldown": 0, "reductions": 0}


def after(schedule, metrics):
    """The value after each of the metrics."""
    values = []
    for metric in metrics:
        assert schedule.observe(metric) is None
        values.append(schedule(len(values)))
    return values


@pytest.mark.parametrize(
    ("arguments", "metrics", "values"),
    [
        # patience: the third bad metric in a row is one too many
        ({"patience": 2}, [5, 5, 5, 5, 5, 5, 5], [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ({"patience": 2}, [5, 5, 5, 4, 4, 4, 4], [1, 1, 1, 1, 1, 1, 0.5]),
        ({"patience": 0}, [5, 6, 4, 7], [1, 0.5, 0.5, 0.25]),
        # mode
        ({"patience": 0, "mode": "max"}, [5, 6, 4, 7], [1, 1, 0.5, 0.5]),
        ({"patience": 0, "mode": "max"}, [-5, -4, -4.5], [1, 1, 0.5]),
        # threshold: relative, also where the metric is negative
        ({"patience": 0, "threshold": 0.1}, [10, 9, 8.9, 8], [1, 0.5, 0.5, 0.5]),
        ({"patience": 0, "threshold": 0.1}, [-10, -11, -11.1], [1, 0.5, 0.5]),
        ({"patience": 0, "threshold": 0.1, "mode": "max"}, [10, 11, 11.1], [1, 0.5, 0.5]),
        ({"patience": 0, "threshold": 0.0}, [3, 3, math.nextafter(3, 0)], [1, 0.5, 0.5]),
        # threshold: absolute
        (
            {"patience": 0, "threshold": 0.5, "threshold_mode": "abs"},
            [10, 9.5, 9.4, -1, -1.5],
            [1, 0.5, 0.5, 0.5, 0.25],
        ),
        (
            {"patience": 0, "threshold": 0.5, "threshold_mode": "abs", "mode": "max"},
            [0, 0.5, 0.6],
            [1, 0.5, 0.5],
        ),
        # cooldown: after a reduction, that many metrics don't count
        ({"patience": 0, "cooldown": 2}, [5] * 7, [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
        ({"patience": 1, "cooldown": 1}, [5] * 7, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        # end
        ({"patience": 0, "end": 0.3}, [5, 5, 5, 5], [1, 0.5, 0.3, 0.3]),
        # neither NaN nor infinity improves anything or becomes the best
        ({"patience": 0}, [math.nan, 5, math.nan, 4], [0.5, 0.5, 0.25, 0.25]),
        ({"patience": 0}, [5, -math.inf, 4], [1, 0.5, 0.5]),
        ({"patience": 0, "mode": "max"}, [5, math.inf, 6], [1, 0.5, 0.5]),
    ],
)
def test_reduces(arguments, metrics, values):
    assert after(ReduceOnPlateau(1.0, 0.5, **arguments), metrics) == values


def test_default_patience_and_factor():
    assert after(ReduceOnPlateau(1.0), [5.0] * 23) == [1.0] * 11 + [0.1] * 11 + [0.1**2]


def test_value_is_the_same_at_every_step():
    schedule = ReduceOnPlateau(1.0, 0.5, 0)
    after(schedule, [1, 1])
    assert schedule(np.array([[0, 1.5, 10**12]])).tolist() == [[0.5, 0.5, 0.5]]


def test_stays_finite_after_any_number_of_reductions():
    schedule = ReduceOnPlateau(1.0, 0.5, 0)
    schedule.load_state_dict({**FRESH, "reductions": 2**53})
    assert schedule(0) == 0.0


@pytest.mark.parametrize(
    "metric", [3, np.float32(3), np.float64(3), np.int64(3), np.array(3.0), np.array(3)]
)
def test_observes_what_is_a_number(metric):
    schedule = ReduceOnPlateau(1.0)
    schedule.observe(metric)
    assert schedule.state_dict() == {**FRESH, "best": 3.0}
    assert type(schedule.state_dict()["best"]) is float


@pytest.mark.parametrize(
    "metric", [None, "3", b"3", True, np.True_, [3.0], np.array([3.0]), 3j, object()]
)
def test_refuses_what_is_no_number(metric):
    schedule = ReduceOnPlateau(1.0)
    after(schedule, [5.0, 6.0])
    before = schedule.state_dict()
    with pytest.raises(TypeError, match=r"^ReduceOnPlateau: metric must be a number, got [^\n]+$"):
        schedule.observe(metric)
    assert schedule.state_dict() == before


def trained(**changes):
    schedule = ReduceOnPlateau(
        **{"init": 1.0, "factor": 0.5, "patience": 3, "cooldown": 2, **changes}
    )
    after(schedule, [5, 4, 4, 4, 4, 4, 4, 4, 4])
    return schedule


def test_state_dict_is_json():
    schedule = ReduceOnPlateau(1.0)
    assert schedule.state_dict() == FRESH
    state = trained().state_dict()
    assert state == {"best": 4.0, "bad": 1, "cooldown": 0, "reductions": 1}
    assert json.loads(json.dumps(state, allow_nan=False)) == state


def test_state_dict_is_a_copy():
    schedule = trained()
    schedule.state_dict()["reductions"] = 40
    state = schedule.state_dict()
    other = ReduceOnPlateau(1.0, 0.5, 3, cooldown=2)
    other.load_state_dict(state)
    state["reductions"] = 40
    assert schedule(0) == other(0) == 0.5


def test_resumes_as_if_never_stopped():
    metrics = [random.Random(7).uniform(1, 1.2) for _ in range(300)]
    arguments = {"init": 1.0, "factor": 0.9, "patience": 3, "cooldown": 2}
    whole = after(ReduceOnPlateau(**arguments), metrics)
    assert len(set(whole)) > 10
    ways = (
        lambda s: pickle.loads(pickle.dumps(s)),
        copy.deepcopy,
        copy.copy,
        lambda s: from_dict(json.loads(json.dumps(s.to_dict()))),
        lambda s: restored(ReduceOnPlateau(**arguments), s.state_dict()),
    )
    for stop in (0, 1, 50, 137):
        for way in ways:
            first = ReduceOnPlateau(**arguments)
            assert after(first, metrics[:stop]) == whole[:stop]
            second = way(first)
            assert second == first
            assert after(second, metrics[stop:]) == whole[stop:]
            assert second != first, "the copy must have a state of its own"


def restored(schedule, state):
    schedule.load_state_dict(state)
    return schedule


FIRST_FORM = {
    "schedule": "ReduceOnPlateau",
    **{"init": 0.5, "factor": 0.1, "patience": 2, "threshold": 0.25, "mode": "max"},
    **{"cooldown": 0, "end": 0.0, "state": {**FRESH, "best": 3.0}},
}


def test_a_relative_threshold_is_stored_as_before_there_were_others():
    """So earlier versions read it, and what they stored can be read."""
    schedule = ReduceOnPlateau(0.5, patience=2, threshold=0.25, mode="max")
    schedule.observe(3)
    assert list(schedule.to_dict().items()) == list(FIRST_FORM.items())
    assert from_dict(FIRST_FORM) == schedule
    assert from_dict(FIRST_FORM).threshold_mode == "rel"
    assert from_dict({**FIRST_FORM, "threshold_mode": "rel"}) == schedule
    absolute = from_dict({**FIRST_FORM, "threshold_mode": "abs"})
    assert absolute.threshold_mode == "abs"
    assert absolute != schedule
    assert from_dict(absolute.to_dict()) == absolute
    with pytest.raises(ValueError, match="threshold_mode must be 'rel' or 'abs', got 'x'"):
        from_dict({**FIRST_FORM, "threshold_mode": "x"})


def test_a_pickle_from_before_there_were_absolute_thresholds():
    schedule = ReduceOnPlateau(0.5, patience=2)
    state = {k: v for k, v in schedule.__getstate__().items() if k != "threshold_mode"}
    old = ReduceOnPlateau.__new__(ReduceOnPlateau)
    old.__setstate__(state)
    assert old == schedule


def test_equality_covers_the_state_and_hash_does_not():
    schedule, fresh = trained(), ReduceOnPlateau(1.0, 0.5, 3, cooldown=2)
    assert schedule != fresh
    assert hash(schedule) == hash(fresh)
    assert repr(schedule) == repr(fresh)
    assert trained() == schedule


def test_observed_inside_a_composition():
    plateau = ReduceOnPlateau(1.0, 0.5, 0)
    schedule = 2 * Warmup(plateau, 10)
    assert (schedule(5), schedule(10)) == (1.0, 2.0)
    after(plateau, [1, 1])
    assert (schedule(5), schedule(10)) == (0.5, 1.0)
    assert from_dict(schedule.to_dict()) == schedule
    assert from_dict(schedule.to_dict())(10) == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"best": math.nan}, ValueError, "state['best'] must be a finite number"),
        ({"best": math.inf}, ValueError, "state['best'] must be a finite number"),
        ({"best": "4"}, TypeError, "state['best'] must be a number"),
        ({"bad": -1}, ValueError, "state['bad'] must be an int >= 0"),
        ({"bad": 4}, ValueError, "state['bad'] must be <= 3, got 4"),
        ({"bad": 1.0}, TypeError, "state['bad'] must be an int"),
        ({"cooldown": 3}, ValueError, "state['cooldown'] must be <= 2, got 3"),
        ({"cooldown": -1}, ValueError, "state['cooldown'] must be an int >= 0"),
        ({"cooldown": None}, TypeError, "state['cooldown'] must be an int"),
        ({"reductions": -1}, ValueError, "state['reductions'] must be an int >= 0"),
        ({"reductions": True}, TypeError, "state['reductions'] must be an int"),
        ({"another": 1}, ValueError, "state must have the expected fields; unknown: 'another'"),
    ],
)
def test_refuses_a_wrong_state_and_keeps_its_own(change, error, message):
    schedule = trained()
    before = schedule.state_dict()
    state = {**FRESH, **change}
    with pytest.raises(error) as caught:
        schedule.load_state_dict(state)
    assert str(caught.value).startswith(f"ReduceOnPlateau: {message}")
    assert schedule.state_dict() == before
    with pytest.raises(ValueError, match=r"^ReduceOnPlateau: "):
        from_dict({**schedule.to_dict(), "state": state})


@pytest.mark.parametrize("missing", FRESH)
def test_refuses_a_state_with_a_field_missing(missing):
    schedule = trained()
    before = schedule.state_dict()
    state = {name: value for name, value in FRESH.items() if name != missing}
    with pytest.raises(
        ValueError,
        match=f"^ReduceOnPlateau: state must have the expected fields; missing: '{missing}'",
    ):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


@pytest.mark.parametrize("state", [None, [], [("best", None)], "state"])
def test_refuses_a_state_that_is_no_dict(state):
    schedule = trained()
    with pytest.raises(TypeError, match=r"^ReduceOnPlateau: state must be a dict"):
        schedule.load_state_dict(state)
    with pytest.raises(ValueError, match=r"^ReduceOnPlateau: state must be a dict"):
        from_dict({**schedule.to_dict(), "state": state})
    with pytest.raises(ValueError, match="must have the expected fields; missing: 'state'"):
        from_dict({k: v for k, v in schedule.to_dict().items() if k != "state"})
