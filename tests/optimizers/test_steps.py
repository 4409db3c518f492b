"""`instep.Steps`: places over arrays that somebody else keeps."""

from __future__ import annotations

import gc
import weakref
from collections import UserDict
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hosts import ADAM, SGD, adam_place
from reference import assert_same_bits

import instep


def some(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def test_the_bits_are_those_of_an_optimizer() -> None:
    rng = np.random.default_rng(0)
    ours = [some(rng, 300, 7), some(rng, 5).astype("f4"), some(rng, 2).astype(ml_dtypes.bfloat16)]
    theirs = [w.copy() for w in ours]
    optimizer = instep.Adam(theirs, lr=0.1, clip_norm=1.0, weight_decay=0.01)
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append(3)
    states = [adam_place(steps, i, w) for i, w in enumerate(ours)]
    for k in range(5):
        grads: list[Any] = [some(rng, *w.shape) for w in ours]
        if k == 2:
            grads[1] = None
        optimizer.step(grads)
        steps.step(grads, [{**ADAM, "weight_decay": 0.01}], clip_norm=1.0)
        assert steps.grad_norm == optimizer.grad_norm
    for i, w in enumerate(ours):
        assert_same_bits(w, theirs[i], str(i))
        for name, state in states[i].items():
            assert_same_bits(state, optimizer.state[str(i)][name], name)
    assert [steps.t(i) for i in range(3)] == [5, 4, 5]
    assert steps.step_count == 5


def test_the_history_of_binding_changes_no_bits() -> None:
    """The norm goes by place: bound late, again, or beside empty ones, its order stays."""
    rng = np.random.default_rng(1)
    start = [some(rng, 20_000) for _ in range(3)]
    grads = [[some(rng, 20_000) for _ in range(3)] for _ in range(3)]

    def run(order: list[int], spare: int) -> tuple[list[np.ndarray], float | None]:
        steps = instep.Steps()
        steps.add_group("sgd")
        steps.append(2 * spare + 3)
        weights = [w.copy() for w in start]
        for i in order:
            steps.bind(spare + i, np.zeros(3))
            steps.bind(spare + i, weights[i])
        empty = [None] * spare
        for given in grads:
            numbers = [{"lr": 0.1, "momentum": 0.0, "dampening": 0.0}]
            steps.step([*empty, *given, *empty], numbers, clip_norm=0.5)
        return weights, steps.grad_norm

    wanted, norm = run([0, 1, 2], 0)
    for order, spare in (([2, 0, 1], 0), ([1, 2, 0], 4)):
        found, other_norm = run(order, spare)
        assert other_norm == norm
        for mine, theirs in zip(found, wanted, strict=True):
            assert_same_bits(mine, theirs, str(order))


def test_a_place_goes_on_where_it_left_off() -> None:
    w = np.ones(4)
    optimizer = instep.Adam(w.copy(), lr=0.1)
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append()
    states = adam_place(steps, 0, w)
    for _ in range(2):
        steps.step([np.ones(4)], [ADAM])
    t = steps.t(0)
    steps.unbind(0)
    assert not steps.is_bound(0)
    assert steps.t(0) == 0
    moved = w.copy()
    steps.bind(0, moved, states=states, t=t)
    steps.step([np.ones(4)], [ADAM])
    for _ in range(3):
        optimizer.step(np.ones(4))
    assert_same_bits(moved, optimizer.params["0"], "moved")


def test_groups_have_rules_of_their_own() -> None:
    steps = instep.Steps()
    adam, sgd = steps.add_group("adam"), steps.add_group("sgd", ["momentum"])
    steps.append(2)
    a, b = np.ones(2), np.ones(2)
    adam_place(steps, 0, a)
    steps.bind(1, b, group=sgd, states={"momentum_buffer": np.zeros(2)})
    steps.step([np.ones(2)] * 2, [ADAM, {"lr": 0.5, "momentum": 0.9, "dampening": 0.0}])
    assert b.tolist() == [0.5, 0.5]
    with pytest.raises(
        ValueError, match=f"group {sgd} must have no bound place .*, got a group with bound"
    ):
        steps.set_group(sgd, "sgd")
    steps.unbind(1)
    steps.set_group(sgd, "sgd")
    steps.bind(1, b, group=sgd)
    steps.step([None, np.ones(2)], [ADAM, {"lr": 0.5, "momentum": 0.0, "dampening": 0.0}])
    assert b.tolist() == [0.0, 0.0]
    assert adam == 0


def test_what_becomes_of_gradients() -> None:
    """Summed and forgotten, skipped, and gone up."""
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    w = np.zeros(2)
    steps.bind(0, w)
    steps.accumulate([np.ones(2)])
    steps.discard_accumulated()
    steps.accumulate([np.ones(2)])
    steps.step(None, [SGD])
    assert w.tolist() == [-1.0, -1.0]
    steps.step([np.array([np.inf, 1.0])], [SGD], nonfinite="skip")
    assert (steps.skipped_steps, steps.step_count, w.tolist()) == (1, 1, [-1.0, -1.0])
    steps.step([np.ones(2)], [{**SGD, "maximize": True}])
    assert w.tolist() == [0.0, 0.0]


def test_a_gradient_for_an_empty_place() -> None:
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append(2)
    adam_place(steps, 0, np.ones(2))
    with pytest.raises(
        ValueError, match=r"the gradient of place 1 must be None, .*, got an ndarray"
    ):
        steps.step([np.ones(2)] * 2, [ADAM])


class Lengths:
    """A sequence that makes its gradients as it is asked for them, and says these lengths in turn."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = list(lengths)

    def __len__(self) -> int:
        return self.lengths.pop(0) if len(self.lengths) > 1 else self.lengths[0]

    def __getitem__(self, place: int) -> np.ndarray:
        return np.full(5, place + 1.0)


@pytest.mark.parametrize("lengths", [(3,), (3, 0), (3, 1_000_000)])
@pytest.mark.parametrize("accumulated", [False, True])
def test_a_sequence_that_makes_its_gradients(lengths: tuple[int, ...], accumulated: bool) -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append(3)
    weights = [np.zeros(5) for _ in range(3)]
    for place, w in enumerate(weights):
        steps.bind(place, w)
    gradients: Any = Lengths(*lengths)
    if accumulated:
        steps.accumulate(gradients)
    steps.step(None if accumulated else gradients, [SGD])
    assert [w.tolist() for w in weights] == [[-1.0] * 5, [-2.0] * 5, [-3.0] * 5]


def test_arrays_that_share_memory_are_found_by_the_next_step() -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append(2)
    w = np.ones(6)
    steps.bind(0, w[:4])
    steps.bind(1, w[3:])
    numbers = [SGD]
    for _ in range(2):
        with pytest.raises(ValueError, match="shares memory with parameter"):
            steps.step([np.ones(4), np.ones(3)], numbers)
    steps.bind(1, w[4:])
    steps.step([np.ones(4), np.ones(2)], numbers)
    assert w.tolist() == [0.0] * 6


def test_memory_stays_for_as_long_as_it_is_bound() -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    w = np.ones(3)
    gone = weakref.ref(w)
    steps.bind(0, w)
    del w
    gc.collect()
    assert gone() is not None
    steps.unbind(0)
    steps.step([None], [SGD])  # lets go of the rest
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_numbers_that_change_between_steps(kind: type[Any]) -> None:
    """Checked numbers are remembered; those of a dict that has changed since are others."""
    steps, others = instep.Steps(), instep.Steps()
    weights = []
    for one in (steps, others):
        one.add_group("sgd")
        one.append()
        weights.append(np.zeros(1))
        one.bind(0, weights[-1])
    numbers = kind(SGD)
    for lr in (1.0, 0.5, 0.5, 1.0):
        numbers["lr"] = lr
        steps.step([np.ones(1)], [numbers])
        others.step([np.ones(1)], (numbers,))
    assert [w.tolist() for w in weights] == [[-3.0], [-3.0]]
    numbers["lr"] = True
    with pytest.raises(TypeError, match=r"lr of group 0 must be a finite number.*, got True"):
        steps.step([np.ones(1)], [numbers])


def test_a_number_in_an_array_that_changes_between_steps() -> None:
    w, lr = np.zeros(1), np.array(1.0)
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    steps.bind(0, w)
    numbers = [{**SGD, "lr": lr}]
    for value in (1.0, 0.5, 0.25):
        lr[...] = value
        steps.step([np.ones(1)], numbers)
    assert w == -1.75


def test_a_name_that_is_no_text_is_shown() -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    steps.bind(0, np.zeros(2), name="\ud800")
    with pytest.raises(ValueError, match=r"gradient of '\\ud800' must have shape \(2,\)"):
        steps.step([np.ones(3)], [SGD])


def test_the_numbers_of_another_rule_are_checked() -> None:
    """Other steps have had the same numbers, for a rule that takes them."""
    steps, others = instep.Steps(), instep.Steps()
    steps.add_group("sgd")
    others.add_group("adam")
    steps.step([], [SGD])
    with pytest.raises(ValueError, match="missing: 'beta1'"):
        others.step([], [SGD])


class TestTensors:
    """Of PyTorch, through DLPack's table."""

    torch: Any = None

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        self.torch = pytest.importorskip("torch")
        if not hasattr(self.torch.Tensor, "__dlpack_c_exchange_api__"):
            pytest.skip("this PyTorch has no table of DLPack's")

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_the_bits_are_those_of_arrays(self, dtype: str) -> None:
        torch = self.torch
        rng = np.random.default_rng(2)
        wide = torch.float64 if dtype == "float64" else torch.float32
        start = torch.from_numpy(some(rng, 6, 5)).to(getattr(torch, dtype))
        p = torch.nn.Parameter(start.clone().t())  # strided
        m, v = (torch.zeros(5, 6, dtype=wide) for _ in range(2))
        steps = instep.Steps()
        steps.add_group("adam")
        steps.append()
        steps.bind(0, p, states={"exp_avg": m, "exp_avg_sq": v})
        here = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        w = start.to(torch.float64).numpy().astype(here).T.copy()
        optimizer = instep.Adam(w, lr=0.1)
        for _ in range(3):
            g = some(rng, 5, 6)
            steps.step([torch.from_numpy(g)], [ADAM])
            optimizer.step(g)
        found = p.detach().to(torch.float64).numpy()
        assert np.array_equal(found, w.astype(np.float64))
        assert_same_bits(m.numpy(), optimizer.state["0"]["exp_avg"], "exp_avg")

    def test_other_memory_under_a_bound_tensor_is_refused(self) -> None:
        torch = self.torch
        steps = instep.Steps()
        steps.add_group("sgd")
        steps.append()
        p = torch.nn.Parameter(torch.ones(4))
        steps.bind(0, p)
        numbers = [SGD]
        steps.step([torch.ones(4)], numbers)
        p.data = torch.ones(4)
        with pytest.raises(ValueError, match=r"'0' must .*, got .* has been given other memory"):
            steps.step([torch.ones(4)], numbers)
        steps.bind(0, p)
        steps.step([torch.ones(4)], numbers)
        assert p.tolist() == [0.0] * 4

    @pytest.mark.parametrize("kind", ["int64", "complex64", "meta", "sparse"])
    def test_what_is_no_place_for_numbers(self, kind: str) -> None:
        torch = self.torch
        tensor = {
            "int64": lambda: torch.ones(3, dtype=torch.int64),
            "complex64": lambda: torch.ones(3, dtype=torch.complex64),
            "meta": lambda: torch.ones(3, device="meta"),
            "sparse": lambda: torch.ones(3).to_sparse(),
        }[kind]()
        steps = instep.Steps()
        steps.add_group("sgd")
        steps.append()
        with pytest.raises((TypeError, ValueError, RuntimeError, BufferError, NotImplementedError)):
            steps.bind(0, tensor)
        assert not steps.is_bound(0)

    def test_an_optimizer_takes_none(self) -> None:
        with pytest.raises(
            TypeError, match=r"parameter '0' must be a NumPy array, or a dict.*, got a Tensor"
        ):
            instep.SGD([self.torch.ones(3)])  # type: ignore[list-item]
