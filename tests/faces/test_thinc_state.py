"""`instep.thinc`: weights that move, grow, come and go; copies, pickles and averages."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

theirs = pytest.importorskip("thinc.api", reason="needs thinc")
from instep import thinc as ours  # noqa: E402

KEY = (0, "W")
ADAM = {"learn_rate": 0.1, "L2": 0.01}


def gradient(shape: Any, k: int) -> np.ndarray:
    return np.random.default_rng(k).standard_normal(shape).astype(np.float32)


def trained(
    steps: int = 6,
    change: Callable[[int, Any, np.ndarray], tuple[Any, np.ndarray]] = lambda k, o, w: (o, w),
    shape: Any = (4, 3),
) -> tuple[Any, np.ndarray]:
    """An optimizer and its weights, both as they are after a change before each step."""
    optimizer, w = ours.Adam(**ADAM), np.ones(shape, np.float32)
    for k in range(steps):
        optimizer, w = change(k, optimizer, w)
        w, _ = optimizer(KEY, w, gradient(w.shape, k))
    return optimizer, w


def assert_alike(mine: Any, other: Any) -> None:
    (o, w), (o2, w2) = mine, other
    assert_same_bits(w, w2)
    for name in ("mom1", "mom2", "averages"):
        assert_same_bits(getattr(o, name)[KEY], getattr(o2, name)[KEY], name)
    assert dict(o.nr_update) == dict(o2.nr_update)


CHANGES = {
    "views": lambda k, o, w: (o, w.reshape(-1).reshape(w.shape)),
    "moved": lambda k, o, w: (o, w.copy()),
    "moved once": lambda k, o, w: (o, w.copy() if k == 3 else w),
    "other strides": lambda k, o, w: (o, np.asfortranarray(w) if k % 2 else w.copy("C")),
    "deepcopy": lambda k, o, w: (copy.deepcopy(o), w),
    "copy": lambda k, o, w: (copy.copy(o), w),
    "pickle": lambda k, o, w: (pickle.loads(pickle.dumps(o)), w),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_bits_stay_the_same(change: Any) -> None:
    assert_alike(trained(change=change), trained())


def bindings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The keys of all later bindings, in turn."""
    found: list[object] = []
    bind = ours.Optimizer._bind
    monkeypatch.setattr(
        ours.Optimizer, "_bind", lambda self, key, *a: (found.append(key), bind(self, key, *a))[1]
    )
    return found


def test_views_of_the_same_memory_are_not_bound_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bindings(monkeypatch)
    trained(change=CHANGES["views"])
    assert found == [KEY]
    found.clear()
    trained(change=CHANGES["moved"])
    assert found == [KEY] * 6


def test_memory_that_is_free_is_not_taken_for_the_same() -> None:
    """Weights that took the place of others, where these lay in memory."""

    def change(k: int, o: Any, w: np.ndarray) -> Any:
        values = w.tolist()
        del w
        return o, np.array(values, np.float32)

    assert_alike(trained(change=change), trained())


def test_other_strides_at_the_same_place() -> None:
    """A transposed view of a square has its address and its shape."""
    shape = (5, 5)
    views = trained(change=lambda k, o, w: (o, w.T), shape=shape)
    copies = trained(change=lambda k, o, w: (o, w.T.copy()), shape=shape)
    assert_alike((views[0], views[1].copy()), copies)


def test_copies_step_apart() -> None:
    optimizer, w = trained()
    twin, v = copy.deepcopy((optimizer, w))
    before = optimizer.mom1[KEY].copy()
    twin(KEY, v, gradient(v.shape, 9))
    assert_same_bits(optimizer.mom1[KEY], before)
    assert optimizer.nr_update[KEY] == 6
    optimizer(KEY, w, gradient(w.shape, 9))
    assert_alike((optimizer, w), (twin, v))


def test_a_pickle_holds_no_weights() -> None:
    optimizer, w = trained(shape=(100, 100))
    assert len(pickle.dumps(optimizer)) < 3 * w.nbytes + 2000
    twin = pickle.loads(pickle.dumps(optimizer))
    assert type(twin) is ours.Optimizer
    assert twin.learn_rate == optimizer.learn_rate or callable(twin.learn_rate)


class Named(ours.Optimizer):  # type: ignore[misc]
    """A class of the user's, with attributes of its own."""

    __slots__ = ("name",)


class Free(ours.Optimizer):  # type: ignore[misc]
    pass


@pytest.mark.parametrize("kind", [Named, Free])
def test_classes_derived_from_it(kind: Any) -> None:
    optimizer = kind(0.1)
    optimizer.name = "mine"
    optimizer(KEY, np.ones(2, np.float32), np.ones(2, np.float32))
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.copy(optimizer)):
        assert type(twin) is kind
        assert twin.name == "mine"
        assert_same_bits(twin.mom1[KEY], optimizer.mom1[KEY])


def test_weights_of_another_size_start_anew() -> None:
    optimizer, w = trained()
    larger = np.ones((6, 3), np.float32)
    larger[:4] = w
    twin, v = ours.Adam(**ADAM), larger.copy()
    for k in range(3):
        optimizer(KEY, larger, gradient(larger.shape, k))
        twin(KEY, v, gradient(larger.shape, k))
    assert_alike((optimizer, larger), (twin, v))
    assert optimizer.averages[KEY].shape == (6, 3)
    optimizer(KEY, larger[:2], gradient((2, 3), 0))  # at the same place
    assert optimizer.nr_update[KEY] == 1
    # SGD, which has an average alone.
    sgd = ours.SGD(0.1)
    sgd(KEY, w, gradient(w.shape, 0))
    sgd(KEY, larger, gradient(larger.shape, 0))
    assert sgd.averages[KEY].shape == (6, 3)
    assert sgd.mom1 == {}
    sgd.mom1[KEY] = np.zeros(7, np.float32)  # as after some steps of another rule
    for _ in range(2):
        sgd(KEY, larger, gradient(larger.shape, 0))
    assert sgd.nr_update[KEY] == 2


def test_weights_of_another_shape_go_on() -> None:
    optimizer, w = trained()
    twin, v = trained()
    flat = w.reshape(-1)
    for k in range(3):
        g = gradient(w.shape, k)
        twin(KEY, v, g.copy())
        optimizer(KEY, flat, g.reshape(-1))
    assert_same_bits(flat, v.reshape(-1))
    assert optimizer.averages[KEY].shape == (12,)


def test_the_same_weights_under_two_keys() -> None:
    optimizer = ours.SGD(0.5, grad_clip=0.0, use_averages=False)
    w = np.zeros(2, np.float32)
    for _ in range(2):
        for key in ((0, "W"), (1, "W")):
            optimizer(key, w, np.ones(2, np.float32))
    assert w.tolist() == [-2.0, -2.0]
    assert optimizer.nr_update == {(0, "W"): 2, (1, "W"): 2}


def test_the_attributes_are_the_state() -> None:
    """What a program puts there counts, and so does what it takes away."""
    optimizer, w = trained()
    twin, v = trained()
    for name in ("mom1", "mom2", "averages"):
        held = getattr(optimizer, name)
        held[KEY] = held[KEY].astype(np.float64).tolist()
        held[KEY] = np.array(held[KEY])  # float64, as of another library
    g = gradient(w.shape, 9)
    optimizer(KEY, w, g.copy())
    twin(KEY, v, g.copy())
    assert_alike((optimizer, w), (twin, v))
    for name in ("mom1", "mom2", "averages"):  # one by one
        getattr(optimizer, name)[KEY] = getattr(twin, name)[KEY] = getattr(twin, name)[KEY] * 2
        other = copy.deepcopy(twin)
        optimizer(KEY, w, g.copy())
        other(KEY, v, g.copy())
        twin = copy.deepcopy(other)
        assert_alike((optimizer, w), (other, v))
    for o in (optimizer, twin):
        o.nr_update[KEY] = 1
    v2 = w.copy()
    optimizer(KEY, w, g.copy())
    fresh = copy.deepcopy(twin)
    fresh(KEY, v2, g.copy())
    assert_same_bits(w, v2)
    for name in ("mom1", "mom2", "averages", "nr_update"):
        del getattr(optimizer, name)[KEY]
    new, v3 = ours.Adam(**ADAM), w.copy()
    optimizer(KEY, w, g.copy())
    new(KEY, v3, g.copy())
    assert_alike((optimizer, w), (new, v3))


def test_averages_switched_off_and_on() -> None:
    optimizer, w = trained()
    optimizer.averages = None
    optimizer(KEY, w, gradient(w.shape, 0))
    optimizer.averages = {}
    optimizer(KEY, w, gradient(w.shape, 0))
    assert optimizer.nr_update[KEY] == 8
    assert_same_bits(optimizer.averages[KEY], w * np.float32(1 - (1 + 8) / (10 + 8)))


def test_a_model_of_thinc() -> None:
    """Trained by both; its weights are replaced by the averages, and come back."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 5)).astype(np.float32)
    Y = np.tanh(X @ rng.standard_normal((5, 2)).astype(np.float32))
    found = []
    for module in (theirs, ours):
        theirs.fix_random_seed(0)
        model = theirs.chain(theirs.Maxout(8, dropout=0.1), theirs.Linear())
        model.initialize(X=X, Y=Y)
        optimizer = module.Adam(0.05, L2=0.01)
        losses = []
        for k in range(80):
            guess, back = model.begin_update(X)
            losses.append(float(((guess - Y) ** 2).mean()))
            back((guess - Y) / 64)
            model.finish_update(optimizer)
            assert not model.layers[-1].get_grad("W").any()
            if k == 40:
                before = model.layers[-1].get_param("W")
                with model.use_params(optimizer.averages):
                    averaged = float(((model.predict(X) - Y) ** 2).mean())
                    assert model.layers[-1].get_param("W") is not before
                assert model.layers[-1].get_param("W") is before
                theirs.fix_random_seed(k)
        found.append([*losses, averaged])
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[1], found[0], rtol=2e-3)
    assert found[1][-2] < found[1][0] / 4


def test_arrays_of_pytorch() -> None:
    """thinc makes new views of a module's memory at each step."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    found = []
    for module in (theirs, ours):
        torch.manual_seed(0)
        model = theirs.PyTorchWrapper(torch.nn.Linear(3, 2))
        X = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
        optimizer = module.Adam(0.05, use_averages=False)
        for _ in range(20):
            guess, back = model.begin_update(X)
            back(guess - 1)
            model.finish_update(optimizer)
        found.append(model.predict(X))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_weights_that_are_gone_are_let_go() -> None:
    """Those that somebody holds stay bound, whatever comes and goes."""
    optimizer = ours.SGD(0.1, use_averages=False)
    kept = [np.ones(3, np.float32) if k % 2 else np.ones((2, 3), np.float32)[0] for k in range(50)]
    for k, w in enumerate(kept):
        optimizer((k, "kept"), w, np.ones(3, np.float32))
    bound = {key: optimizer._bound[key] for key in optimizer._bound}
    gone = []
    for k in range(3000):
        w = np.ones(2, np.float32) if k % 2 else np.ones((2, 2), np.float32)
        gone.append(weakref.ref(w))
        optimizer((k, "gone"), w if k % 2 else w[0], np.ones(2, np.float32))
        del w
    gc.collect()
    assert sum(one() is not None for one in gone) <= ours.optimizer._FEW
    assert all(optimizer._bound[key] is one for key, one in bound.items())


def test_the_looks_for_weights_that_are_gone_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many live weights are not counted again at each new one."""
    looks, count = [], ours.optimizer.references
    monkeypatch.setattr(ours.optimizer, "references", lambda one: looks.append(one) or count(one))
    optimizer = ours.SGD(0.1, use_averages=False)
    kept = [np.ones(2, np.float32) for _ in range(2000)]
    for k, w in enumerate(kept):
        optimizer((k, "kept"), w, np.ones(2, np.float32))
    assert 0 < len(looks) < 2 * len(kept)


def test_nothing_is_left_of_an_optimizer() -> None:
    optimizer, w = trained()
    held = weakref.ref(optimizer.mom1[KEY]), weakref.ref(w)
    del optimizer, w
    gc.collect()
    assert [one() for one in held] == [None, None]
