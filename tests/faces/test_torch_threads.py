"""Steps of instep.torch on threads, what they keep alive, many parameters, and compiled loops."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from interpreters import output  # noqa: E402
from torch_twins import (  # noqa: E402
    bits,
    furthest,
    give,
    parameters,
    train,
    twins,
)

import instep.torch  # noqa: E402
from instep import _core  # noqa: E402


def test_optimizers_in_many_threads() -> None:
    results: list[Any] = []

    def work(seed: int) -> None:
        params = parameters(((50,), (20, 3)), seed=seed)
        optimizer = instep.torch.Adam(params)
        for k in range(60):
            if k == 30:
                optimizer.load_state_dict(optimizer.state_dict())
            train((optimizer, params), steps=1, seed=k)
        results.append((seed, tuple(map(bits, params))))

    threads = [threading.Thread(target=work, args=(k % 3,)) for k in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 9
    assert len(dict(results)) == len(set(results)) == 3


def test_nothing_is_kept_alive() -> None:
    def watched() -> list[Any]:
        a = parameters()
        optimizer = instep.torch.Adam(a)
        train((optimizer, a))
        optimizer.load_state_dict(optimizer.state_dict())
        train((optimizer, a))
        train((optimizer, a), before=_schedule)
        gradient = a[0].grad
        a[0].grad = None
        refs = [weakref.ref(x) for x in (optimizer, *a, *optimizer.state[a[0]].values(), gradient)]
        del gradient
        assert refs[-1]() is None  # a gradient belongs to the model alone
        return refs

    watched()  # the first optimizer of a process is in a cycle of PyTorch's
    gc.disable()
    try:
        refs = watched()
        assert all(ref() is None for ref in refs)  # there is no cycle
    finally:
        gc.enable()


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("is_first", [True, False])
def test_a_new_thread_takes_as_many_threads_as_pytorch(is_first: bool) -> None:
    """OpenMP has a number for each thread, and PyTorch sets it when it is asked: each kind of step asks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = parameters(((1 << 20,),))
        optimizer = instep.torch.SGD(a)
        give(a)
        if not is_first:
            optimizer.step()
        regions = _core.testing.counters()["parallel_regions"]
        thread = threading.Thread(target=optimizer.step)
        thread.start()
        thread.join()
        assert _core.testing.counters()["parallel_regions"] == regions
    finally:
        torch.set_num_threads(before)


def test_a_refused_gradient_makes_no_cycle() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    a[0].grad = a[0].grad.to_sparse()
    refs = [weakref.ref(optimizer), weakref.ref(a[0])]
    gc.disable()
    try:
        with pytest.raises(TypeError, match="sparse"):
            optimizer.step()
        del optimizer, a
        assert all(ref() is None for ref in refs)
    finally:
        gc.enable()


def _schedule(step: int, optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)


def test_a_cycle_through_a_group_is_collected() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    optimizer.param_groups[0]["owner"] = [optimizer]
    train((optimizer, a))
    refs = [weakref.ref(optimizer), weakref.ref(a[0])]
    del optimizer, a
    gc.collect()
    assert all(ref() is None for ref in refs)


def test_old_states_are_let_go() -> None:
    a = parameters()
    optimizer = instep.torch.Adam(a)
    train((optimizer, a))
    old = weakref.ref(optimizer.state[a[0]]["exp_avg"])
    optimizer.load_state_dict(optimizer.state_dict())
    assert old() is None
    train((optimizer, a))
    old = weakref.ref(optimizer.state[a[0]]["exp_avg"])
    optimizer.state[a[0]]["exp_avg"] = torch.zeros(5, 4)
    train((optimizer, a))
    assert old() is None


def test_ten_thousand_parameters() -> None:
    a = parameters([(3,)] * 10_000)
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b, foreach=True)
    train((ours, a), (theirs, b), steps=3)
    assert furthest(a[::100], b[::100]) < 1e-6
    assert all(p._version for p in a)


def test_compiled_train_steps() -> None:
    # In a process of its own: torch._dynamo takes seconds to import, and stays.
    printed = output(
        """
        import torch, instep.torch
        # of functions of a step that are compiled one by one, for one parameter after the other
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        def run(make, wrap):
            torch.manual_seed(0)
            model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(6)])
            optimizer = make(model.parameters(), lr=0.01)
            x = torch.ones(3, 4)
            def train_step():
                optimizer.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                optimizer.step()
                return loss
            step = wrap(train_step)
            losses = [step().item() for _ in range(4)]
            return losses, model[0].weight.detach()
        compiled = lambda f: torch.compile(f, backend="eager")
        mine = run(instep.torch.Adam, compiled)
        plain = run(instep.torch.Adam, lambda f: f)
        print(mine[0][0] > mine[0][3], mine[0] == plain[0], torch.equal(mine[1], plain[1]))
        """,
        timeout=240,
    )
    assert printed.split() == ["True"] * 3
