"""Steps of instep.torch inside PyTorch: closures, hooks, autograd, scalers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch.optim.optimizer import (  # noqa: E402
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch_twins import (  # noqa: E402
    furthest,
    give,
    held,
    one,
    parameters,
    same,
    train,
    twins,
)

import instep.torch  # noqa: E402


def test_a_closure_is_called_once_with_gradients_enabled() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    calls = []

    def closure_of(optimizer: Any, params: list[Any]) -> Any:
        def closure() -> Any:
            calls.append(torch.is_grad_enabled())
            optimizer.zero_grad()
            loss = sum(p.square().sum() for p in params)
            loss.backward()
            return loss

        return closure

    for _ in range(3):
        with torch.no_grad():
            mine = ours.step(closure_of(ours, a))
            plain = theirs.step(closure=closure_of(theirs, b))
        assert mine.item() == pytest.approx(plain.item(), rel=1e-6)
    assert calls == [True] * 6
    assert furthest(a, b) < 1e-6
    assert ours.step(closure=lambda: 7.5) == 7.5
    assert ours.step() is None


def test_errors_in_closures_and_hooks_change_nothing() -> None:
    a, b = parameters(), parameters()
    optimizer, calm = instep.torch.Adam(a), instep.torch.Adam(b)
    train((optimizer, a), (calm, b))
    before = held(optimizer)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    give(a)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(fail)
    handle = optimizer.register_step_pre_hook(fail)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    handle.remove()
    assert held(optimizer) == before
    train((optimizer, a), (calm, b))  # as if nothing had been
    assert held(optimizer) == held(calm)
    handle = optimizer.register_step_post_hook(fail)
    give(a, b)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    calm.step()
    handle.remove()
    train((optimizer, a), (calm, b))
    assert held(optimizer) == held(calm)


def test_hooks_of_steps() -> None:
    p, log = one(), []
    optimizer = instep.torch.Adam([p])

    def note(text: str) -> Any:
        return lambda o, args, kwargs: log.append((text, o is optimizer, p.detach().clone()))

    optimizer.step()
    handles = [
        register_optimizer_step_pre_hook(note("all pre")),
        optimizer.register_step_pre_hook(note("pre")),
        optimizer.register_step_post_hook(note("post")),
        register_optimizer_step_post_hook(note("all post")),
    ]
    try:
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    assert [text for text, _, _ in log] == ["all pre", "pre", "post", "all post"]
    assert all(mine for _, mine, _ in log)
    assert torch.equal(log[0][2], log[1][2])
    assert torch.equal(log[2][2], log[3][2])
    assert not torch.equal(log[1][2], log[2][2])


def test_a_pre_hook_may_replace_the_closure() -> None:
    optimizer = instep.torch.Adam([one()])
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 2.5), {}))
    assert optimizer.step(lambda: 1.0) == 2.5


def test_the_profiler_has_the_step() -> None:
    optimizer = instep.torch.Adam([one()])
    optimizer.step()
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    names = {event.name for event in profile.function_events}
    assert "Optimizer.step#Adam.step" in names


def test_a_stale_saved_tensor_raises() -> None:
    for steps in (0, 1, 2):  # the first step goes another way than later ones
        p = one()
        optimizer = instep.torch.Adam([p])
        for _ in range(steps):
            optimizer.step()
        version = p._version
        y = (p * torch.ones(3, requires_grad=True)).sum()
        optimizer.step()
        assert p._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    q = one()
    optimizer = instep.torch.Adam([p, q])
    q.grad = None
    version = q._version
    optimizer.step()
    optimizer.step()
    assert q._version == version  # it has not changed


def test_storages_may_be_resized_after_a_step() -> None:
    # as FSDP does; a NumPy view of a tensor would forbid it
    p = one()
    optimizer = instep.torch.Adam([p])
    optimizer.step()
    kept = p.detach().clone()
    size = p.untyped_storage().size()
    for tensor in (p, p.grad, optimizer.state[p]["exp_avg"]):
        values = tensor.detach().clone()
        tensor.untyped_storage().resize_(0)
        tensor.untyped_storage().resize_(size)
        with torch.no_grad():
            tensor.copy_(values)
    assert torch.equal(p, kept)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2
    p.grad.untyped_storage().resize_(400)


def test_the_negative_bit() -> None:
    a, b = [one()], [one()]
    ours, plain = instep.torch.Adam(a), instep.torch.Adam(b)
    for k in range(4):
        z = torch.randn(3, dtype=torch.complex64, generator=torch.Generator().manual_seed(k))
        a[0].grad = z.conj().imag
        b[0].grad = a[0].grad.clone()
        assert a[0].grad.is_neg()
        assert not b[0].grad.is_neg()
        ours.step()
        plain.step()
    assert same(a, b)


def test_grad_scaler() -> None:
    a, b = [one(4)], [one(4)]
    # Optimizers of torch with fused=True divide by the scale themselves.
    ours, theirs = instep.torch.SGD(a, lr=0.1, fused=True), torch.optim.SGD(b, lr=0.1)
    runs = [
        (params, optimizer, torch.amp.GradScaler("cpu", init_scale=1024.0))
        for params, optimizer in ((a, ours), (b, theirs))
    ]
    assert not getattr(ours, "_step_supports_amp_scaling", False)
    for k in range(4):
        x = torch.full((4,), float("inf") if k == 1 else k + 0.5)
        for params, optimizer, scaler in runs:
            optimizer.zero_grad()
            scaler.scale((params[0] * x).sum()).backward()
            if k == 3:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    assert runs[0][2].get_scale() == runs[1][2].get_scale() == 512.0
    assert furthest(a, b) < 1e-6


def test_hooks_that_step_in_backward() -> None:
    def run(make: Any, *, is_shared: bool) -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        params = list(model.parameters())
        together = make(params, lr=0.1)
        optimizers = {p: together if is_shared else make([p], lr=0.1) for p in params}

        def hook(parameter: Any) -> None:
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for p in params:
            p.register_post_accumulate_grad_hook(hook)
        for k in range(4):
            model(torch.full((2, 5), float(k))).square().sum().backward()
        assert all(p.grad is None for p in params)
        return params

    for is_shared in (False, True):
        mine = run(instep.torch.Adam, is_shared=is_shared)
        assert furthest(mine, run(torch.optim.Adam, is_shared=is_shared)) < 1e-5


def test_a_step_inside_a_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    give(a)
    optimizer.step(optimizer.step)  # a closure runs before the step begins
    assert optimizer.state[a[0]]["step"] == 2
    errors = []
    new = torch.zeros_like

    def zeros_like(*args: Any, **kwargs: Any) -> Any:
        try:
            optimizer.step()
        except RuntimeError as error:
            errors.append(str(error))
        return new(*args, **kwargs)

    optimizer.state.clear()
    monkeypatch.setattr(torch, "zeros_like", zeros_like)
    optimizer.step()
    assert set(errors) == {"a step of this optimizer must end before the next begins"}
    assert optimizer.state[a[0]]["step"] == 1


def test_an_interrupted_first_step_leaves_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = parameters(), parameters()
    optimizer, calm = instep.torch.Adam(a), instep.torch.Adam(b)
    before = held(optimizer)
    new, left = torch.zeros_like, [3]

    def zeros_like(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return new(*args, **kwargs)

    give(a)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "zeros_like", zeros_like)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert not optimizer.state
    assert held(optimizer) == before
    train((optimizer, a), (calm, b))
    assert held(optimizer) == held(calm)
