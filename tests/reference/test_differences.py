"""What the last table of docs/semantics.md says of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

import instep

GRADS = [1.0, -2.0, 0.5, 3.0, 1.0]


def by_instep(opt: instep.Optimizer, grads: Iterable[float]) -> list[float]:
    (w,) = opt.params.values()
    steps = []
    for g in grads:
        before = w.item()
        opt.step(np.full_like(w, g))
        steps.append(w.item() - before)
    return steps


def by_torch(rule: str, grads: Iterable[float], **options: object) -> list[float]:
    """Steps of one number; a callable option is set before each step."""
    torch = pytest.importorskip("torch")
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    schedules = {name: option for name, option in options.items() if callable(option)}
    first = {name: option(0) for name, option in schedules.items()}
    opt = getattr(torch.optim, rule)([w], **options | first)
    steps = []
    for t, g in enumerate(grads):
        before = w.item()
        opt.param_groups[0].update({name: f(t) for name, f in schedules.items()})
        w.grad = torch.full_like(w, g)
        opt.step()
        steps.append(w.item() - before)
    return steps


def drop(step: int) -> float:
    return 0.1 if step < 100 else 0.001


def test_momentum_under_a_schedule_is_outside_the_buffer() -> None:
    for rule in ("SGD", "RMSprop"):
        opt = getattr(instep, rule)(np.zeros(1), lr=drop, momentum=0.9)
        mine = by_instep(opt, np.ones(101))
        assert mine == pytest.approx(by_torch(rule, np.ones(101), lr=drop, momentum=0.9), 1e-12)
        assert mine[-1] / mine[-2] == pytest.approx(0.01, rel=0.1)


def test_the_correction_has_the_beta_of_the_step() -> None:
    def beta(step: int) -> float:
        return 0.5 if step < 3 else 0.9

    opt = instep.Adam(np.zeros(1), lr=0.1, betas=(beta, 0.999))
    mine = by_instep(opt, GRADS)
    torchs = by_torch("Adam", GRADS, lr=0.1, betas=lambda step: (beta(step), 0.999))
    assert mine == pytest.approx(torchs, 1e-12)
    m = v = 0.0
    for t, g in enumerate(GRADS, 1):
        m = beta(t - 1) * m + (1 - beta(t - 1)) * g
        v = 0.999 * v + 0.001 * g * g
    exact = m / (1 - 0.5**3 * 0.9**2) / np.sqrt(v / (1 - 0.999**5))
    assert abs(mine[-1] + 0.1 * exact) > 0.01


def test_constant_gradients_centered() -> None:
    """a² may be rounded above v; at least one of many gradients shows it."""
    grads = np.exp(np.random.default_rng(0).uniform(-5, 8, 200)).astype(np.float32)
    w = np.zeros_like(grads)
    opt = instep.RMSprop(w, lr=0.01, centered=True)
    torch = pytest.importorskip("torch")
    other = torch.zeros(200, requires_grad=True)
    theirs = torch.optim.RMSprop([other], lr=0.01, centered=True)
    other.grad = torch.from_numpy(grads)
    longest = np.zeros_like(grads)
    for _ in range(3000):
        before = w.copy()
        opt.step(grads)
        longest = np.maximum(longest, np.abs(w - before))
        theirs.step()
    assert np.isfinite(w).all()
    assert not torch.isfinite(other).all()
    assert (longest <= 0.01 * grads / 1e-8 * 1.001).all()
    assert longest.max() > 1e3


def test_a_nan_and_an_infinity_under_clip_norm() -> None:
    torch = pytest.importorskip("torch")
    for bad, others in ((np.nan, np.nan), (np.inf, 0.0)):
        grads = [np.array([bad, 1.0]), np.array([2.0])]
        mine = [np.zeros(2), np.zeros(1)]
        instep.SGD(mine, lr=1.0, clip_norm=1.0).step(grads)
        left = [-1.0, -2.0] if np.isnan(bad) else [0.0, 0.0]
        assert np.isnan(mine[0][0])
        assert [mine[0][1], mine[1][0]] == left
        tensors = [torch.zeros(2), torch.zeros(1)]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.from_numpy(grad).float()
        torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        found = [tensors[0].grad[1].item(), tensors[1].grad[0].item()]
        np.testing.assert_array_equal(found, [others, others])
        assert torch.isnan(tensors[0].grad[0])


def test_the_limit_itself() -> None:
    torch = pytest.importorskip("torch")
    w, tensor = np.zeros(1), torch.zeros(1, dtype=torch.float64)
    instep.SGD(w, lr=1.0, clip_norm=1.0).step(np.ones(1))
    tensor.grad = torch.ones_like(tensor)
    torch.nn.utils.clip_grad_norm_([tensor], 1.0)
    assert w[0] == -1.0
    assert tensor.grad[0] < 1.0


def test_where_averages_start() -> None:
    torch = pytest.importorskip("torch")
    w, model = np.ones(1), torch.nn.Linear(1, 1, bias=False)
    opt = instep.SGD(w, lr=1.0, ema_decay=0.75)
    opt.step(np.ones(1))
    assert opt.averages["0"][0] == 0.75
    assert w[0] == 0
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(0.75)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=averaging)
    model.weight.data[...] = 0
    averaged.update_parameters(model)
    assert averaged.module.weight.item() == 0


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_the_patience_of_a_plateau(patience: int) -> None:
    torch = pytest.importorskip("torch")
    plateau = instep.schedules.ReduceOnPlateau(1.0, patience=patience)
    opt = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=patience)
    for bad in range(patience + 2):
        reduced = bad == patience + 1
        plateau.observe(1.0)
        theirs.step(1.0)
        assert (plateau(0) < 1) == (opt.param_groups[0]["lr"] < 1) == reduced


def test_a_boundary() -> None:
    torch = pytest.importorskip("torch")
    mine = instep.schedules.PiecewiseConstant([1.0, 0.1], [3])
    opt = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs, rates = torch.optim.lr_scheduler.MultiStepLR(opt, [3]), []
    for _ in range(5):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        theirs.step()
    assert rates == pytest.approx([mine(step) for step in range(5)])


def test_complex_numbers() -> None:
    torch = pytest.importorskip("torch")
    z, grads = np.array([1 + 2j, 3 - 1j]), np.array([[1 - 1j, 0.5j], [2 + 1j, -3]])
    w = torch.tensor(z, requires_grad=True)
    theirs = torch.optim.Adam([w], lr=0.1)
    opt = instep.Adam(z.view(float), lr=0.1)
    for g in grads:
        opt.step(g.view(float))
        w.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(z, w.detach().numpy(), rtol=1e-12)
