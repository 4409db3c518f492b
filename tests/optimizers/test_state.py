"""State as plain data, copies and pickles: a resumed run equals the uninterrupted one bit for bit."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, VARIANTS, Variant, labels, numbers
from reference import assert_same_bits

import instep
from instep import checkpoint, interop, schedules

STEPS, STOP = 7, 3


def arrays(dtype: Any = "f4") -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    rng = np.random.default_rng(30)
    params = {"w": numbers(rng, (4, 5), dtype), "b": numbers(rng, 3, dtype)}
    grads: list[dict[str, Any]] = []
    for k in range(STEPS):
        grads.append({n: numbers(rng, p.shape, dtype) for n, p in params.items()})
        if k == 1:
            grads[-1]["b"] = None  # so that the parameters' own counts differ
    return params, grads


def assert_equal(a: Any, b: Any) -> None:
    assert (a.step_count, a.skipped_steps) == (b.step_count, b.skipped_steps)
    assert a._plan.steps == b._plan.steps
    for x, y in ((a.params, b.params), (a.averages, b.averages), (a.accumulated, b.accumulated)):
        assert x.keys() == y.keys()
        for name in x:
            assert_same_bits(x[name], y[name], name)
    for name, states in a.state.items():
        for key, values in states.items():
            assert_same_bits(values, b.state[name][key], f"{key} of {name}")


def resumed_by_state_dict(optimizer: Any, make: Any) -> Any:
    fresh = make({name: p.copy() for name, p in optimizer.params.items()})
    fresh.load_state_dict(optimizer.state_dict())
    return fresh


def resumed_by_pickle(optimizer: Any, make: Any) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


def resumed_by_deepcopy(optimizer: Any, make: Any) -> Any:
    return copy.deepcopy(optimizer)


RESUMED = [resumed_by_state_dict, resumed_by_pickle, resumed_by_deepcopy]


@pytest.mark.parametrize("resume", RESUMED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("variant", VARIANTS, ids=labels)
def test_a_resumed_run_is_the_uninterrupted_one(variant: Variant, dtype: Any, resume: Any) -> None:
    params, grads = arrays(dtype)
    more: dict[str, Any] = {
        "lr": schedules.CosineDecay(0.1, steps=9),
        "ema_decay": 0.75,
        "nonfinite": "skip",
        "state_dtype": BFLOAT16,
    }

    def make(values: Any) -> Any:
        return variant.make(values, **more)

    whole = make({name: p.copy() for name, p in params.items()})
    first = make({name: p.copy() for name, p in params.items()})
    for optimizer in (whole, first):
        for grad in grads[:STOP]:
            optimizer.step(grad)
        optimizer.step({"w": np.full((4, 5), np.nan), "b": None})
        optimizer.accumulate({"w": grads[STOP]["w"], "b": None})
    second = resume(first, make)
    assert_equal(first, second)
    for optimizer in (whole, second):
        for grad in grads[STOP + 1 :]:
            optimizer.step(grad)
    assert_equal(whole, second)
    assert first.step_count == STOP, "the first one has not been stepped along"


def test_hyperparameters_are_loaded() -> None:
    first = instep.Adam(
        [{"params": np.zeros(1), "betas": (0.5, schedules.Linear(0.9, 0.99, 10))}],
        lr=schedules.Warmup(schedules.Constant(0.1), 5),
        clip_norm=2.0,
    )
    first.param_groups[0]["weight_decay"] = 0.25
    second = instep.Adam([{"params": np.zeros(1)}])
    second.load_state_dict(
        json.loads(json.dumps(without_arrays(first.state_dict()))) | arrays_of(first)
    )
    assert dict(second.param_groups[0]) == {
        **first.param_groups[0],
        "params": second.param_groups[0].params,
    }
    assert second.clip_norm == 2.0


def without_arrays(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k not in ("state", "averages", "accumulated")}


def arrays_of(optimizer: Any) -> dict[str, Any]:
    return {k: optimizer.state_dict()[k] for k in ("state", "averages", "accumulated")}


def test_a_function_of_the_users_own_must_be_there() -> None:
    def rate(step: int) -> float:
        return 0.1 / (1 + step)

    state = instep.SGD(np.zeros(1), lr=rate).state_dict()
    assert "rate" in state["param_groups"][0]["lr"]["callable"]
    for other in (0.1, instep.schedules.Constant(0.1)):
        with pytest.raises(
            ValueError, match=r"lr.*: '.*rate' is no schedule of .* can't be stored"
        ):
            instep.SGD(np.zeros(1), lr=other).load_state_dict(state)
    same = instep.SGD(np.zeros(1), lr=rate)
    same.load_state_dict(state)
    assert same.lr is rate


def changed(
    state: dict[str, Any], *path: Any, to: Any = None, drop: bool = False
) -> dict[str, Any]:
    state = copy.deepcopy(state)
    place = state
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return state


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (("schema",), {"to": 2}, ValueError, "the state has schema 2; 1 is wanted"),
    (("rule",), {"to": "Adam"}, ValueError, "the state is of rule 'Adam'; 'AdamW' is wanted"),
    (
        ("steps",),
        {"drop": True},
        ValueError,
        "the keys of the state are not those wanted; missing: 'steps'",
    ),
    (("more",), {"to": 1}, ValueError, "unknown: 'more'"),
    (("step_count",), {"to": -1}, ValueError, "step_count is -1"),
    (("step_count",), {"to": 1.5}, ValueError, "step_count is 1.5"),
    (("skipped_steps",), {"to": True}, ValueError, "skipped_steps is True"),
    (("clip_norm",), {"to": -1.0}, ValueError, "clip_norm is -1.0"),
    (("ema_decay",), {"to": None}, ValueError, "no ema_decay; one is wanted"),
    (("param_groups",), {"to": []}, ValueError, r"a list of 1 is wanted"),
    (
        ("param_groups", 0, "params"),
        {"to": ["b", "w"]},
        ValueError,
        "the order differs: 'b' is number 0, 'w' is wanted there",
    ),
    (("param_groups", 0, "params"), {"to": ["w", "b", "w"]}, ValueError, "there are 3, some of"),
    (("param_groups", 0, "params"), {"to": [["w"]]}, TypeError, "are a list; a list of names"),
    (
        ("param_groups", 0, "params"),
        {"to": ["w", "x"]},
        ValueError,
        r"param_groups\[0\] is not of the wanted parameters; missing: 'b'; unknown: 'x'$",
    ),
    (("param_groups", 0, "lr"), {"to": -1.0}, ValueError, "lr is -1.0"),
    (("param_groups", 0, "lr"), {"to": {"schedule": "Nonsense"}}, ValueError, "Nonsense"),
    (("param_groups", 0, "lr"), {"to": "0.1"}, TypeError, "lr is '0.1'"),
    (("param_groups", 0, "betas"), {"to": [0.5]}, TypeError, "betas is .*; a pair"),
    (
        ("param_groups", 0, "amsgrad"),
        {"to": True},
        ValueError,
        "amsgrad can't go from False to True",
    ),
    (("param_groups", 0, "l1"), {"drop": True}, ValueError, "missing: 'l1'"),
    (("steps", "w"), {"to": 2**53 + 1}, ValueError, r"steps\['w'\] is"),
    (("steps", "w"), {"drop": True}, ValueError, "missing: 'w'"),
    (("state", "w"), {"to": None}, TypeError, r"state\['w'\] is None; a dict"),
    (("state", "w", "exp_avg"), {"drop": True}, ValueError, "missing: 'exp_avg'"),
    (
        ("state", "b", "exp_avg"),
        {"to": np.zeros(4, "f4")},
        ValueError,
        r"state 'exp_avg' of 'b' has shape \(4,\)",
    ),
    (
        ("state", "b", "exp_avg"),
        {"to": np.zeros(3)},
        ValueError,
        "dtype float64; .* float32 are wanted",
    ),
    (("state", "b", "exp_avg"), {"to": [0.0] * 3}, TypeError, "is a list; a NumPy array"),
    (("averages", "w"), {"drop": True}, ValueError, "missing: 'w'"),
    (("averages", "w"), {"to": np.zeros(3, "f4")}, ValueError, "the average of 'w' has shape"),
    (("accumulated",), {"to": {"x": np.zeros(3)}}, ValueError, "accumulated has 'x'"),
    (
        ("accumulated",),
        {"to": {"b": np.zeros(3)}},
        ValueError,
        "the accumulated gradient of 'b' has shape",
    ),
    (("accumulated",), {"to": None}, TypeError, "accumulated is None; a dict is wanted"),
]


@pytest.mark.parametrize(("path", "how", "error", "message"), BAD, ids=str)
def test_what_does_not_fit_changes_nothing(
    path: Any, how: Any, error: type[Exception], message: str
) -> None:
    params, grads = arrays()
    optimizer = instep.AdamW(params, lr=0.3, ema_decay=0.5)
    optimizer.step(grads[0])
    before = optimizer.state_dict()
    weights = {name: p.tobytes() for name, p in params.items()}
    other = instep.AdamW({n: p.copy() for n, p in params.items()}, lr=0.1, ema_decay=0.25)
    other.step(grads[1])
    with pytest.raises(error, match=message) as caught:
        optimizer.load_state_dict(changed(other.state_dict(), *path, **how))
    assert "\n" not in str(caught.value)
    assert repr(optimizer.state_dict()) == repr(before)
    assert {name: p.tobytes() for name, p in params.items()} == weights


def to_file(optimizer: Any, path: Path) -> Path:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    checkpoint.save(path, optimizer)
    return path


LOADS: list[tuple[str, Callable[[Any, Path], Any], Callable[[Any, Any], Any]]] = [
    ("state_dict", lambda o, _: o.state_dict(), lambda o, state: o.load_state_dict(state)),
    ("torch", lambda o, _: interop.to_torch_state_dict(o), interop.from_torch_state_dict),
    ("checkpoint", to_file, lambda o, path: checkpoint.load(path, o)),
]


@pytest.mark.parametrize(("save", "load"), [c[1:] for c in LOADS], ids=[c[0] for c in LOADS])
def test_an_array_that_has_become_read_only_keeps_all_as_it_was(
    tmp_path: Path, save: Any, load: Any
) -> None:
    w, copied = np.ones(3), np.zeros(3, "f2")
    optimizer = instep.Adam(w, lr=0.1, copy_to=copied, clip_norm=1.0)
    optimizer.step(np.ones(3))
    saved = save(optimizer, tmp_path / "run")
    optimizer.lr, optimizer.clip_norm = 0.7, 2.0
    optimizer.step(np.ones(3))
    before, weights = repr(optimizer.state_dict()), w.tolist()
    copied.flags.writeable = False
    with pytest.raises(ValueError, match="the copy of '0' has been made read-only"):
        load(optimizer, saved)
    assert repr(optimizer.state_dict()) == before
    assert w.tolist() == weights
    copied.flags.writeable = True
    load(optimizer, saved)
    assert (optimizer.lr, optimizer.step_count) == (0.1, 1)


OURS = {name: ways for name, *ways in LOADS if name != "torch"}

INSIDE: dict[str, Callable[[Any], np.ndarray]] = {
    "state 'exp_avg' of 'w'": lambda o: o.state["w"]["exp_avg"],
    "state 'exp_avg_sq' of 'b'": lambda o: o.state["b"]["exp_avg_sq"],
    "the average of 'b'": lambda o: o.averages["b"],
    "the accumulated gradient of 'b'": lambda o: o.accumulated["b"],
}


@pytest.mark.parametrize("what", INSIDE)
@pytest.mark.parametrize(("save", "load"), OURS.values(), ids=OURS)
def test_a_read_only_array_inside_keeps_all_as_it_was(
    tmp_path: Path, save: Any, load: Any, what: str
) -> None:
    params, grads = arrays()
    params["empty"] = np.zeros((0, 2))
    optimizer = instep.Adam(params, lr=0.1, ema_decay=0.5)
    for call in (optimizer.step, optimizer.step, optimizer.accumulate):
        call({**grads[0], "empty": np.zeros((0, 2))})
    saved = save(optimizer, tmp_path / "run")
    optimizer.step({**grads[2], "empty": None})
    optimizer.accumulate({**grads[2], "empty": None})
    optimizer.lr = 0.5
    before = repr(optimizer.state_dict()), repr(optimizer.params)
    array = INSIDE[what](optimizer)
    array.flags.writeable = False
    with pytest.raises(ValueError, match=f"{what} has been made read-only; it must be writeable"):
        load(optimizer, saved)
    assert (repr(optimizer.state_dict()), repr(optimizer.params)) == before
    array.flags.writeable = True
    for name in ("exp_avg", "exp_avg_sq"):  # where nothing has to be written
        optimizer.state["empty"][name].flags.writeable = False
    load(optimizer, saved)
    assert (optimizer.lr, optimizer.step_count) == (0.1, 2)


def named(count: int, *more: str) -> dict[str, np.ndarray]:
    return {name: np.zeros(1, "f4") for name in [*(f"layer{k}.w" for k in range(count)), *more]}


MANY: list[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray], str]] = [
    ("one less", named(300), named(299), r"; unknown: 'layer299.w'$"),
    ("one more", named(300), named(300, "head"), r"; missing: 'head'$"),
    ("renamed", named(300, "head"), named(300, "tail"), "; missing: 'tail'; unknown: 'head'$"),
    (
        "all others",
        named(300),
        {f"x{k}": np.zeros(1, "f4") for k in range(299)},
        "; missing: 'x0', 'x1', 'x2' and 296 more; "
        "unknown: 'layer0.w', 'layer1.w', 'layer2.w' and 297 more$",
    ),
    (
        "other order",
        named(300),
        dict(reversed(named(300).items())),
        "order differs: 'layer0.w' is number 0, 'layer299.w' is wanted there$",
    ),
]


@pytest.mark.parametrize(
    ("stored", "there", "message"), [c[1:] for c in MANY], ids=[c[0] for c in MANY]
)
@pytest.mark.parametrize(("save", "load"), OURS.values(), ids=OURS)
def test_of_many_names_the_difference_is_said(
    tmp_path: Path, save: Any, load: Any, stored: Any, there: Any, message: str
) -> None:
    saved = save(instep.Adam(stored), tmp_path / "run")
    with pytest.raises(ValueError, match=message) as caught:
        load(instep.Adam(there), saved)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 250


def test_no_dict_at_all() -> None:
    bad: Any = [1]
    with pytest.raises(TypeError, match="the state is a list; a dict is wanted"):
        instep.SGD(np.zeros(1)).load_state_dict(bad)


def test_a_deep_copy_steps_arrays_of_its_own_and_keeps_its_containers() -> None:
    model = {"w": np.ones(3), "half": np.ones(3, "f2")}
    optimizer = instep.SGD([{"params": [model["w"]], "lr": 0.5}], copy_to=[[model["half"]]])
    twin_model, twin = copy.deepcopy((model, optimizer))
    twin.step([[np.ones(3)]])
    assert model["w"].tolist() == [1.0] * 3
    assert twin_model["w"].tolist() == [0.5] * 3, (
        "arrays shared before the copy are shared after it"
    )
    assert twin_model["half"].tolist() == [0.5] * 3
    with optimizer_with_averages().averaged():
        pass
    averaged = optimizer_with_averages()
    with averaged.averaged(), pytest.raises(RuntimeError, match="copy after the block"):
        copy.deepcopy(averaged)


class SteppedMeanwhile(np.ndarray):
    """An array that waits for another thread's step as it is copied."""

    thread: threading.Thread

    def __deepcopy__(self, memo: Any) -> np.ndarray:
        self.thread.start()
        self.thread.join(0.3)
        return np.array(self)


def test_a_deep_copy_is_made_between_steps_of_another_thread() -> None:
    w = np.ones(3).view(SteppedMeanwhile)
    optimizer = instep.SGD(w, lr=1.0)
    w.thread = threading.Thread(target=optimizer.step, args=(np.ones(3),))
    twin = copy.deepcopy(optimizer)
    w.thread.join()
    assert (twin.step_count, twin.params["0"].tolist()) == (0, [1.0] * 3)
    assert (optimizer.step_count, w.tolist()) == (1, [0.0] * 3)


@pytest.mark.parametrize(("save", "load"), [c[1:] for c in LOADS], ids=[c[0] for c in LOADS])
def test_no_loading_inside_averaged(tmp_path: Path, save: Any, load: Any) -> None:
    """Else the copies, which are written as the state is loaded, would be of the averages."""
    w, copied = np.zeros(2, "f4"), np.zeros(2, "f2")
    optimizer = instep.Adam(w, lr=1.0, ema_decay=0.75, copy_to=copied)
    optimizer.step(np.ones(2))
    saved, values = save(optimizer, tmp_path / "run"), w.tolist()
    optimizer.lr = 0.5
    with optimizer.averaged(), pytest.raises(RuntimeError, match="load after the block"):
        load(optimizer, saved)
    assert (w.tolist(), copied.tolist()) == (values, values)
    assert optimizer.lr == 0.5


def optimizer_with_averages() -> Any:
    return instep.SGD(np.zeros(1), ema_decay=0.5)


SWAPPED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "scaler.step": (
        lambda o: instep.LossScaler().step({"w": np.ones(1)}, o),  # type: ignore[arg-type]
        r"a dict; one of instep's is wanted, as in scaler.step\(optimizer, grads\)",
    ),
    "save": (
        lambda o: checkpoint.save(o, "run"),  # type: ignore[arg-type]
        r"a str; one of instep's is wanted, as in checkpoint.save\(path, optimizer\)",
    ),
    "load": (
        lambda o: checkpoint.load(o, Path("run")),  # type: ignore[arg-type]
        r"a (?:Posix|Windows)Path; .* as in checkpoint.load\(path, optimizer\)",
    ),
    "to torch": (
        lambda o: interop.to_torch_state_dict({}),  # type: ignore[arg-type]
        r"a dict; .*, as in to_torch_state_dict\(optimizer\)",
    ),
    "from torch": (
        lambda o: interop.from_torch_state_dict({}, o),  # type: ignore[arg-type]
        r"a dict; .*, as in from_torch_state_dict\(optimizer, state_dict\)",
    ),
}


@pytest.mark.parametrize("call", SWAPPED)
def test_swapped_arguments(call: str) -> None:
    swap, message = SWAPPED[call]
    with pytest.raises(TypeError, match=f"^optimizer is ({message})$"):
        swap(instep.SGD(np.ones(1), nonfinite="skip"))


def test_an_optimizer_frees_its_arrays_at_once() -> None:
    """No reference cycle: states of a large model must not wait for the garbage collector."""
    gc.disable()
    try:
        optimizer = instep.Adam(np.zeros(10), lr=schedules.Constant(0.1), ema_decay=0.5)
        optimizer.step(np.ones(10))
        state = weakref.ref(optimizer.state["0"]["exp_avg"])
        group = optimizer.param_groups[0]
        del optimizer
        assert state() is None
        group["lr"] = 0.5  # a group left over can still be read and set
        assert group["lr"] == 0.5
    finally:
        gc.enable()
