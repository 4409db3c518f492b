"""What the compiled core refuses by itself, though the package in front of it never asks for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from instep import _core

W = np.zeros(2)


def plan(rule: str = "sgd", options: tuple[str, ...] = ()) -> Any:
    group = (rule, options, ("list", (), ("array",)), ("w",), (W,), (None,), None)
    current, optimizer = SimpleNamespace(now=None), SimpleNamespace()
    made = _core.make_plan(False, current)
    assert made.add([group], False, False, None, None, optimizer, None)
    return made


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("nonsense", (), "rule must be one of .*, got 'nonsense'"),
        ("sgd", ("amsgrad",), "an option of rule 'sgd' must be one of .*, got 'amsgrad'"),
        ("sgd", ("nesterov",), "the options of rule 'sgd' must be one of .*, got nesterov"),
    ],
)
def test_rules_and_options(rule: str, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(rule, options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "must have a sequence for each group, got 0"),
        ([[0.1]], "the numbers of a group must be .*, got 1"),
    ],
)
def test_settings(settings: Any, message: str) -> None:
    made = plan()
    with pytest.raises(ValueError, match=message):
        made.step(
            [np.ones(2)],
            SimpleNamespace(_hyperparameters_at=lambda step: (settings, (np.nan, np.nan, 0), 1)),
        )
    assert made.step_count == 0
    assert W.tolist() == [0.0, 0.0]


def test_entries_of_parameters() -> None:
    made = plan()
    with pytest.raises(ValueError, match="parameters must have an entry for each parameter, got"):
        made.restore(1, 0, [])
    assert made.step_count == 0
