"""The quick path of instep.torch's step: what it takes as it was, and what it must notice."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

import instep.torch  # noqa: E402
from instep.torch.places import Places  # noqa: E402

SHAPES = [(3, 4), (4,), ()]


def pair(**options: Any) -> tuple[Any, Any]:
    """Two optimizers over equal parameters: instep's and torch's."""
    made = []
    for make in (instep.torch.Adam, torch.optim.Adam):
        torch.manual_seed(0)
        made.append(make([torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES], **options))
    return made[0], made[1]


def parameters(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def step(optimizers: Any, k: int, without: tuple[int, ...] = ()) -> None:
    for optimizer in optimizers:
        torch.manual_seed(k)
        for i, parameter in enumerate(parameters(optimizer)):
            grad = torch.randn(parameter.shape)
            parameter.grad = None if i in without else grad
        optimizer.step()


def check(optimizers: Any) -> None:
    ours, theirs = map(parameters, optimizers)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes which steps bind anew, and which read all numbers."""
    log: list[str] = []
    for name in ("refresh", "_read"):
        plain = getattr(Places, name)

        def noted(self: Any, *args: Any, plain: Any = plain, name: str = name) -> Any:
            log.append(name)
            return plain(self, *args)

        monkeypatch.setattr(Places, name, noted)
    return log


def test_a_scheduler_costs_no_reading_of_all_numbers(quick: list[str]) -> None:
    both = pair(lr=0.1)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(one, 0.5) for one in both]
    step(both, 0)
    quick.clear()
    for k in range(1, 5):
        step(both, k)
        for scheduler in schedulers:
            scheduler.step()
    assert quick == []
    check(both)


def test_a_rate_that_is_refused_and_then_mended() -> None:
    both = pair(lr=0.1)
    step(both, 0)
    step(both, 1)
    before = [p.detach().clone() for p in parameters(both[0])]
    both[0].param_groups[0]["lr"] = float("nan")
    for _ in range(2):
        with pytest.raises(ValueError, match="lr"):
            step(both[:1], 2)
    assert all(map(torch.equal, parameters(both[0]), before))
    for one in both:
        one.param_groups[0]["lr"] = 0.05
    step(both, 2)
    check(both)


def test_gradients_come_and_go(quick: list[str]) -> None:
    both = pair(lr=0.1)
    step(both, 0)
    quick.clear()
    step(both, 1, without=(1,))
    step(both, 2, without=(0, 1, 2))
    step(both, 3)
    assert quick == []
    check(both)
    assert [both[0].state[p]["step"].item() for p in parameters(both[0])] == [3.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", ["negated", "parameter"])
def test_gradients_that_need_more_than_a_look(kind: str) -> None:
    both = pair(lr=0.1)
    step(both, 0)
    for optimizer in both:
        torch.manual_seed(1)
        for parameter in parameters(optimizer):
            grad = torch.randn(parameter.shape)
            parameter.grad = (
                torch._neg_view(grad) if kind == "negated" else torch.nn.Parameter(grad)
            )
        optimizer.step()
    step(both, 2)
    check(both)


def test_a_state_that_is_replaced_while_a_scheduler_steps() -> None:
    both = pair(lr=0.1)
    step(both, 0)
    for optimizer in both:
        optimizer.param_groups[0]["lr"] = 0.05
        for parameter in parameters(optimizer):
            states = optimizer.state[parameter]
            states["exp_avg"] = torch.zeros_like(states["exp_avg"])
            states["exp_avg_sq"].data = states["exp_avg_sq"] * 2
    step(both, 1)
    check(both)
