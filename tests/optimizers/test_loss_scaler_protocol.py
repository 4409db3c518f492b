"""LossScaler with several optimizers for one loss, with other factors and limits, and states of earlier versions."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import checkpoint

GOOD, BAD = np.ones(1), np.full(1, np.inf)
EARLIER = {"scale": 8.0, "growth_interval": 3, "good_steps": 2}


def optimizer(**more: Any) -> instep.SGD:
    return instep.SGD(np.zeros(1), lr=1.0, nonfinite="skip", **more)


@pytest.mark.parametrize("bad", [(), (0,), (1,), (0, 1)], ids=str)
def test_two_optimizers_of_one_loss(bad: tuple[int, ...]) -> None:
    """Both take the same steps as alone, and the scale moves once."""
    scaler = instep.LossScaler(scale=8.0, growth_interval=1)
    both = [optimizer(), optimizer()]
    for k, one in enumerate(both):
        gradient = BAD if k in bad else scaler.scale * GOOD
        assert scaler.step(one, gradient, update=False) is (k not in bad)
        assert scaler.scale == 8.0, "the next gradient is still of this loss"
    for k, one in enumerate(both):
        assert one.params["0"].item() == (0.0 if k in bad else -1.0)
    scaler.update()
    assert scaler.scale == (4.0 if bad else 16.0)


def test_the_last_step_may_update() -> None:
    scaler = instep.LossScaler(scale=8.0)
    first, second = optimizer(), optimizer()
    scaler.step(first, BAD, update=False)
    assert scaler.step(second, 8.0 * GOOD)
    assert scaler.scale == 4.0


def test_as_torchs_scaler() -> None:
    """The same losses through torch's GradScaler: the same scales, whichever optimizer overflows."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    settings: dict[str, Any] = {"growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    theirs = torch.amp.GradScaler("cpu", init_scale=64.0, **settings)
    ours = instep.LossScaler(64.0, **settings)
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    their_optimizers = [torch.optim.SGD([p], lr=1.0) for p in params]
    our_optimizers = [optimizer(), optimizer()]
    rng = np.random.default_rng(2)
    for _ in range(60):
        theirs.scale(torch.zeros(1))
        for p, their, our in zip(params, their_optimizers, our_optimizers, strict=True):
            gradient = BAD if rng.random() < 0.15 else ours.scale * GOOD
            p.grad = torch.tensor(gradient, dtype=torch.float32)
            theirs.step(their)
            ours.step(our, gradient, update=False)
        theirs.update()
        ours.update()
        assert ours.scale == theirs.get_scale()
        for p, our in zip(params, our_optimizers, strict=True):
            assert our.params["0"].item() == p.item()


def test_a_forgotten_update_is_told() -> None:
    scaler = instep.LossScaler()
    one = optimizer()
    scaler.step(one, GOOD, update=False)
    state = scaler.state_dict()
    with pytest.raises(RuntimeError, match=r"got a second step; call update\("):
        scaler.step(one, GOOD)
    assert scaler.state_dict() == state
    assert one.step_count == 1
    scaler.update()
    assert scaler.step(one, GOOD)
    del one
    gc.collect()
    assert scaler.step(optimizer(), GOOD, update=False)


def test_steps_without_gradients_do_not_count() -> None:
    scaler = instep.LossScaler(8.0, growth_interval=2)
    groups = instep.SGD(
        [{"params": {"a": np.zeros(1)}}, {"params": [np.zeros(1)]}], nonfinite="skip"
    )
    before = scaler.state_dict()
    alone, several = optimizer(), instep.SGD([np.zeros(1), np.zeros(2)], nonfinite="skip")
    for _ in range(5):
        assert scaler.step(alone, None)
        assert scaler.step(several, [None, None])
        assert scaler.step(groups, [{"a": None}, [None]])
        scaler.update()
    assert scaler.state_dict() == before
    for one, gradients in ((several, [None, np.ones(2)]), (groups, [{"a": np.ones(1)}, [None]])):
        scaler.step(one, gradients)  # type: ignore[arg-type]
    assert scaler.scale == 16.0
    alone.accumulate(GOOD)
    scaler.step(alone, None)
    assert scaler.state_dict()["good_steps"] == 1, "what was accumulated is a gradient"


def test_none_beside_an_overflow_changes_nothing_of_it() -> None:
    scaler = instep.LossScaler(8.0)
    scaler.step(optimizer(), BAD, update=False)
    scaler.step(optimizer(), None, update=False)
    scaler.step(optimizer(), GOOD, update=False)
    scaler.update()
    assert scaler.scale == 4.0


def test_factors_and_limits() -> None:
    scaler = instep.LossScaler(
        10.0,
        growth_interval=1,
        growth_factor=1.5,
        backoff_factor=0.3,
        min_scale=0.5,
        max_scale=40.0,
    )
    one, scales, wanted = optimizer(), [], 10.0
    for gradient in [GOOD] * 6 + [BAD] * 6:
        scaler.step(one, gradient)
        wanted = min(wanted * 1.5, 40.0) if gradient is GOOD else max(wanted * 0.3, 0.5)
        scales.append(scaler.scale)
        assert scaler.scale == wanted
    assert (max(scales), min(scales)) == (40.0, 0.5)
    text = "growth_factor=1.5, backoff_factor=0.3, min_scale=0.5, max_scale=40.0"
    assert repr(scaler) == f"LossScaler(scale=0.5, growth_interval=1, {text})"


@pytest.mark.parametrize("pending", [None, True, False])
def test_states_copies_and_pickles(pending: bool | None) -> None:
    scaler = instep.LossScaler(10.0, growth_interval=5, growth_factor=1.5, max_scale=40.0)
    for _ in range(3):
        scaler.step(optimizer(), GOOD)
    if pending is not None:
        scaler.step(optimizer(), GOOD if pending else BAD, update=False)
    loaded = instep.LossScaler()
    loaded.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    twins = (loaded, copy.copy(scaler), copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler)))
    scaler.update()
    for twin in twins:
        twin.update()
        assert twin.state_dict() == scaler.state_dict()
        assert repr(twin) == repr(scaler)


def test_a_state_of_an_earlier_version(tmp_path: Path) -> None:
    scaler = instep.LossScaler(growth_factor=5.0, backoff_factor=0.1, min_scale=100.0)
    scaler.load_state_dict(EARLIER)
    assert scaler.state_dict() == {**instep.LossScaler(8.0).state_dict(), **EARLIER}
    scaler.step(optimizer(), GOOD)
    assert scaler.scale == 16.0


def test_a_checkpoint_of_an_earlier_version(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")

    class Earlier(instep.LossScaler):
        def state_dict(self) -> dict[str, Any]:
            return EARLIER

    checkpoint.save(tmp_path / "run", optimizer(), scaler=Earlier())
    scaler = instep.LossScaler()
    checkpoint.load(tmp_path / "run", optimizer(), scaler)
    assert (scaler.scale, scaler.state_dict()["good_steps"]) == (8.0, 2)
    assert checkpoint.inspect(tmp_path / "run")["scaler"] == EARLIER


def test_more_good_steps_than_the_interval() -> None:
    scaler = instep.LossScaler()
    scaler.load_state_dict({**EARLIER, "good_steps": 7})
    scaler.step(optimizer(), GOOD)
    assert (scaler.scale, scaler.state_dict()["good_steps"]) == (16.0, 0)


STATE = instep.LossScaler().state_dict()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"growth_factor": 1.0}, "growth_factor must be a finite number greater than 1, got 1.0"),
        ({"growth_factor": np.inf}, "growth_factor must be .*, got inf"),
        ({"growth_factor": True}, "growth_factor must be .*, got True"),
        ({"backoff_factor": 1}, r"backoff_factor must be a number in \(0, 1\), got 1.0"),
        ({"backoff_factor": 0.0}, "backoff_factor must be .*, got 0.0"),
        ({"min_scale": 0.0}, "min_scale must be .*, got 0.0"),
        ({"max_scale": 2.0**101}, "max_scale must be .*, got 2.5"),
        ({"min_scale": 4.0, "max_scale": 2.0}, "min_scale must be at most max_scale=2.0, got 4.0"),
        ({"max_scale": 4.0}, r"scale must be a number in \[.*, got 65536.0"),
        ({"scale": True}, "scale must be .*, got True"),
        ({"scale": np.True_}, "scale must be .*, got "),
        ({"scale": np.array("8")}, "scale must be .*, got "),
        ({"growth_interval": True}, "growth_interval must be a whole.*, got True"),
        ({"growth_interval": 3.0}, "growth_interval must be a whole.*, got 3.0"),
        ({"growth_interval": 2**53 + 1}, r"from 1 to 2\*\*53, got 9007199254740993"),
    ],
    ids=str,
)
def test_refusals_of_arguments_and_states(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        instep.LossScaler(**wrong)
    scaler = instep.LossScaler(2.0)
    before = scaler.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        scaler.load_state_dict({**STATE, **wrong})
    assert scaler.state_dict() == before


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({**STATE, "good_steps": True}, "good_steps must be .*, got True"),
        ({**STATE, "good_steps": 2.0}, "good_steps must be .*, got 2.0"),
        ({**STATE, "pending": 1}, "pending must be True, False or None, got 1"),
        ({**STATE, "more": 1}, "unknown: 'more'"),
        ({**EARLIER, "pending": None}, "missing: 'growth_factor'"),
    ],
    ids=str,
)
def test_refusals_of_states(state: dict[str, Any], message: str) -> None:
    scaler = instep.LossScaler(2.0)
    before = scaler.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        scaler.load_state_dict(state)
    assert scaler.state_dict() == before


def test_update_is_a_truth() -> None:
    with pytest.raises(TypeError, match="update must be True or False, got 1"):
        instep.LossScaler().step(optimizer(), GOOD, update=1)  # type: ignore[arg-type]
