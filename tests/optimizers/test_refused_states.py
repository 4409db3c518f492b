"""A state that does not fit, or that can not be put in place, changes nothing; neither do swapped arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from short_run import arrays

import instep
from instep import checkpoint, interop


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
    (("schema",), {"to": 3}, ValueError, "the schema of the state must be 1 to 2, got 3"),
    (("schema",), {"to": 1}, ValueError, "the state must have the expected keys; unknown: 'seed'"),
    (("seed",), {"drop": True}, ValueError, "missing: 'seed'"),
    (("seed",), {"to": 2**64}, ValueError, r"seed must be an int from 0 to 2\*\*64 - 1, got 184"),
    (
        ("rule",),
        {"to": "Adam"},
        ValueError,
        "the rule of the state must be 'AdamW', got 'Adam'",
    ),
    (
        ("steps",),
        {"drop": True},
        ValueError,
        "the state must have the expected keys; missing: 'steps'",
    ),
    (("more",), {"to": 1}, ValueError, "unknown: 'more'"),
    (("step_count",), {"to": -1}, ValueError, "step_count must be .*, got -1"),
    (("step_count",), {"to": 1.5}, ValueError, "step_count must be .*, got 1.5"),
    (("skipped_steps",), {"to": True}, ValueError, "skipped_steps must be .*, got True"),
    (("clip_norm",), {"to": -1.0}, ValueError, "clip_norm must be .*, got -1.0"),
    (
        ("ema_decay",),
        {"to": None},
        ValueError,
        "ema_decay of the state must be a number, .*, got None",
    ),
    (
        ("param_groups",),
        {"to": []},
        ValueError,
        "param_groups must be a list of 1, got a list of 0",
    ),
    (
        ("param_groups", 0, "params"),
        {"to": ["b", "w"]},
        ValueError,
        "; the order must be the same: number 0 must be 'w', got 'b'",
    ),
    (
        ("param_groups", 0, "params"),
        {"to": ["w", "b", "w"]},
        ValueError,
        "there must be .*, got 3, some of",
    ),
    (
        ("param_groups", 0, "params"),
        {"to": [["w"]]},
        TypeError,
        "must be a list of names, got a list",
    ),
    (
        ("param_groups", 0, "params"),
        {"to": ["w", "x"]},
        ValueError,
        r"params of param_groups\[0\] must be the optimizer's; missing: 'b'; unknown: 'x'$",
    ),
    (("param_groups", 0, "lr"), {"to": -1.0}, ValueError, "lr must be .*, got -1.0"),
    (("param_groups", 0, "lr"), {"to": {"schedule": "Nonsense"}}, ValueError, "Nonsense"),
    (("param_groups", 0, "lr"), {"to": "0.1"}, TypeError, "lr must be .*, got '0.1'"),
    (("param_groups", 0, "betas"), {"to": [0.5]}, TypeError, "betas must be a pair.*, got .*"),
    (
        ("param_groups", 0, "amsgrad"),
        {"to": True},
        ValueError,
        "amsgrad must stay False, got True",
    ),
    (("param_groups", 0, "l1"), {"drop": True}, ValueError, "missing: 'l1'"),
    (
        ("steps", "w"),
        {"to": 2**53 + 1},
        ValueError,
        r"steps\['w'\] must be a count of steps, .*, got 9",
    ),
    (("steps", "w"), {"drop": True}, ValueError, "missing: 'w'"),
    (("state", "w"), {"to": None}, TypeError, r"state\['w'\] must be a dict, got None"),
    (("state", "w", "exp_avg"), {"drop": True}, ValueError, "missing: 'exp_avg'"),
    (
        ("state", "b", "exp_avg"),
        {"to": np.zeros(4, "f4")},
        ValueError,
        r"state 'exp_avg' of 'b' must have shape .*, got \(4,\)",
    ),
    (
        ("state", "b", "exp_avg"),
        {"to": np.zeros(3)},
        ValueError,
        "stored as float32, got float64; convert the state_dict",
    ),
    (("state", "b", "exp_avg"), {"to": [0.0] * 3}, TypeError, "must be a NumPy array, got a list"),
    (("averages", "w"), {"drop": True}, ValueError, "missing: 'w'"),
    (
        ("averages", "w"),
        {"to": np.zeros(3, "f4")},
        ValueError,
        "the average of 'w' must have shape .*, got ",
    ),
    (
        ("accumulated",),
        {"to": {"x": np.zeros(3)}},
        ValueError,
        "a key of accumulated must be the name .*, got 'x'",
    ),
    (
        ("accumulated",),
        {"to": {"b": np.zeros(3)}},
        ValueError,
        "the accumulated gradient of 'b' must have shape .*, got ",
    ),
    (("accumulated",), {"to": None}, TypeError, "accumulated must be a dict, got None"),
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
    with pytest.raises(
        ValueError, match=r"the copy of '0' must .*, got .* has been made read-only"
    ):
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
    with pytest.raises(ValueError, match=f"{what} must be writeable .*, got .* made read-only"):
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
        "; the order must be the same: number 0 must be 'layer299.w', got 'layer0.w'$",
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
    with pytest.raises(ValueError, match=r"got a state in the form of torch.optim; pass it to"):
        instep.SGD(np.zeros(1)).load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(TypeError, match="the state must be a dict, got a list"):
        instep.SGD(np.zeros(1)).load_state_dict(bad)


@pytest.mark.parametrize(("save", "load"), [c[1:] for c in LOADS], ids=[c[0] for c in LOADS])
def test_no_loading_inside_averaged(tmp_path: Path, save: Any, load: Any) -> None:
    """Else the copies, which are written as the state is loaded, would be of the averages."""
    w, copied = np.zeros(2, "f4"), np.zeros(2, "f2")
    optimizer = instep.Adam(w, lr=1.0, ema_decay=0.75, copy_to=copied)
    optimizer.step(np.ones(2))
    saved, values = save(optimizer, tmp_path / "run"), w.tolist()
    optimizer.lr = 0.5
    with optimizer.averaged(), pytest.raises(RuntimeError, match="load must come after the block"):
        load(optimizer, saved)
    assert (w.tolist(), copied.tolist()) == (values, values)
    assert optimizer.lr == 0.5


SWAPPED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "scaler.step": (
        lambda o: instep.LossScaler().step({"w": np.ones(1)}, o),  # type: ignore[arg-type]
        r"a dict; call scaler.step\(optimizer, grads\)",
    ),
    "save": (
        lambda o: checkpoint.save(o, "run"),  # type: ignore[arg-type]
        r"a str; call checkpoint.save\(path, optimizer\)",
    ),
    "load": (
        lambda o: checkpoint.load(o, Path("run")),  # type: ignore[arg-type]
        r"a (?:Posix|Windows)Path; call checkpoint.load\(path, optimizer\)",
    ),
    "to torch": (
        lambda o: interop.to_torch_state_dict({}),  # type: ignore[arg-type]
        r"a dict; call to_torch_state_dict\(optimizer\)",
    ),
    "from torch": (
        lambda o: interop.from_torch_state_dict({}, o),  # type: ignore[arg-type]
        r"a dict; call from_torch_state_dict\(optimizer, state_dict\)",
    ),
}


@pytest.mark.parametrize("call", SWAPPED)
def test_swapped_arguments(call: str) -> None:
    swap, message = SWAPPED[call]
    with pytest.raises(
        TypeError, match=f"^optimizer must be an Optimizer of instep, got ({message})$"
    ):
        swap(instep.SGD(np.ones(1), nonfinite="skip"))
