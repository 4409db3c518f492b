"""Optimizers from read-only buffers, and models parted from their optimizers by what stored them: docs/pitfalls.md."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import numbers
from predicting import predicted

import instep
from instep import checkpoint, schedules

MENDED = "make a new optimizer of writeable copies and load this one's state_dict"
SIZE = 200_000  # joblib maps arrays of more than a megabyte


def made(size: int = 5, dtype: Any = "f8") -> Any:
    params = {"w": numbers(np.random.default_rng(0), size, dtype)}
    optimizer = instep.Adam(params, lr=0.1, ema_decay=0.5, copy_to={"w": np.zeros(size, "f2")})
    optimizer.step({"w": np.ones(size)})
    return optimizer


def go_on(optimizer: Any) -> Any:
    """What the error says: the same run with arrays that can be written."""
    params = {name: np.array(p) for name, p in optimizer.params.items()}
    new = instep.Adam(params, lr=0.1, ema_decay=0.5)
    new.load_state_dict(optimizer.state_dict())
    new.step({"w": np.ones(params["w"].size)})
    return new


def test_from_read_only_buffers_it_predicts_and_says_how_to_go_on() -> None:
    """As of shared memory that several processes read: protocol 5, out of band."""
    optimizer = made()
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(optimizer, protocol=5, buffer_callback=buffers.append)
    assert buffers
    copies = [bytes(b) for b in buffers]
    twin = pickle.loads(data, buffers=copies)
    w = twin.params["w"]
    assert not w.flags.writeable
    assert (w @ np.ones(5), twin.step_count) == (optimizer.params["w"] @ np.ones(5), 1)
    for name, states in twin.state.items():
        for key, values in states.items():
            assert values.tolist() == optimizer.state[name][key].tolist()
            assert values.flags.writeable
    before = w.copy()
    for call in (
        lambda: twin.step({"w": np.ones(5)}),
        lambda: twin.averaged().__enter__(),
        lambda: twin.load_state_dict(optimizer.state_dict()),
        twin.refresh_copies,
    ):
        with pytest.raises(
            ValueError,
            match=f"parameter 'w' must be writeable, got .* read-only, as it came.*{MENDED}",
        ):
            call()
    assert (twin.step_count, w.tolist()) == (1, before.tolist())
    assert not twin._plan.shows_averages
    optimizer.step({"w": np.ones(5)})
    assert go_on(twin).params["w"].tolist() == optimizer.params["w"].tolist()
    for again in (copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
        again.params["w"].setflags(write=True)
    writeable = pickle.loads(data, buffers=list(map(bytearray, copies)))
    writeable.step({"w": np.ones(5)})
    assert writeable.params["w"].tolist() == optimizer.params["w"].tolist()


def test_a_new_optimizer_still_refuses_read_only_arrays() -> None:
    w = np.zeros(3)
    w.setflags(write=False)
    with pytest.raises(
        ValueError, match=r"parameter '0' must be writeable, .*, got an array that is read-only"
    ):
        instep.SGD(w)


def test_joblib_sends_large_models_to_other_processes() -> None:
    joblib = pytest.importorskip("joblib")
    optimizer = made(SIZE)
    wanted = float(optimizer.params["w"].sum())
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(predicted)(optimizer) for _ in range(2))
    for total, message in found:
        assert total == wanted
        assert MENDED in message
    assert optimizer.step_count == 1


def test_joblib_maps_a_stored_optimizer(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    optimizer = made(SIZE)
    joblib.dump(optimizer, tmp_path / "run")
    mapped = joblib.load(tmp_path / "run", mmap_mode="r")
    assert isinstance(mapped.params["w"], np.memmap)
    total, message = predicted(mapped)
    assert total == float(optimizer.params["w"].sum())
    assert MENDED in message
    optimizer.step({"w": np.ones(SIZE)})
    assert go_on(mapped).params["w"].tolist() == optimizer.params["w"].tolist()
    read = joblib.load(tmp_path / "run")
    read.step({"w": np.ones(SIZE)})
    assert read.params["w"].tolist() == optimizer.params["w"].tolist()


# ---- a model with other arrays than its optimizer's ------------------------------------------------------


def step(optimizer: Any) -> None:
    optimizer.step({name: np.ones(p.shape) for name, p in optimizer.params.items()})


def save(optimizer: Any, folder: Path) -> None:
    checkpoint.save(folder / "run", optimizer)


def load(optimizer: Any, folder: Path) -> None:
    checkpoint.save(folder / "other", made())
    checkpoint.load(folder / "other", optimizer)


LOOKS: dict[str, Callable[[Any, Path], Any]] = {
    "state_dict": lambda o, _: o.state_dict(),
    "load_state_dict": lambda o, _: o.load_state_dict(made().state_dict()),
    "checkpoint.save": save,
    "checkpoint.load": load,
    "averaged": lambda o, _: o.averaged().__enter__(),
    "a few steps": lambda o, _: [step(o) for _ in range(5)],
}


def with_model(**more: Any) -> tuple[Any, dict[str, Any]]:
    model = {"w": np.zeros(5)}
    return instep.Adam(model, lr=0.1, ema_decay=0.5, **more), model


def warned(action: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    assert all(w.category is RuntimeWarning and w.filename == __file__ for w in caught), caught
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("schedule", [False, True], ids=["a number", "a schedule"])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_parameter_put_in_after_steps_is_told_of_once(
    look: Any, schedule: bool, tmp_path: Path
) -> None:
    optimizer, model = with_model()
    if schedule:
        optimizer.lr = schedules.Constant(0.1)
    assert warned(lambda: [step(optimizer) for _ in range(3)]) == []
    model["w"] = np.zeros(5)
    (message,) = warned(lambda: look(optimizer, tmp_path))
    assert message.startswith(
        "'w' in the container of the parameters must be the array that the optimizer"
    )
    optimizer.end_averaged()
    assert warned(lambda: [look(optimizer, tmp_path) for _ in range(2)][:0]) == []


def test_a_parameter_put_in_before_the_first_step_is_told_of_by_it() -> None:
    for given in ({"w": np.zeros(5)}, [np.zeros(5)]):
        optimizer = instep.SGD(given)
        key: Any = "w" if isinstance(given, dict) else 0
        given[key] = np.ones(5)  # type: ignore[index]
        grads = {"w": np.ones(5)} if isinstance(given, dict) else [np.ones(5)]
        assert len(warned(lambda o=optimizer, g=grads: o.step(g))) == 1
        assert warned(lambda o=optimizer, g=grads: o.step(g)) == []


def test_what_is_the_same_memory_is_told_of_by_nobody() -> None:
    """Views, what is no array, what has joined or left."""
    optimizer, model = with_model()
    model["w"] = model["w"][:]
    model["more"] = np.ones(3)
    assert warned(optimizer.state_dict) == []
    model["w"] = None
    assert warned(optimizer.state_dict) == []
    del model["w"]
    assert warned(optimizer.state_dict) == []


def test_as_an_error_it_leaves_all_as_it_was() -> None:
    optimizer, model = with_model()
    model["w"] = np.ones(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="got another array"):
            step(optimizer)
        assert (optimizer.step_count, optimizer.params["w"].tolist()) == (0, [0.0] * 5)
        step(optimizer)
    assert optimizer.step_count == 1


class Model(dict[str, Any]):
    """A dict of a class of its own, which may hold anything."""


def test_joblib_parts_a_model_from_its_optimizer(tmp_path: Path) -> None:
    """It writes each array anew wherever it comes by; the first step tells, once."""
    joblib = pytest.importorskip("joblib")
    model = Model(w=np.zeros(5))
    joblib.dump((model, instep.Adam(model)), tmp_path / "both")
    other_model, other = joblib.load(tmp_path / "both")
    assert other_model["w"] is not other.params["w"]
    (message,) = warned(lambda: step(other))
    assert "joblib" in message
    assert warned(lambda: step(other)) == []
    other_model.update(other.params)  # docs/pitfalls.md
    assert (other_model["w"] != 0).all()


@pytest.mark.parametrize("given", [{"w": np.zeros(5)}, [np.zeros(5)], (np.zeros(5),)], ids=str)
def test_joblib_leaves_a_plain_container_of_parameters_to_its_optimizer(
    given: Any, tmp_path: Path
) -> None:
    joblib = pytest.importorskip("joblib")
    for groups in (given, [{"params": given}]):
        joblib.dump((given, instep.SGD(groups, lr=1.0)), tmp_path / "both")
        model, optimizer = joblib.load(tmp_path / "both")
        part: Any = {"w": np.ones(5)} if isinstance(given, dict) else [np.ones(5)]
        grads = part if groups is given else [part]
        assert warned(lambda o=optimizer, g=grads: o.step(g)) == []
        assert (model["w"] if isinstance(given, dict) else model[0]).tolist() == [-1.0] * 5


def test_joblib_stores_each_array_once(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    for k, given in enumerate(({"w": np.zeros(SIZE)}, [np.zeros(SIZE)], np.zeros(SIZE))):
        joblib.dump(instep.SGD(given), tmp_path / str(k))
        assert (tmp_path / str(k)).stat().st_size < 1.1 * 8 * SIZE
        loaded = joblib.load(tmp_path / str(k))
        assert warned(loaded.state_dict) == []
        assert loaded.param_groups[0]["params"] is not None
