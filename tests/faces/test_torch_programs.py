"""instep.torch in other libraries' training loops, as their users write them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from interpreters import output  # noqa: E402
from torch.optim.swa_utils import SWALR, AveragedModel  # noqa: E402
from torch_twins import bits, furthest, same  # noqa: E402

import instep.torch  # noqa: E402


def _learn(baselines: Any, make: Any, kind: str) -> Any:
    # Without `eps`, PPO takes 1e-5 for torch.optim.Adam itself, and leaves other classes their default.
    options = {
        "optimizer_class": make,
        "optimizer_kwargs": {"eps": 1e-5},
        "net_arch": [16, 16],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gym's and Stable-Baselines3's own
        if kind == "PPO":
            model = baselines.PPO(
                "MlpPolicy",
                "CartPole-v1",
                policy_kwargs=options,
                n_steps=64,
                batch_size=32,
                n_epochs=2,
                seed=0,
                device="cpu",
            )
            return model.learn(128)
        model = baselines.SAC(
            "MlpPolicy",
            "Pendulum-v1",
            policy_kwargs=options,
            learning_starts=20,
            batch_size=32,
            seed=0,
            device="cpu",
        )
        return model.learn(40)


@pytest.mark.parametrize("kind", ["PPO", "SAC"])
def test_stable_baselines3(kind: str, tmp_path: Any) -> None:
    baselines = pytest.importorskip(
        "stable_baselines3", reason="Stable-Baselines3 is not installed: pip install it"
    )
    mine = _learn(baselines, instep.torch.Adam, kind)
    theirs = _learn(baselines, torch.optim.Adam, kind)
    optimizers = {
        name: value
        for part in (mine, mine.policy, getattr(mine, "actor", None), getattr(mine, "critic", None))
        if part is not None
        for name, value in [(type(part).__name__, getattr(part, "optimizer", None))]
        if value is not None
    }
    assert optimizers
    assert all(type(o) is instep.torch.Adam for o in optimizers.values())
    a, b = list(mine.policy.parameters()), list(theirs.policy.parameters())
    assert furthest(a, b) < 1e-3  # the same run; rounding grows in it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine.save(tmp_path / "model.zip")
        again = getattr(baselines, kind).load(
            tmp_path / "model.zip", env=mine.get_env(), device="cpu"
        )
        assert same(list(again.policy.parameters()), a)
        before = [bits(p) for p in again.policy.parameters()]
        again.learn(128 if kind == "PPO" else 140)
    assert [bits(p) for p in again.policy.parameters()] != before


def test_accelerate(tmp_path: Any) -> None:
    accelerate = pytest.importorskip(
        "accelerate", reason="Accelerate is not installed: pip install accelerate"
    )

    def run(make: Any) -> tuple[list[Any], list[Any]]:
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        optimizer = make(model.parameters(), lr=0.05)
        data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randn(32, 1))
        loader = torch.utils.data.DataLoader(data, batch_size=4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        model, optimizer, loader, scheduler = accelerator.prepare(
            model, optimizer, loader, scheduler
        )

        def train() -> None:
            for x, y in loader:
                with accelerator.accumulate(model):
                    loss = torch.nn.functional.mse_loss(model(x), y)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()

        train()
        accelerator.save_state(str(tmp_path / make.__module__))
        kept = [p.detach().clone() for p in model.parameters()]
        train()
        ended = [p.detach().clone() for p in model.parameters()]
        accelerator.load_state(str(tmp_path / make.__module__))
        assert same(list(model.parameters()), kept)
        train()
        return ended, list(model.parameters())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended, again = run(instep.torch.AdamW)
        theirs, _ = run(torch.optim.AdamW)
    assert furthest(ended, theirs) < 1e-4
    assert same(ended, again)


def test_averaged_models_of_torch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    average = AveragedModel(model)
    optimizer = instep.torch.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
        scheduler.step()
    assert not torch.equal(average.module.weight, model.weight)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


class Mine(instep.torch.AdamW):  # type: ignore[misc]
    """An optimizer as a user derives it."""

    def __init__(self, params: Any, lr: float = 0.2) -> None:
        super().__init__(params, lr=lr, weight_decay=0.0)
        self.calls = 0

    def step(self, closure: Any = None) -> Any:
        """Count the steps."""
        self.calls += 1
        return super().step(closure)


def test_derived_classes() -> None:
    model = torch.nn.Linear(4, 2)
    optimizer = Mine(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for k in range(3):
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        assert optimizer.calls == k + 1
    assert optimizer.state[model.weight]["step"] == 3


_RUN = """
import torch
{before}
import instep.torch
assert instep.torch.memory.LOOKS is {looks}
torch.manual_seed(0)
for name in ("Adam", "Prodigy", "NAdam", "SGD"):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        p, q = (torch.nn.Parameter(torch.randn(n, 3).t().to(dtype)) for n in (4, 5))
        narrow = {{"state_dtype": "8bit", "min_8bit_size": 13, "master_bits": 24}}
        options = narrow if dtype == torch.bfloat16 else {{}}
        optimizer = getattr(instep.torch, name)([p, q], lr=0.1, **options)
        for k in range(6):
            p.grad, q.grad = torch.randn_like(p), torch.randn_like(q)
            if k == 3:
                p.data = p.data.clone()
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.step()
        print(p.tolist(), q.tolist())
"""


def test_without_pytorchs_table_of_functions() -> None:
    # PyTorch before 2.10 has none; then the core takes arrays over the tensors' memory.
    without = "del torch.Tensor.__dlpack_c_exchange_api__"
    assert output(_RUN.format(before=without, looks=False)) == output(
        _RUN.format(before="", looks=True)
    )
