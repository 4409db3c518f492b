"""Parameters in dicts, lists and tuples inside each other."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep
from instep import checkpoint

Layer = namedtuple("Layer", ["w", "b"])


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((m, n)), rng.standard_normal(n)) for m, n in ((5, 4), (4, 3), (3, 1))
    ]


def dicts() -> dict[str, Any]:
    (a, b), (c, d), (e, f) = layers()
    return {"enc": {"w": a, "b": b, "none": None}, "dec": [[c, d], {}, (e,)], 3: {"last": f}}  # type: ignore[dict-item]


NAMES = {
    "layers": ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"],
    "dicts": ["enc.w", "enc.b", "dec.0.0", "dec.0.1", "dec.2.0", "3.last"],
}
MAKE = {"layers": layers, "dicts": dicts}


def like(container: Any, leaf: Any) -> Any:
    """The same nesting, of leaf(array) for each array."""
    if isinstance(container, np.ndarray):
        return leaf(container)
    if isinstance(container, dict):
        return {key: like(value, leaf) for key, value in container.items()}
    if isinstance(container, (list, tuple)):
        return type(container)(like(value, leaf) for value in container)
    return container


@pytest.mark.parametrize("which", MAKE)
def test_the_bits_are_those_of_a_flat_list(which: str) -> None:
    nested, flat = MAKE[which](), [array for pair in layers() for array in pair]
    mine = instep.Adam(nested, lr=0.1, clip_norm=1.0, ema_decay=0.5)
    theirs = instep.Adam(flat, lr=0.1, clip_norm=1.0, ema_decay=0.5)
    assert list(mine.params) == NAMES[which]
    for k in range(4):
        mine.step(like(nested, lambda w, k=k: np.sin(w + k)))
        theirs.step([np.sin(w + k) for w in flat])
    for found, wanted in zip(mine.params.values(), flat, strict=True):
        assert_same_bits(found, wanted, which)
    assert mine.grad_norm == theirs.grad_norm
    for name, state in zip(NAMES[which], theirs.state.values(), strict=True):
        assert_same_bits(mine.state[name]["exp_avg"], state["exp_avg"], name)


@pytest.mark.parametrize("which", MAKE)
def test_it_is_shown_saved_and_copied_as_it_came(which: str, tmp_path: Path) -> None:
    nested = MAKE[which]()
    optimizer = instep.Adam(nested, lr=0.1, copy_to=like(nested, lambda w: w.astype("f4")))
    optimizer.step(like(nested, np.cos))
    shown = optimizer.param_groups[0]["params"]
    assert type(shown) is type(nested)
    assert repr(shown) == repr(nested)
    checkpoint.save(tmp_path / "run", optimizer)
    twins = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    other = MAKE[which]()
    loaded = instep.Adam(other, lr=0.5, copy_to=like(other, lambda w: w.astype("f4")))
    checkpoint.load(tmp_path / "run", loaded)
    optimizer.step(like(nested, np.sin))
    for twin in (*twins, loaded):
        twin.step(like(twin.param_groups[0]["params"], np.sin))
        assert repr(twin.param_groups[0]["params"]) == repr(nested)
        for name, state in optimizer.state.items():
            assert_same_bits(twin.state[name]["exp_avg_sq"], state["exp_avg_sq"], name)


def test_a_model_pickled_beside_its_optimizer_keeps_its_arrays() -> None:
    model = dicts()
    again, optimizer = pickle.loads(pickle.dumps((model, instep.SGD(model))))
    assert again["dec"][0][1] is optimizer.params["dec.0.1"]
    both = copy.deepcopy((model, instep.SGD(model)))
    assert both[0]["enc"]["w"] is both[1].params["enc.w"]


def test_none_stands_for_all_below_it() -> None:
    model = dicts()
    before = copy.deepcopy(model)
    optimizer = instep.SGD(model, lr=1.0, copy_to={"enc": None, "dec": None, 3: None})
    ones = np.ones_like
    optimizer.step({3: None, "dec": [None, None, (ones(model["dec"][2][0]),)], "enc": None})
    assert_same_bits(model["enc"]["w"], before["enc"]["w"], "enc.w")
    assert_same_bits(model["dec"][2][0], before["dec"][2][0] - 1, "dec.2.0")
    assert list(optimizer.state_dict()["steps"].values()) == [0, 0, 0, 0, 1, 0]


def test_gradients_may_come_in_other_containers() -> None:
    w, b = np.zeros(2), np.zeros(1)
    optimizer = instep.SGD([Layer(w, b), {"a": np.zeros(3)}], lr=1.0)
    assert list(optimizer.params) == ["0.0", "0.1", "1.a"]
    for gradients in (
        [Layer(w + 1, b + 1), {"a": np.ones(3)}],
        ([w * 0 + 1, b * 0 + 1], OrderedDict(a=np.ones(3))),
        [(np.ones(2), np.ones(1)), MappingProxyType({"a": np.ones(3)})],
        ((np.ones(2), np.ones(1)), UserDict(a=np.ones(3))),
    ):
        optimizer.step(gradients)
    assert (w.tolist(), b.tolist()) == ([-4.0, -4.0], [-4.0])


def test_groups_that_share_names() -> None:
    a, b, c = (np.zeros(2) for _ in range(3))
    groups = [{"params": {"w": a}}, {"params": {"w": b, "v": c}, "lr": 0.5}]
    optimizer = instep.SGD(groups, lr=1.0)
    assert list(optimizer.params) == ["w", "1.w", "1.v"]
    optimizer.step([None, {"w": np.ones(2), "v": None}])
    assert (a.tolist(), b.tolist(), c.tolist()) == ([0.0, 0.0], [-0.5, -0.5], [0.0, 0.0])


def test_groups_whose_names_are_taken_with_the_groups_number_too() -> None:
    groups = [{"params": {"w": np.zeros(1), "1.w": np.zeros(1)}}, {"params": {"w": np.zeros(1)}}]
    assert list(instep.SGD(groups).params) == ["w", "1.w", "1.1.w"]


def test_the_lists_of_groups_are_counted_on_at_the_top_alone() -> None:
    groups = [{"params": [np.zeros(1), np.zeros(1)]}, {"params": [[np.zeros(1)], np.zeros(1)]}]
    assert list(instep.SGD(groups).params) == ["0", "1", "2.0", "3"]


def test_a_dict_with_params_and_no_hyperparameter_is_a_container() -> None:
    tree = {"params": {"dense": {"kernel": np.zeros((2, 2))}}}  # as Flax has it
    assert list(instep.SGD(tree).params) == ["params.dense.kernel"]
    beside = {"params": np.zeros(1), "more": np.zeros(1)}
    assert list(instep.SGD(beside).params) == ["params", "more"]
    pair = {"params": np.zeros(1), "head": (np.zeros(2), np.zeros(1))}
    assert list(instep.SGD(pair).params) == ["params", "head.0", "head.1"]


def test_an_array_put_in_later_is_told_of() -> None:
    model = dicts()
    optimizer = instep.SGD(model)
    model["dec"][0][1] = np.zeros(3)
    with pytest.warns(RuntimeWarning, match=r"'dec\.0\.1' in the container"):
        optimizer.state_dict()


@dataclass
class Dense:
    w: Any


class Sparse:
    def todense(self) -> Any:
        """As SciPy's matrices have it."""


class Foreign:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """As arrays of JAX have it."""


def deep(depth: int) -> Any:
    found: Any = np.zeros(1)
    for _ in range(depth):
        found = [found]
    return found


def in_itself() -> Any:
    found: list[Any] = [np.zeros(1)]
    found.append({"a": found})
    return found


def test_how_deep() -> None:
    container = deep(200)
    optimizer = instep.SGD(container, lr=1.0)
    optimizer.step(deep(200))
    pickle.loads(pickle.dumps(optimizer)).step(deep(200))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (deep(201), ValueError, "at most 200 containers deep, got more"),
        (in_itself(), ValueError, r"params at '1\.a' must be a tree, got a list that holds itself"),
        (
            {"a": {"b": {1.5: np.zeros(1)}}},
            TypeError,
            r"a key in params at 'a\.b' must be a str.*, got 1\.5",
        ),
        ({"a": {True: np.zeros(1)}}, TypeError, "a key in params at 'a' must be .*, got True"),
        ({"a": [np.zeros(1), {2.0}]}, TypeError, r"parameter 'a\.1' must be .*, got a set"),
        (
            [{"param": np.zeros(1), "lr": 0.1}],
            ValueError,
            "group 0 must be a dict with 'params' among its keys, got a dict with .*'param', 'lr'",
        ),
        ({"a": 0.0}, TypeError, r"parameter 'a' must be .*, got a float; make np\.array\(number\)"),
        (np.float64(0), TypeError, r"params must be .*, got a float64; make np\.array\(number\)"),
        (
            [Foreign()],
            TypeError,
            r"parameter '0' must be .*, got a Foreign; make a copy by np\.array\(",
        ),
        (
            {"a": Dense(np.zeros(1))},
            TypeError,
            r"parameter 'a' must be .*, got a Dense; .*dataclasses\.fields",
        ),
        (
            [(w for w in [np.zeros(1)])],
            TypeError,
            r"parameter '0' must be .*, got a generator.*list\(\.\.\.\)",
        ),
        (
            [[np.zeros(1), np.zeros(1, object)]],
            TypeError,
            r"parameter '0\.1' must have dtype .*, got object",
        ),
        (
            [[np.zeros(1), np.zeros(1, int)]],
            TypeError,
            r"parameter '0\.1' must have dtype .*, got int",
        ),
        (
            {"a.b": np.zeros(1), "a": {"b": np.zeros(1)}},
            ValueError,
            r"must have its own name, got 'a\.b' twice",
        ),
        ({1: np.zeros(1), "1": np.zeros(1)}, ValueError, "must have its own name, got '1' twice"),
        ([Sparse()], TypeError, r"parameter '0' must be .*, got a Sparse; pass matrix\.data"),
        (
            [None, {}, [[]]],
            ValueError,
            "params must have at least one array, got none",
        ),
        (
            {"params": np.zeros(1), "lr": 0.1},
            TypeError,
            "list of groups, got a group's dict with 'lr' beside",
        ),
        ({"params": np.zeros(1), "betas": (0.5, 0.5)}, TypeError, "with 'betas' beside"),
        (
            [{"params": np.zeros(1)}, {"w": np.zeros(1)}],
            ValueError,
            "group 1 must be a dict .*, got a dict with the keys 'w'",
        ),
        ([{"params": np.zeros(1)}, np.zeros(1)], ValueError, "group 1 must be .*, got an ndarray"),
    ],
)
def test_refused_parameters(params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        instep.SGD(params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "error", "message"),
    [
        (("enc",), [], TypeError, "the gradients at 'enc' must be a dict.*, got a list"),
        (("enc",), {}, ValueError, "at 'enc' must have the parameters' keys; missing: 'w', 'b'"),
        (("dec", 0), {}, TypeError, r"at 'dec\.0' must be a list or tuple of 2.*, got a dict"),
        (("dec", 0), [None], ValueError, r"at 'dec\.0' must have 2 entries, .*, got 1"),
        (("dec", 1), [1], TypeError, r"at 'dec\.1' must be a dict.*, got a list"),
        (("enc", "none"), 1.0, TypeError, r"at 'enc\.none' must be None.*, got a float"),
        (
            ("dec", 2),
            (np.zeros(9),),
            ValueError,
            r"gradient of 'dec\.2\.0' must have shape .*, got \(9,\)",
        ),
        ((), None, TypeError, "the gradients must be .*, got None"),
    ],
)
def test_refused_gradients(
    path: tuple[Any, ...], value: Any, error: type[Exception], message: str
) -> None:
    model = dicts()
    optimizer = instep.SGD(model, lr=1.0)
    before = copy.deepcopy(model)
    gradients = like(model, np.ones_like)
    if path:
        where = gradients
        for key in path[:-1]:
            where = where[key]
        where[path[-1]] = value
    else:
        gradients = value
    with pytest.raises(error, match=message):
        optimizer.step(gradients)
    assert repr(model) == repr(before)


def test_refused_copies() -> None:
    model = {"a": [np.zeros(2), np.zeros(1)], "none": None}
    for copies, message in (
        (
            {"a": [None], "none": None},
            r"copy_to\['a'\] must be a list or tuple of 2.*, got a list of 1",
        ),
        ({"b": None}, "copy_to must have the parameters' keys"),
        ({"a": {}, "none": None}, r"copy_to\['a'\] must be a list .*, got a dict"),
        ([None], r"copy_to must be a dict.*, got a list"),
        (
            {"a": [None, None], "none": 1},
            r"copy_to\['none'\] must be None, as there is no parameter, got an int",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            instep.SGD(model, copy_to=copies)  # type: ignore[arg-type]


def test_a_list_that_shrinks_as_a_key_is_compared() -> None:
    """What is inside may run code: nothing that was let go is read."""
    gradients: list[Any] = []

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return hash("a")

        def __eq__(self, other: object) -> bool:
            gradients.clear()
            return True

    optimizer = instep.SGD([{"a": np.zeros(2)}, np.zeros(1), np.zeros(1)], lr=1.0)
    gradients += [{Key("a"): np.ones(2)}, np.ones(1), np.ones(1)]
    with pytest.raises(ValueError, match=r"the gradients must have 3 entries, .*, got 0"):
        optimizer.step(gradients)


def test_autograds_parameters_and_gradients_as_they_come() -> None:
    """Its examples keep a network as a list of pairs, which its gradients come in, too."""
    anp = pytest.importorskip("autograd.numpy")
    grad = pytest.importorskip("autograd").grad
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3))
    y = np.sin(x.sum(axis=1, keepdims=True))
    params = [
        (0.5 * rng.standard_normal((m, n)), np.zeros(n)) for m, n in ((3, 16), (16, 16), (16, 1))
    ]

    def loss(params: Any) -> Any:
        hidden = x
        for w, b in params[:-1]:
            hidden = anp.tanh(anp.dot(hidden, w) + b)
        w, b = params[-1]
        return anp.mean((anp.dot(hidden, w) + b - y) ** 2)

    optimizer = instep.Adam(params, lr=0.02)
    gradient, first = grad(loss), loss(params)
    for _ in range(150):
        optimizer.step(gradient(params))
    assert loss(params) < 0.05 * first
