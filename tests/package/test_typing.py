"""The names for annotations: what they are at run time, and that they say what optimizers take."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS

import instep
from instep import typing as names
from instep.optimizers.containers import FORMATS
from instep.optimizers.settings import NONFINITE

ALIASES = ["Array", "Copies", "Gradients", "Number", "Params", "Schedule", "StateDtype"]


def test_every_name_is_explained() -> None:
    table = (names.__doc__ or "").split("====\n")[1]
    assert sorted(re.findall(r"^`(\w+)`", table, re.M)) == sorted(names.__all__)


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_can_stand_in_an_annotation_that_is_evaluated(name: str) -> None:
    alias = getattr(names, name)

    def function(one: Any, two: Any) -> None:
        """As of a module that doesn't have ``from __future__ import annotations``."""

    function.__annotations__ = {"one": alias | None, "two": f"{name} | None"}
    found = typing.get_type_hints(function, {name: alias})
    assert found["one"] == found["two"]
    assert type(None) in typing.get_args(found["one"])


def kinds(alias: Any) -> set[Any]:
    return {typing.get_origin(part) or part for part in typing.get_args(alias)}


def test_aliases_have_the_containers_that_optimizers_take() -> None:
    containers = {np.ndarray, Sequence, Mapping}
    assert kinds(names.Params) == containers
    assert kinds(names.Copies) == {*containers, type(None)}
    assert kinds(names.Gradients) == {*containers, float, np.floating, type(None)}
    assert kinds(names.Number) == {float, Callable}
    assert typing.get_args(names.Nonfinite) == NONFINITE
    assert Mapping in kinds(names.StateDtype)


def test_a_group_has_the_hyperparameters_of_all_rules() -> None:
    of_rules = {name for rule in ALL_OPTIMIZERS for name in rule._hyperparameters}
    assert set(names.Group.__annotations__) == {"params", *FORMATS, *of_rules}
    assert names.Group.__required_keys__ == {"params"}


def test_the_shared_keywords_are_those_that_optimizers_take() -> None:
    taken = set(instep.optimizers.base.documentation.keywords(instep.Optimizer))
    assert set(names.Shared.__annotations__) == taken - {"lr", "weight_decay"}


def test_groups_and_states_are_of_these_types() -> None:
    optimizer = instep.Adam(np.ones(1))
    assert all(isinstance(group, names.ParamGroup) for group in optimizer.param_groups)
    assert isinstance(optimizer.state_dict(), typing.get_origin(names.StateDict))
