"""What `from_dict` and `to_dict` refuse, and in which words."""

import copy
import functools
import operator
import re

import pytest

from instep.schedules import (
    Constant,
    CosineDecay,
    Schedule,
    Sequential,
    Warmup,
    from_dict,
)

ONE = Constant(1.0)
STORED = Warmup(Sequential([CosineDecay(0.1, 9), ONE], [4]), 3).to_dict()


def changed(path, value):
    """STORED with the value at a path of keys and indices replaced, or removed by ... ."""
    if not path:
        return value
    stored = copy.deepcopy(STORED)
    parent = functools.reduce(operator.getitem, path[:-1], stored)
    parent[path[-1]] = value
    if value is ...:
        del parent[path[-1]]
    return stored


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ([], None, "a stored schedule must be a dict, got None"),
        ([], [], "a stored schedule must be a dict, got a list"),
        ([], {}, "'schedule' must name a class of instep.schedules, got None"),
        (["schedule"], "Cosine", "'schedule' must name a class of instep.schedules, got 'Cosine'"),
        (["schedule"], "Schedule", "'schedule' must name a class"),
        (["schedule"], "from_dict", "'schedule' must name a class"),
        (["schedule"], "StepFunction", "'schedule' must name a class"),
        (["schedule"], "ramps", "'schedule' must name a class"),
        (["schedule"], "__all__", "'schedule' must name a class"),
        (["schedule"], "__import__('os')", "'schedule' must name a class"),
        (["schedule"], ["Warmup"], "'schedule' must name a class"),
        (["init"], ..., "a stored Warmup must have the expected fields; missing: 'init'"),
        (["another"], 1, "a stored Warmup must have the expected fields; unknown: 'another'"),
        ([1], 1, "a stored Warmup must have the expected fields; unknown: 1"),
        (["state"], {}, "a stored Warmup must have the expected fields; unknown: 'state'"),
        (["steps"], 3.0, "Warmup: steps must be an int, got 3.0"),
        (["steps"], -3, "Warmup: steps must be an int >= 0"),
        (["init"], "0.0", "Warmup: init must be a number"),
        (["init"], {"schedule": "Constant", "value": 1.0}, "Warmup: init must be a number"),
        (["of"], 1.0, "Warmup: schedule must be a schedule or another callable"),
        (["of"], "print", "Warmup: schedule must be a schedule or another callable"),
        (["of"], {}, "'schedule' must name a class of instep.schedules, got None"),
        (
            ["of", "schedule"],
            "Constant",
            "a stored Constant must have the expected fields; missing: 'value'",
        ),
        (["of", "schedules", 0, "steps"], 0, "CosineDecay: steps must be an int >= 1"),
        (
            ["of", "schedules", 0, "end"],
            ...,
            "a stored CosineDecay must have the expected fields; missing: 'end'",
        ),
        (["of", "schedules", 1], 1.0, "Sequential: schedules[1] must be a schedule"),
        (["of", "schedules"], 3, "Sequential: schedules must be a sequence"),
        (["of", "boundaries"], [], "Sequential: schedules must have 1 entries, one more than"),
        (["of", "boundaries", 0], True, "Sequential: boundaries[0] must be an int"),
    ],
)
def test_from_dict_refuses(path, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_dict(changed(path, value))


class Homemade(Schedule):
    def _value(self, t):
        return 2.0 * t


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            Homemade(),
            "the schedule must be of a class of instep.schedules to be stored, got Homemade",
        ),
        (Warmup(lambda t: 1.0, 3), "Warmup: schedule must be of a class of instep.schedules"),
        (ONE * abs, "Product: schedule must be of a class"),
        (abs * ONE, "Product: factor must be of a class"),
        (Sequential([ONE, Homemade()], [3]), r"Sequential: schedules\[1\] must be of a class"),
        (Warmup(functools.partial(pow, 2), 3), "Warmup: schedule must be of a class"),
    ],
)
def test_to_dict_refuses_code(schedule, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        schedule.to_dict()


def test_a_class_of_the_same_name_is_not_taken_for_ours():
    impostor = type("Constant", (Homemade,), {})
    with pytest.raises(TypeError, match="must be of a class of instep"):
        impostor().to_dict()
