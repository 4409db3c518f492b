"""True equals 1 and so does 1.0, but neither is a count, a version or a number of instep's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from snapshots import bits

import instep
from instep import checkpoint, schedules
from instep.schedules import Constant, Linear, ReduceOnPlateau, from_dict

NO_INTS: list[Any] = [True, 1.0, np.True_, "1", None]


def stepped() -> instep.Adam:
    lr = Linear(0.5, 0.25, steps=1)
    optimizer = instep.Adam({"w": np.ones(1)}, lr=lr, nonfinite="skip", seed=1)
    optimizer.step({"w": np.ones(1)})
    optimizer.step({"w": np.full(1, np.nan)})
    return optimizer


PLACES = {
    "schema": ("schema",),
    "seed": ("seed",),
    "step_count": ("step_count",),
    "skipped_steps": ("skipped_steps",),
    "steps": ("steps", "w"),
    "a count of a schedule": ("param_groups", 0, "lr", "steps"),
}


def changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    if place[-1] == "schema" and "rule" in inner:  # of version 1, which had no seed
        inner["schema"] = 1
        del inner["seed"]
    assert inner[place[-1]] == 1, "so that it is the type that is refused"
    inner[place[-1]] = value
    return tree


@pytest.mark.parametrize("wrong", NO_INTS, ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_states_of_optimizers(place: str, wrong: Any) -> None:
    optimizer, state = stepped(), stepped().state_dict()
    optimizer.load_state_dict(state)
    before = bits(optimizer)
    with pytest.raises((TypeError, ValueError)):
        optimizer.load_state_dict(changed(state, PLACES[place], wrong))
    assert bits(optimizer) == before


@pytest.mark.parametrize("wrong", [True, 1.0, "1", None], ids=repr)
@pytest.mark.parametrize("place", [*PLACES, "the document's schema", "a shape"])
def test_documents_of_checkpoints(place: str, wrong: Any, tmp_path: Any) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from checkpoint_files import document_of, with_document  # noqa: PLC0415 (it wants ml_dtypes)

    path = tmp_path / "run"
    one = stepped()
    checkpoint.save(path, one)
    content = path.read_bytes()
    where: dict[str, tuple[Any, ...]] = {
        "the document's schema": ("schema",),
        "a shape": ("tensors", "weights/w", "shape", 0),
    }
    keys = where.get(place) or ("optimizer", *PLACES[place])
    path.write_bytes(with_document(content, changed(document_of(content), keys, wrong)))
    before = bits(one)
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(path, one)
    assert bits(one) == before
    if "count of a schedule" not in place and PLACES.get(place, ("",))[0] not in (
        *("step_count", "skipped_steps", "steps", "schema", "seed"),
    ):
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.inspect(path)


@pytest.mark.parametrize("wrong", NO_INTS, ids=repr)
@pytest.mark.parametrize("field", ["patience", "cooldown", "shared"])
def test_counts_of_stored_schedules(field: str, wrong: Any) -> None:
    stored = {**ReduceOnPlateau(0.5, patience=1, cooldown=1).to_dict(), "shared": 1}
    if field == "shared":
        assert from_dict(stored)(0) == 0.5
    with pytest.raises(ValueError, match=field):
        from_dict({**stored, field: wrong})


@pytest.mark.parametrize("wrong", NO_INTS, ids=repr)
@pytest.mark.parametrize("field", ["bad", "cooldown", "reductions"])
def test_counts_of_a_plateau(field: str, wrong: Any) -> None:
    plateau = ReduceOnPlateau(0.5, patience=1, cooldown=1)
    state = {"best": 1.0, "bad": 1, "cooldown": 1, "reductions": 1}
    plateau.load_state_dict(state)
    with pytest.raises((TypeError, ValueError), match=field):
        plateau.load_state_dict({**state, field: wrong})
    assert plateau.state_dict() == state


NO_NUMBERS: list[Any] = [
    *(True, np.True_, np.array(True), "1", np.str_("1"), np.array("1"), np.array(1 + 0j)),
    *(np.array(b"1"), np.timedelta64(1), np.array(1.0, object), np.complex64(1)),
]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda v: f"{type(v).__name__} {v!r}")
def test_hyperparameters_and_what_schedules_give(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"lr must be .*, got "):
        instep.SGD(np.ones(1), lr=wrong)
    optimizer = instep.SGD(np.ones(1), lr=lambda _: wrong)
    with pytest.raises(TypeError, match=r"the schedule of lr at step 0 must be .*, got "):
        optimizer.step(np.ones(1))
    with pytest.raises(TypeError, match=r"grad_scale must be .*, got "):
        optimizer.step(np.ones(1), grad_scale=wrong)
    with pytest.raises((TypeError, ValueError)):
        Constant(wrong)


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda v: f"{type(v).__name__} {v!r}")
def test_metrics(wrong: Any) -> None:
    plateau = ReduceOnPlateau(0.5)
    with pytest.raises(TypeError, match="metric must be a number"):
        plateau.observe(wrong)
    assert plateau.state_dict()["best"] is None


def test_numbers_of_every_kind_are_numbers() -> None:
    for number in (1, 1.0, np.float16(1), np.int8(1), np.array(1.0, "f4"), np.longdouble(1)):
        optimizer = instep.SGD(np.ones(1), lr=number, momentum=lambda _, n=number: n)
        optimizer.step(np.ones(1))
        assert optimizer.lr == 1.0
        ReduceOnPlateau(0.5).observe(number)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert instep.SGD(np.ones(1), lr=ml_dtypes.bfloat16(1)).lr == 1.0
    assert schedules.Constant(1)(0) == 1.0


class Text(str):
    """Compares as a str, and is no plain one."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("rule", "name", "right"),
    [(instep.SGD, "nonfinite", "skip"), (instep.Muon, "adjust_lr", "original")],
)
def test_words(rule: Any, name: str, right: str) -> None:
    for wrong in (np.array([right]), np.array([right, right]), [right], right.encode(), None, 1):
        with pytest.raises(ValueError, match=f"^{name} must be one of .*{right}.*, got "):
            rule(np.ones((1, 1)), **{name: wrong})
    for text in (right, Text(right), np.str_(right)):
        found = getattr(rule(np.ones((1, 1)), **{name: text}), name)
        assert (found, type(found)) == (right, str)
