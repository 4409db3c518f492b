"""What can't be done is refused with one clear error, and nothing has changed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16

import instep


def misaligned(n: int = 4, dtype: str = "f4") -> np.ndarray:
    return np.zeros(8 * n + 1, np.uint8)[1 : 1 + n * np.dtype(dtype).itemsize].view(dtype)


def read_only() -> np.ndarray:
    a = np.zeros(4)
    a.flags.writeable = False
    return a


BAD_PARAMS: list[tuple[str, Any, type[Exception], str]] = [
    (
        "read-only",
        read_only(),
        ValueError,
        r"parameter '0' is read-only; a writeable array is wanted",
    ),
    ("memory-mapped", np.broadcast_to(np.float64(0), (1,)), ValueError, "read-only"),
    ("misaligned", misaligned(), ValueError, r"parameter '0' is misaligned"),
    (
        "byte-swapped",
        np.zeros(4, ">f4"),
        TypeError,
        r"parameter '0' has the byte-swapped dtype >f4",
    ),
    (
        "integer",
        np.zeros(4, int),
        TypeError,
        r"parameter '0' has dtype int64; float64, float32, float16 or",
    ),
    ("complex", np.zeros(4, complex), TypeError, r"parameter '0' has dtype complex128"),
    ("object", np.zeros(4, object), TypeError, r"parameter '0' has dtype object"),
    (
        "long double",
        np.zeros(4, np.longdouble),
        TypeError,
        r"parameter '0' has dtype (longdouble|float128)",
    ),
    ("bool", np.zeros(4, bool), TypeError, r"parameter '0' has dtype bool"),
    ("structured", np.zeros(4, [("a", "f4")]), TypeError, r"parameter '0' has dtype"),
    ("masked", np.ma.zeros(4), TypeError, r"parameter '0' is a .*Masked"),
    (
        "zero strides",
        np.lib.stride_tricks.as_strided(np.zeros(4), (4, 4), (0, 8)),
        ValueError,
        "overlaps itself",
    ),
    (
        "sliding",
        np.lib.stride_tricks.as_strided(np.zeros(9), (4, 4), (8, 8)),
        ValueError,
        "overlaps itself",
    ),
    (
        "half over",
        np.lib.stride_tricks.as_strided(np.zeros(9, "f4"), (4,), (2,)),
        ValueError,
        "misaligned|overlaps",
    ),
    (
        "list of numbers",
        [1.0, 2.0],
        TypeError,
        r"parameter '0' is a float; a NumPy array is wanted",
    ),
    ("nested list", [[np.zeros(1)]], TypeError, r"parameter '0' is a list"),
    ("number", 1.0, TypeError, "params is a float"),
    ("None", None, TypeError, "params is a NoneType"),
    ("set", {1.0}, TypeError, "params is a set"),
    ("generator", (np.zeros(1) for _ in range(2)), TypeError, "params is a generator"),
    ("nothing", [], ValueError, "params is empty"),
    ("empty dict", {}, ValueError, "params is empty"),
    ("empty group", [{"params": []}], ValueError, "params is empty"),
    ("key no str", {1: np.zeros(1)}, TypeError, "a parameter's name is 1; a str"),
    ("group without params", [{"lr": 1.0}], ValueError, r"group 0 has the keys \['lr'\]"),
    (
        "group with another key",
        [{"params": np.zeros(1), "rate": 1.0}],
        TypeError,
        "no hyperparameter 'rate'",
    ),
    ("group with clip_norm", [{"params": np.zeros(1), "clip_norm": 1.0}], TypeError, "'clip_norm'"),
    ("group with bad lr", [{"params": np.zeros(1), "lr": -1.0}], ValueError, "lr is -1.0"),
    (
        "same name twice",
        [{"params": {"1": np.zeros(1)}}, {"params": np.zeros(1)}],
        ValueError,
        "go by the name '1'",
    ),
]


@pytest.mark.parametrize(
    ("params", "error", "message"), [c[1:] for c in BAD_PARAMS], ids=[c[0] for c in BAD_PARAMS]
)
def test_parameters(params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        instep.Adam(params)
    assert "\n" not in str(caught.value)


def test_overlapping_parameters() -> None:
    base = np.zeros(10)
    for a, b in [
        (base, base),
        (base[:6], base[5:]),
        (base, base[::3]),
        (base.reshape(2, 5).T, base[9:]),
    ]:
        with pytest.raises(ValueError, match=r"parameter '\d' shares memory with parameter '\d'"):
            instep.SGD([a, b])
    instep.SGD([base[:5], base[5:]])
    instep.SGD([base[::2], base[1::2]])
    matrix = np.zeros((4, 6))
    instep.SGD([matrix[:, :3], matrix[:, 3:]])
    instep.SGD([base[:0], base])


class Bytes:
    """Everything of an optimizer that a refused step must leave as it was."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.before = optimizer, self._read(optimizer)

    @staticmethod
    def _read(optimizer: Any) -> Any:
        return (
            {name: p.tobytes() for name, p in optimizer.params.items()},
            {
                n: {s: a.tobytes() for s, a in states.items()}
                for n, states in optimizer.state.items()
            },
            optimizer.step_count,
            optimizer._plan.steps,
            optimizer.grad_norm,
        )

    def check(self) -> None:
        assert self._read(self.optimizer) == self.before


def make_optimizer() -> Any:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((3, 4)).astype("f4"), "b": rng.standard_normal(4)}
    optimizer = instep.AdamW(params, amsgrad=True, clip_norm=10.0)
    optimizer.step({"w": np.ones((3, 4)), "b": np.ones(4)})
    return optimizer


def good() -> np.ndarray:
    return np.ones(4)


W = np.ones((3, 4))
BAD_GRADS: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    ("list", lambda o: [W, good()], TypeError, "the gradients came as a list; a dict is wanted"),
    ("array", lambda o: W, TypeError, "the gradients came as a numpy.ndarray; a dict is wanted"),
    ("None", lambda o: None, TypeError, "the gradients came as a NoneType"),
    ("missing", lambda o: {"w": W}, ValueError, r"missing: 'b' \(None leaves"),
    ("too many", lambda o: {"w": W, "b": good(), "c": good()}, ValueError, "unknown: 'c'"),
    ("other key", lambda o: {"w": W, "c": good()}, ValueError, r"missing: 'b'.*unknown: 'c'"),
    (
        "shape",
        lambda o: {"w": W.T, "b": good()},
        ValueError,
        r"gradient of 'w' has shape \(4, 3\).*\(3, 4\), is",
    ),
    (
        "last shape",
        lambda o: {"w": W, "b": np.ones(5)},
        ValueError,
        r"gradient of 'b' has shape \(5,\).*\(4,\), is",
    ),
    (
        "dimensions",
        lambda o: {"w": W, "b": np.ones((4, 1))},
        ValueError,
        r"gradient of 'b' has shape \(4, 1\)",
    ),
    ("scalar", lambda o: {"w": W, "b": 1.0}, TypeError, "gradient of 'b' is a float"),
    (
        "integer",
        lambda o: {"w": W, "b": np.ones(4, int)},
        TypeError,
        "gradient of 'b' has dtype int64",
    ),
    (
        "complex",
        lambda o: {"w": W, "b": np.ones(4, complex)},
        TypeError,
        "gradient of 'b' has dtype complex128",
    ),
    (
        "object",
        lambda o: {"w": W, "b": np.ones(4, object)},
        TypeError,
        "gradient of 'b' has dtype object",
    ),
    (
        "byte-swapped",
        lambda o: {"w": W, "b": np.ones(4, ">f8")},
        TypeError,
        "gradient of 'b' has the byte-swapped",
    ),
    (
        "misaligned",
        lambda o: {"w": W, "b": misaligned(4, "f8")},
        ValueError,
        "gradient of 'b' is misaligned",
    ),
    ("a list in it", lambda o: {"w": W, "b": [1.0] * 4}, TypeError, "gradient of 'b' is a list"),
    ("masked", lambda o: {"w": W, "b": np.ma.ones(4)}, TypeError, "gradient of 'b' is a .*Masked"),
    (
        "the parameter",
        lambda o: {"w": W, "b": o.params["b"]},
        ValueError,
        "'b' shares memory with parameter 'b'",
    ),
    (
        "another's",
        lambda o: {"w": W, "b": o.params["w"][0]},
        ValueError,
        "'b' shares memory with parameter 'w'",
    ),
    (
        "reversed",
        lambda o: {"w": W, "b": o.params["b"][::-1]},
        ValueError,
        "'b' shares memory with parameter 'b'",
    ),
    (
        "state",
        lambda o: {"w": o.state["w"]["exp_avg"], "b": good()},
        ValueError,
        "gradient of 'w' shares memory with state 'exp_avg' of 'w'",
    ),
]


@pytest.mark.parametrize(
    ("grads", "error", "message"), [c[1:] for c in BAD_GRADS], ids=[c[0] for c in BAD_GRADS]
)
def test_gradients(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = make_optimizer()
    given = grads(optimizer)
    before = Bytes(optimizer)
    with pytest.raises(error, match=message) as caught:
        optimizer.step(given)
    assert "\n" not in str(caught.value)
    before.check()
    optimizer.step({"w": W, "b": good()})  # and it goes on


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"0": W}, TypeError, "the gradients came as a dict; a list or tuple of 2 is wanted"),
        ([W], ValueError, "the gradients have 1 entries; 2 are wanted"),
        ([W, W, W], ValueError, "the gradients have 3 entries; 2 are wanted"),
        ((g for g in [W, W]), TypeError, "came as a generator"),
        (np.ones((2, 3, 4)), TypeError, "came as a numpy.ndarray"),
    ],
)
def test_sequences_of_gradients(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.SGD([np.zeros((3, 4)), np.zeros((3, 4))])
    with pytest.raises(error, match=message):
        optimizer.step(grads)


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (
            np.ones(1),
            TypeError,
            "came as a numpy.ndarray; a list with an entry for each parameter group",
        ),
        ([np.ones(1)], ValueError, "have 1 entries; one for each of the 2 parameter groups"),
        (
            [np.ones(1), np.ones(1)],
            TypeError,
            "the gradients of group 1 came as a numpy.ndarray; a list or tuple",
        ),
        ([np.ones(2), [np.ones(1)]], ValueError, r"gradient of '0' has shape \(2,\)"),
    ],
)
def test_gradients_of_groups(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.SGD([{"params": np.zeros(1)}, {"params": [np.zeros(1)]}])
    with pytest.raises(error, match=message):
        optimizer.step(grads)


def test_a_gradient_between_the_elements_of_a_parameter_is_fine() -> None:
    both = np.zeros(8)
    w, g = both[::2], both[1::2]
    g[:] = 1
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(g)
    assert both.tolist() == [-1, 1] * 4


def test_a_parameter_changed_behind_the_optimizers_back() -> None:
    w = np.zeros((2, 3))
    optimizer = instep.Adam({"w": w})
    with pytest.raises(ValueError, match="cannot resize"):
        w.resize((4, 3), refcheck=False)  # the memory would be freed under the optimizer
    w.flags.writeable = False
    before = Bytes(optimizer)
    with pytest.raises(ValueError, match="parameter 'w' has been made read-only"):
        optimizer.step({"w": np.ones((2, 3))})
    before.check()
    w.flags.writeable = True
    optimizer.step({"w": np.ones((2, 3))})


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
def test_a_reshaped_parameter() -> None:
    w = np.zeros((2, 3))
    optimizer = instep.Adam({"w": w})
    w.shape = (3, 2)
    with pytest.raises(ValueError, match="parameter 'w' has been reshaped or moved"):
        optimizer.step({"w": np.ones((2, 3))})


def test_parameters_outlive_their_names() -> None:
    optimizer = instep.SGD({"w": np.zeros(1000)}, lr=1.0)
    optimizer.step({"w": np.ones(1000)})  # the only references are the optimizer's
    assert (optimizer.params["w"] == -1).all()


BAD_HYPERPARAMETERS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("SGD", {"lr": -1.0}, ValueError, r"lr is -1.0; a finite number of at least 0 is wanted"),
    ("SGD", {"lr": math.nan}, ValueError, "lr is nan"),
    ("SGD", {"lr": math.inf}, ValueError, "lr is inf"),
    ("SGD", {"lr": "fast"}, TypeError, "lr is 'fast'"),
    ("SGD", {"lr": True}, TypeError, "lr is True"),
    ("SGD", {"lr": None}, TypeError, "lr is None"),
    ("SGD", {"lr": 1j}, TypeError, "lr is 1j"),
    ("SGD", {"lr": np.ones(2)}, TypeError, "lr is array"),
    ("SGD", {"momentum": 1.5}, ValueError, r"momentum is 1.5; a number in \[0, 1\]"),
    ("SGD", {"momentum": -0.1}, ValueError, "momentum is -0.1"),
    ("SGD", {"momentum": 0.9, "dampening": 2}, ValueError, "dampening is 2.0"),
    ("SGD", {"nesterov": True}, ValueError, "nesterov is True and momentum is 0"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "dampening is 0.1"),
    ("SGD", {"lr_in_velocity": True}, ValueError, "lr_in_velocity is True and momentum is 0"),
    ("SGD", {"lr_in_velocity": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "dampening"),
    ("SGD", {"nesterov": 1}, TypeError, "nesterov is 1; True or False"),
    ("SGD", {"weight_decay": -1e-3}, ValueError, "weight_decay is -0.001"),
    ("SGD", {"l1": -1e-3}, ValueError, "l1 is -0.001"),
    ("SGD", {"clip_value": 0.0}, ValueError, "clip_value is 0.0; a number greater than 0"),
    ("SGD", {"clip_norm": 0.0}, ValueError, "clip_norm is 0.0; a number greater than 0"),
    ("SGD", {"clip_norm": -1.0}, ValueError, "clip_norm is -1.0"),
    ("SGD", {"clip_norm": math.nan}, ValueError, "clip_norm is nan"),
    ("SGD", {"maximize": "yes"}, TypeError, "maximize is 'yes'"),
    ("Momentum", {"momentum": 0.0}, ValueError, "momentum is 0"),
    ("RMSprop", {"alpha": 1.0}, ValueError, r"alpha is 1.0; a number in \[0, 1\)"),
    ("RMSprop", {"eps": -1e-8}, ValueError, "eps is -1e-08"),
    ("RMSprop", {"centered": None}, TypeError, "centered is None"),
    ("Adam", {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] is 1.0; a number in \[0, 1\)"),
    ("Adam", {"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] is -0.1"),
    ("Adam", {"betas": (0.9, math.nan)}, ValueError, r"betas\[1\] is nan"),
    ("Adam", {"betas": 0.9}, TypeError, "betas is 0.9; a pair"),
    ("Adam", {"betas": (0.9,)}, TypeError, "betas is .*; a pair"),
    ("Adam", {"eps": math.nan}, ValueError, "eps is nan"),
    ("Adam", {"state_dtype": int}, TypeError, "state_dtype has dtype int64"),
    ("Adam", {"state_dtype": ">f4"}, TypeError, "state_dtype has the byte-swapped dtype >f4"),
    ("AdamW", {"weight_decay": -1.0}, ValueError, "weight_decay is -1.0"),
]


@pytest.mark.parametrize(("rule", "options", "error", "message"), BAD_HYPERPARAMETERS, ids=str)
def test_hyperparameters(rule: str, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(instep, rule)(np.zeros(1), **options)
    assert "\n" not in str(caught.value)


def test_state_dtype_wider_than_the_arithmetic() -> None:
    with pytest.raises(
        ValueError,
        match="state_dtype float64 is wider than float32, the compute type of parameter '1'",
    ):
        instep.Adam([np.zeros(1), np.zeros(1, "f4")], state_dtype="f8")


def raises_at_two(step: int) -> float:
    if step == 2:
        raise RuntimeError("no more")
    return 0.1


BAD_SCHEDULES: list[tuple[Any, type[Exception], str]] = [
    (lambda t: math.nan if t == 2 else 0.1, ValueError, "the schedule of lr at step 2 is nan"),
    (lambda t: 0.2 - 0.15 * t, ValueError, "the schedule of lr at step 2 is -0.0"),
    (lambda t: "x" if t == 2 else 0.1, TypeError, "the schedule of lr at step 2 is 'x'"),
    (lambda t: None if t == 2 else 0.1, TypeError, "the schedule of lr at step 2 is None"),
    (raises_at_two, RuntimeError, "no more"),
]


@pytest.mark.parametrize(("schedule", "error", "message"), BAD_SCHEDULES)
def test_schedules(schedule: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.Adam({"w": np.ones(5)}, lr=schedule)
    for _ in range(2):
        optimizer.step({"w": np.ones(5)})
    before = Bytes(optimizer)
    with pytest.raises(error, match=message):
        optimizer.step({"w": np.ones(5)})
    before.check()


def test_a_schedule_that_steps_its_own_optimizer() -> None:
    def schedule(step: int) -> float:
        if step == 1:
            optimizer.step(np.ones(1))
        return 0.1

    optimizer = instep.SGD(np.ones(1), lr=schedule)
    optimizer.step(np.ones(1))
    before = Bytes(optimizer)
    with pytest.raises(RuntimeError, match="in the middle of a step on this very thread"):
        optimizer.step(np.ones(1))
    before.check()


def test_settings_of_a_group_are_checked_when_set() -> None:
    optimizer = instep.SGD(np.zeros(1), lr=0.1)
    group = optimizer.param_groups[0]
    for name, value, error in [
        ("lr", -1.0, ValueError),
        ("lr", "x", TypeError),
        ("rate", 1.0, TypeError),
        ("params", [], TypeError),
        ("nesterov", True, ValueError),
        ("momentum", 0.9, ValueError),  # would need a buffer
    ]:
        with pytest.raises(error):
            group[name] = value
    with pytest.raises(TypeError):
        del group["lr"]
    optimizer.step(np.ones(1))
    assert optimizer.params["0"][0] == -0.1
    group["lr"] = 0.4
    optimizer.step(np.ones(1))
    assert optimizer.params["0"][0] == -0.5
    assert dict(group) == {**dict(group), "lr": 0.4, "momentum": 0.0}


def test_bfloat16_by_name_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'instep\[bfloat16\]'"):
        instep.Adam(np.zeros(1), state_dtype="bfloat16")
    assert instep.Adam(np.zeros(1), state_dtype=BFLOAT16).state["0"]["exp_avg"].dtype == BFLOAT16


def test_a_schedule_that_changes_settings_changes_the_next_step() -> None:
    w = np.zeros(1)

    def schedule(step: int) -> float:
        optimizer.param_groups[0]["weight_decay"] = 0.0
        optimizer.lr = 0.25
        return 1.0

    optimizer = instep.SGD(w, lr=schedule)
    optimizer.step(np.ones(1))
    assert w[0] == -1.0
    assert optimizer.lr == 0.25
    optimizer.step(np.ones(1))
    assert w[0] == -1.25


def test_a_schedule_that_loads_a_state() -> None:
    def schedule(step: int) -> float:
        optimizer.load_state_dict(saved)
        return 1.0

    optimizer = instep.SGD(np.zeros(1), lr=schedule)
    saved = optimizer.state_dict()
    before = Bytes(optimizer)
    with pytest.raises(RuntimeError, match="in the middle of a step on this very thread"):
        optimizer.step(np.ones(1))
    before.check()


def test_numbers_too_large_and_complex() -> None:
    with pytest.raises(ValueError, match="lr is larger than any float"):
        instep.SGD(np.zeros(1), lr=10**400)
    with pytest.raises(TypeError, match="lr is"):
        instep.SGD(np.zeros(1), lr=np.complex64(1))


def test_dtype_objects_of_gradients_are_not_kept() -> None:
    """An unpickled array brings a dtype object of its own."""
    optimizer = instep.SGD(np.zeros(2), lr=1.0)
    dtypes = [np.dtype("f8", metadata={"k": k}) for k in range(50)]
    before = [sys.getrefcount(dtype) for dtype in dtypes]
    for dtype in dtypes:
        optimizer.step(np.ones(2, dtype))
    del dtype
    assert optimizer.params["0"].tolist() == [-50.0, -50.0]
    assert [sys.getrefcount(dtype) for dtype in dtypes] == before


def test_groups_can_not_be_changed_past_the_checks() -> None:
    optimizer = instep.SGD(np.zeros(1), lr=0.1)
    loose: Any = optimizer
    with pytest.raises(AttributeError):
        loose.param_groups[0].lr = 0.5
    with pytest.raises(AttributeError):
        loose.param_groups = []
    with pytest.raises(AttributeError):
        loose.param_groups.append({"params": np.zeros(1)})
