"""Arrays that are given other memory between two calls: what was bound is what a step goes by, or it is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hosts import ADAM, adam_place
from moves import other_memory
from reference import assert_same_bits

import instep


@pytest.mark.parametrize("which", ["parameter", "exp_avg", "average", "copy"])
@pytest.mark.parametrize("when", ["before a step", "after one", "and another place is bound"])
@pytest.mark.parametrize("method", ["setstate", "resize"])
def test_an_array_bound_by_steps_is_given_other_memory(which: str, when: str, method: str) -> None:
    """Whenever that was, and whatever has been bound since: the next step is refused, nothing is written."""
    names = ("parameter", "exp_avg", "exp_avg_sq", "average")
    arrays = {name: np.zeros(50_000, "f4") for name in names}
    arrays["copy"] = np.zeros(50_000, "f2")
    steps = instep.Steps()
    steps.add_group("adam")
    steps.append(2)
    steps.bind(
        0,
        arrays["parameter"],
        states={name: arrays[name] for name in ("exp_avg", "exp_avg_sq")},
        average=arrays["average"],
        copy=arrays["copy"],
    )
    gradients: list[Any] = [np.ones(50_000, "f4"), None]
    if when != "before a step":
        steps.step(gradients, [ADAM], ema_decay=0.5)
    if method == "setstate":
        other_memory(arrays[which])
    elif when == "before a step":
        arrays[which].resize(3, refcheck=False)
    else:
        with pytest.raises(ValueError, match="cannot resize"):
            arrays[which].resize(3, refcheck=False)
        return
    others = [np.full(50_000, 7, "f4") for _ in range(8)]
    if when == "and another place is bound":
        adam_place(steps, 1, np.zeros(2))
    before, kept = steps.t(0), {name: array.copy() for name, array in arrays.items()}
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"'0' must .*, got .* has been reshaped or moved in memory"
        ):
            steps.step(gradients, [ADAM], ema_decay=0.5)
    assert steps.t(0) == before
    for name, array in arrays.items():
        assert_same_bits(array, kept[name], name)
    assert all((other == 7).all() for other in others)


def test_a_parameter_given_other_memory_before_the_first_sum() -> None:
    """Room for sums is made then, and all arrays are looked at anew: what was bound counts."""
    w = np.zeros(50_000)
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(np.ones(50_000))
    w.__setstate__((1, w.shape, w.dtype, False, bytes(w.nbytes)))
    others = [np.full(50_000, 7.0) for _ in range(8)]
    for call in (optimizer.accumulate, optimizer.step, optimizer.accumulate):
        with pytest.raises(
            ValueError, match=r"parameter '0' must .*, got .* has been reshaped or moved"
        ):
            call(np.ones(50_000))
    assert all((other == 7.0).all() for other in others)
    assert not w.any()


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_copy_given_other_memory_as_averages_are_shown(accumulates: bool) -> None:
    """It is named at the end of the block; the weights come back all the same."""
    w, copy = np.zeros(50_000, "f4"), np.zeros(50_000, "f2")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.5, copy_to=copy)
    optimizer.step(np.ones(50_000, "f4"))
    others: list[np.ndarray] = []

    def move() -> None:
        other_memory(copy)
        others.extend(np.full(50_000, 7, "f2") for _ in range(8))
        if accumulates:
            with pytest.raises(
                ValueError, match=r"the copy of '0' must .*, got .* has been reshaped"
            ):
                optimizer.accumulate(np.ones(50_000, "f4"))

    with (
        pytest.raises(ValueError, match=r"the copy of '0' must .*, got .* has been resized"),
        optimizer.averaged(),
    ):
        move()
    assert all((other == 7).all() for other in others)
    assert (w == -1).all()


def test_tensors_bound_by_steps_are_given_other_memory() -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table of DLPack's")
    numbers = [{**ADAM, "beta1": 0.5}]
    for which in ("parameter", "exp_avg"):
        tensors = {name: torch.zeros(50_000) for name in ("parameter", "exp_avg", "exp_avg_sq")}
        steps = instep.Steps()
        steps.add_group("adam")
        steps.append(2)
        states = {name: tensors[name] for name in ("exp_avg", "exp_avg_sq")}
        steps.bind(0, tensors["parameter"], states=states)
        tensors[which].data = torch.zeros(50_000)
        steps.bind(1, np.zeros(2), states={name: np.zeros(2) for name in states})
        for _ in range(2):
            with pytest.raises(
                ValueError, match=r"'0' must .*, got .* has been given other memory"
            ):
                steps.step([torch.ones(50_000), None], numbers)
        steps.bind(0, tensors["parameter"], states=states)
        steps.step([torch.ones(50_000), None], numbers)
        assert torch.equal(tensors["exp_avg"], torch.full((50_000,), 0.5))
