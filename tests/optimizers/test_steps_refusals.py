"""What `instep.Steps` refuses: places, arrays and numbers that no step can be taken with."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hosts import ADAM, SGD, adam_place
from reference import assert_same_bits

import instep


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.bind(1, np.ones(2)), IndexError, "place must be one of the 1 places, got 1"),
        (
            lambda s: s.bind(0, np.ones(2), group=1),
            IndexError,
            "group must be one of the 1 groups, got 1",
        ),
        (
            lambda s: s.bind(0, np.ones(2)),
            ValueError,
            "state 'exp_avg' of '0' must be among the states, got none",
        ),
        (
            lambda s: s.bind(0, [1.0]),
            TypeError,
            "parameter '0' must be .*NumPy array.*, got a list",
        ),
        (
            lambda s: s.bind(0, np.ones(2), t=-1),
            ValueError,
            "t must be an int from 0 to .*, got -1",
        ),
        (lambda s: s.step([], [ADAM]), ValueError, "gradients must have 1 entries, .*, got 0"),
        (
            lambda s: s.step([np.ones(2)], []),
            ValueError,
            "numbers must be a list of 1, .*, got a list of 0",
        ),
        (lambda s: s.step([np.ones(2)], [{"lr": 1.0}]), ValueError, "missing: 'beta1'"),
        (lambda s: s.step([np.ones(2)], [{**ADAM, "rho": 1.0}]), ValueError, "unknown: 'rho'"),
        (
            lambda s: s.step([np.ones(3)], [ADAM]),
            ValueError,
            "gradient of '0' must have shape .*, got",
        ),
        (
            lambda s: s.step([np.ones(2)], [ADAM], nonfinite="x"),
            ValueError,
            "nonfinite must be .*, got 'x'",
        ),
        (
            lambda s: s.step([np.ones(2)], ADAM),
            TypeError,
            "numbers must be a list with.*, got a dict",
        ),
        (
            lambda s: s.step(iter([np.ones(2)]), [ADAM]),
            TypeError,
            "gradients must be .*, got a list_iterator",
        ),
        (
            lambda s: s.step({0: np.ones(2)}, [ADAM]),
            TypeError,
            "gradients must be a list.*, got a dict",
        ),
        (lambda s: s.accumulate(None), TypeError, "gradients must be a list.*, got None"),
        (
            lambda s: s.bind(0, np.ones(2), t=2**53 + 1),
            ValueError,
            "t must be .*, got 9007199254740993",
        ),
        (
            lambda s: s.step([np.ones(2)], [3]),
            TypeError,
            r"numbers\[0\] must be a dict, got an int",
        ),
        (lambda s: s.bind(True, np.ones(2)), TypeError, "place must be an int.*, got True"),
        (lambda s: s.bind(0, np.ones(2), t=1.0), TypeError, "t must be an int.*, got 1.0"),
        (lambda s: s.bind(0, np.ones(2), group="sgd"), TypeError, "group must be .*, got 'sgd'"),
        (lambda s: s.bind(0, np.ones(2), name=3), TypeError, "name must be a str, got an int"),
        (
            lambda s: s.bind(0, np.ones(2), states=[]),
            TypeError,
            "states must be a dict, got a list",
        ),
        (
            lambda s: s.bind(0, np.ones(2), states={"exp_avg": np.ones(2), "v": np.ones(2)}),
            ValueError,
            "'exp_avg_sq' of '0' must be among the states, got 'exp_avg', 'v'",
        ),
        (lambda s: s.append(1.0), TypeError, "count must be .*, got 1.0"),
        (lambda s: s.is_bound(1), IndexError, "place must be one of the 1 places, got 1"),
        (lambda s: s.add_group("Adam"), ValueError, "rule must be one of .*adam.*, got 'Adam'"),
        (lambda s: s.add_group(None), TypeError, "rule must be one of .*, got None"),
        (
            lambda s: s.add_group("adam", "amsgrad"),
            TypeError,
            r"a list of names, got 'amsgrad'; pass \['amsgrad'\]",
        ),
        (
            lambda s: s.add_group("adam", ["x"]),
            ValueError,
            "an option of rule 'adam' must be one of amsgrad, .*, got 'x'",
        ),
        (
            lambda s: s.add_group("sgd", ["nesterov"]),
            ValueError,
            "must be one of no option, momentum, momentum and nesterov, .*, got nesterov",
        ),
        (lambda s: s.set_group(3, "sgd"), IndexError, "group must be one of the 1 groups, got 3"),
        (copy.copy, TypeError, "can't be copied or pickled"),
        (pickle.dumps, TypeError, "can't be copied or pickled"),
        (
            lambda s: s.step([np.ones(2)], [ADAM], clip_norm=-1.0),
            ValueError,
            "clip_norm must be .*, got -1.0",
        ),
        (
            lambda s: s.step([np.ones(2)], [ADAM], clip_norm="x"),
            TypeError,
            "clip_norm must be .*, got 'x'",
        ),
        (
            lambda s: s.step([np.ones(2)], [ADAM], grad_scale=0.0),
            ValueError,
            "grad_scale must be .*, got 0.0",
        ),
        (
            lambda s: s.step([np.ones(2)], [ADAM], ema_decay=1.5),
            ValueError,
            "ema_decay must be .*, got 1.5",
        ),
        (lambda s: s.unbind(7), IndexError, "place must be one of the 1 places, got 7"),
        (lambda s: s.t(-1), IndexError, "place must be one of the 1 places, got -1"),
        (lambda s: s.bind(-1, np.ones(2)), IndexError, "place must be one of the 1 places, got -1"),
        (lambda s: s.append(-1), ValueError, "count must be an int of at least 0, got -1"),
        (lambda s: s.append(2**63 - 1), ValueError, r"an int from 0 to 2\*\*53"),
    ],
)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    w = np.ones(2)
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append()
    adam_place(steps, 0, w)
    with pytest.raises(error, match=message):
        call(steps)
    assert w.tolist() == [1.0, 1.0]
    assert (steps.step_count, steps.t(0)) == (0, 0)
    steps.step([np.ones(2)], [ADAM])
    assert steps.t(0) == 1


@pytest.mark.parametrize(
    ("numbers", "extras", "message"),
    [
        ({"lr": -1.0}, {}, "lr of group 0 must be a finite number of at least 0, got -1.0"),
        ({"lr": np.nan}, {}, "lr of group 0 must be .*, got nan"),
        ({"lr": True}, {}, "lr of group 0 must be .*, got True"),
        ({"lr": "x"}, {}, "lr of group 0 must be .*, got 'x'"),
        ({"lr": None}, {}, "lr of group 0 must be .*, got None"),
        ({"lr": np.ones(2)}, {}, "lr of group 0 must be .*, got array"),
        ({"lr": lambda step: 1.0}, {}, "lr of group 0 must be .*, got <function"),
        ({"momentum": 0.5}, {}, "momentum of group 0 must be 0, got 0.5; .* the option 'momentum'"),
        ({"dampening": -1.0}, {}, "dampening of group 0 must be .*, got -1.0"),
        ({"clip_value": 0.0}, {}, "clip_value of group 0 must be .*, got 0.0"),
        ({"weight_decay": -1.0}, {}, "weight_decay of group 0 must be .*, got -1.0"),
        ({"l1": -1.0}, {}, "l1 of group 0 must be .*, got -1.0"),
        ({"maximize": 0.5}, {}, "maximize of group 0 must be True or False, got 0.5"),
        ({}, {"clip_norm": -1.0}, "clip_norm must be .*, got -1.0"),
        ({}, {"clip_norm": np.nan}, "clip_norm must be .*, got nan"),
        ({}, {"clip_norm": "1"}, "clip_norm must be .*, got '1'"),
        ({}, {"grad_scale": 0.0}, "grad_scale must be .*, got 0.0"),
        ({}, {"grad_scale": True}, "grad_scale must be .*, got True"),
        ({}, {"ema_decay": 1.5}, "ema_decay must be .*, got 1.5"),
        (
            {},
            {"ema_decay": None},
            "ema_decay must be .*, as 1 of 1 places have an average, got None",
        ),
    ],
)
def test_numbers_are_checked_as_an_optimizer_does(
    numbers: dict[str, Any], extras: dict[str, Any], message: str
) -> None:
    w = np.zeros(2)
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    steps.bind(0, w, average=w.copy())
    for _ in range(2):  # also after a step, whose numbers were good
        before = w.copy()
        with pytest.raises((TypeError, ValueError), match=message):
            steps.step([np.ones(2)], [{**SGD, **numbers}], **{"ema_decay": 0.5, **extras})
        assert_same_bits(w, before, "w")
        steps.step([np.ones(2)], [dict(SGD)], ema_decay=0.5)


def test_decoupled_decay_is_a_number_of_the_rule() -> None:
    steps = instep.Steps()
    steps.add_group("adam", ["decoupled_decay"])
    steps.append()
    w = np.ones(2)
    adam_place(steps, 0, w)
    with pytest.raises(ValueError, match="missing: 'weight_decay'"):
        steps.step([np.ones(2)], [ADAM])
    steps.step([np.ones(2)], [{**ADAM, "weight_decay": 0.5}])
    optimizer = instep.AdamW(np.ones(2), lr=0.1, weight_decay=0.5)
    optimizer.step(np.ones(2))
    assert_same_bits(w, optimizer.params["0"], "w")


def test_states_that_the_rule_has_not_are_refused() -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    with pytest.raises(
        ValueError,
        match=r"a state of '0' must be one that the rule has .* \(none\), got 'momentum_buffer'",
    ):
        steps.bind(0, np.ones(2), states={"momentum_buffer": np.zeros(2)})
    assert not steps.is_bound(0)
