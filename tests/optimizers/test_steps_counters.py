"""What hosts have of their own: numbers of steps, and arrays that they replace."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hosts import ADAM, SGD
from reference import assert_same_bits

import instep
from instep import _core


def counted(dtype: Any = "f4", start: float = 0.0, w: np.ndarray | None = None) -> tuple[Any, ...]:
    """A Steps with one place of Adam, its weights and the host's count."""
    w = np.ones(3) if w is None else w
    steps, count = instep.Steps(), np.array(start, dtype)
    steps.add_group("adam")
    steps.append()
    states = {name: np.zeros_like(w) for name in instep.Steps.states("adam")}
    steps.bind(0, w, states=states, t=count, name="w")
    return steps, w, count


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_step_reads_the_count_before_and_writes_it_after(dtype: str) -> None:
    steps, w, count = counted(dtype)
    optimizer = instep.Adam(np.ones(3), lr=0.1)
    for k in range(3):
        steps.step([np.ones(3)], [{**ADAM, "lr": 0.1}])
        optimizer.step(np.ones(3))
        assert count == k + 1 == steps.t(0)
    assert_same_bits(w, optimizer.params["0"], "w")
    count[...] = 7  # as a host does that loads a run
    steps.step([np.ones(3)], [{**ADAM, "lr": 0.1}])
    assert count == 8


def test_a_count_that_is_set_is_the_step_of_the_rule() -> None:
    steps, w, count = counted()
    count[...] = 4
    steps.step([np.full(3, 0.5)], [ADAM])
    other, fixed = instep.Steps(), np.ones(3)
    other.add_group("adam")
    other.append()
    states = {"exp_avg": np.zeros(3), "exp_avg_sq": np.zeros(3)}
    other.bind(0, fixed, states=states, t=4)
    other.step([np.full(3, 0.5)], [ADAM])
    assert_same_bits(w, fixed, "w")


def test_only_a_step_with_a_gradient_counts() -> None:
    steps, _, count = counted()
    steps.step([None], [ADAM])
    steps.accumulate([np.ones(3)])
    assert count == 0
    steps.step(None, [ADAM])
    assert count == 1
    steps.step([np.full(3, np.nan)], [ADAM], nonfinite="skip")
    with pytest.raises(FloatingPointError):
        steps.step([np.full(3, np.nan)], [ADAM], nonfinite="raise")
    assert count == 1


def test_a_float32_stays_at_its_last_whole_number() -> None:
    steps, _, count = counted(start=2.0**24 - 1)
    for _ in range(2):
        steps.step([np.ones(3)], [ADAM])
        assert count == 2.0**24


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf, 2.0**54])
def test_a_number_that_counts_nothing_is_refused(value: float) -> None:
    steps, w, count = counted("f8", value)
    with pytest.raises(ValueError, match=r"the step count of 'w' must be a whole number from 0 to"):
        steps.step([np.ones(3)], [ADAM])
    with pytest.raises(ValueError, match="whole number"):
        steps.t(0)
    assert np.array_equal(w, np.ones(3))
    assert np.array_equal(count, value, equal_nan=True)


def test_a_count_of_a_place_without_a_gradient_is_not_read() -> None:
    steps, _, _ = counted("f8", -1.0)
    steps.step([None], [ADAM])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (np.zeros(1), r"have shape \(\), got \(1,\)"),
        (np.array(0), "have dtype float64, float32"),
        (np.array(0, "f2"), "have dtype float64 or float32, got float16"),
        (np.array(0, ml_dtypes.bfloat16), "have dtype float64 or float32, got bfloat16"),
    ],
)
def test_an_array_that_can_hold_no_count(count: np.ndarray, expected: str) -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    with pytest.raises((TypeError, ValueError), match=f"the step count of 'w' must {expected}"):
        steps.bind(0, np.ones(2), t=count, name="w")
    assert not steps.is_bound(0)


def test_a_count_of_two_places_and_a_count_that_becomes_read_only() -> None:
    steps, count = instep.Steps(), np.array(0.0)
    steps.add_group("sgd")
    steps.append(2)
    for i in range(2):
        steps.bind(i, np.ones(2), t=count)
    with pytest.raises(ValueError, match=r"step count of '\d' must have memory of its own"):
        steps.step([np.ones(2)] * 2, [SGD])
    steps.bind(1, np.ones(2))
    steps.step([np.ones(2)] * 2, [SGD])
    count.flags.writeable = False
    with pytest.raises(ValueError, match="step count of '0' must stay writeable"):
        steps.step([np.ones(2)] * 2, [SGD])


def test_changed_places() -> None:
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append(3)
    weights = [np.ones((2, 3)) for _ in range(3)]
    for i in (0, 2):
        steps.bind(i, weights[i])
    assert steps.changed_places() == []
    weights[2].shape = 3, 2
    assert steps.changed_places() == [2]
    with pytest.raises(ValueError, match="keep its shape"):
        steps.step([None] * 3, [SGD])
    steps.bind(2, weights[2])
    assert steps.changed_places() == []


def test_changed_tensors() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append(2)
    tensors = [{n: torch.zeros(2) for n in ("p", "exp_avg", "exp_avg_sq")} for _ in range(2)]
    counts = [torch.zeros(()) for _ in range(2)]
    for i, (its, count) in enumerate(zip(tensors, counts, strict=True)):
        steps.bind(i, its["p"], states={n: its[n] for n in instep.Steps.states("adam")}, t=count)
    steps.step([torch.ones(2)] * 2, [ADAM])
    assert [count.item() for count in counts] == [1, 1]
    tensors[1]["exp_avg"].data = torch.zeros(2)
    counts[0].data = torch.zeros(())
    assert steps.changed_places() == [0, 1]


def _prodigy(torch: Any, count: int) -> tuple[Any, ...]:
    """Places that share Prodigy's numbers, and a function that binds one of them."""
    steps = instep.Steps()
    steps.add_group("prodigy")
    steps.append(count)
    shared = {
        n: torch.zeros((), dtype=torch.float64) for n in _core.rules()["prodigy"]["joint_states"]
    }
    own = [n for n in instep.Steps.states("prodigy") if n not in shared]
    tensors = [{n: torch.ones(2) for n in ("p", *own)} for _ in range(count)]

    def bind(place: int) -> None:
        its = tensors[place]
        steps.bind(place, its["p"], states=shared | {n: its[n] for n in own}, t=1)

    for place in range(count):
        bind(place)
    return steps, shared, bind


def test_a_number_that_places_share_changes_in_all_of_them() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    steps, shared, bind = _prodigy(torch, 3)
    steps.unbind(1)
    assert steps.changed_places() == []
    shared["d"].data = torch.ones((), dtype=torch.float64)
    assert steps.changed_places() == [0, 2]
    steps.unbind(0)
    with pytest.raises(ValueError, match=r"the memory with which '2' was bound, .*; unbind all"):
        bind(0)  # or a step would write to memory that nobody keeps
    assert not steps.is_bound(0)
    steps.unbind(2)
    bind(0)
    bind(2)
    assert steps.changed_places() == []


def test_a_tensor_of_another_class_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("the core can't look at tensors of this PyTorch")

    class Plain(torch.Tensor):
        pass

    class Closed(Plain):
        __dlpack_c_exchange_api__ = None

    steps, parameter = instep.Steps(), torch.ones(2).as_subclass(Plain)
    steps.add_group("sgd")
    steps.append()
    steps.bind(0, parameter)
    parameter.__class__ = Closed  # as a lazy parameter of PyTorch changes its class
    assert steps.changed_places() == [0]
    with pytest.raises(ValueError, match="must describe its memory"):
        steps.step([torch.ones(2)], [SGD])
    assert parameter.tolist() == [1, 1]


def test_gradients_of_tensors_are_looked_at_in_each_step() -> None:
    """A tensor of the last one's shape and strides may have another dtype, or lie in a parameter's memory."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    steps = instep.Steps()
    steps.add_group("sgd")
    steps.append()
    parameter = torch.zeros(4)
    steps.bind(0, parameter)
    numbers = [{"lr": 1.0, "momentum": 0.0, "dampening": 0.0}]
    for gradient in (
        torch.ones(4),
        torch.ones(4),
        torch.ones(4, dtype=torch.float64),
        torch.ones(4, dtype=torch.bfloat16),
        torch.ones(8)[::2],
        np.ones(4, "f4"),
        torch.ones(1).expand(4),
    ):
        before = parameter.clone()
        steps.step([gradient], numbers)
        assert torch.equal(parameter, before - 1), gradient
    with pytest.raises(ValueError, match="shares memory with parameter '0'"):
        steps.step([parameter], numbers)
    with pytest.raises(ValueError, match="must have shape"):
        steps.step([torch.ones(2, 2)], numbers)


def test_states_of_a_choice_of_options() -> None:
    assert instep.Steps.states("sgd") == ()
    assert instep.Steps.states("sgd", ["momentum"]) == ("momentum_buffer",)
    assert instep.Steps.states("asgd") == ("ax", "eta", "mu")
    with pytest.raises(ValueError, match="an option of rule 'adam' must be one of"):
        instep.Steps.states("adam", ["nesterov"])


def test_numbers_that_were_taken_are_taken_again_for_another_rule() -> None:
    """The core takes the same tuple of numbers once, unless the group's rule has changed."""
    steps = _core.make_steps()
    steps.add_group("sgd", [])
    steps.append(1)
    w = np.zeros(1)
    steps.bind(0, "w", 0, w, {}, None, None, 0)
    numbers = ((1.0, 0.0, 0.0, 0.0, np.inf, 0.0, 0.0, 0.0, 0.0, 0.0),)
    extras = (np.nan, 0.0, 0)
    steps.step([np.ones(1)], numbers, extras, 1.0)
    steps.step([np.ones(1)], numbers, extras, 1.0)
    assert w == -2
    steps.unbind(0)
    steps.set_group(0, "adam", [])
    states = {"exp_avg": np.zeros(1), "exp_avg_sq": np.zeros(1)}
    steps.bind(0, "w", 0, w, states, None, None, 0)
    with pytest.raises(ValueError, match="the numbers of a group must be"):
        steps.step([np.ones(1)], numbers, extras, 1.0)


def test_a_snapshot_knows_every_object_again() -> None:
    a, b = object(), object()
    groups: list[Any] = [{"lr": 0.1, "params": [a, b]}]
    states: dict[Any, Any] = {a: {"m": b}}
    snapshot = _core.make_snapshot(groups, states)
    assert snapshot.matches(groups, states)
    assert not snapshot.matches(groups)
    assert not snapshot.matches(groups, states, states)
    assert not snapshot.matches(groups, {a: states[a], b: {}})
    for change in (
        lambda: groups[0].__setitem__("lr", float("0.1")),
        lambda: groups[0]["params"].append(a),
        lambda: groups[0]["params"].__setitem__(0, b),
        lambda: states[a].__setitem__("m", a),
        lambda: states.__setitem__(b, {}),
        lambda: states.pop(b),
        lambda: states[a].pop("m"),
        lambda: groups.append({}),
    ):
        snapshot = _core.make_snapshot(groups, states)
        change()
        assert not snapshot.matches(groups, states)


def test_a_snapshot_keeps_its_objects_and_is_collected() -> None:
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

    class Thing:
        snapshot: Any = None

    thing, kept = Thing(), [Thing()]
    thing.snapshot = _core.make_snapshot([thing], kept)
    assert thing.snapshot.matches([thing], kept) is False  # another list
    seen = weakref.ref(kept.pop())
    gc.collect()
    assert seen() is not None
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
