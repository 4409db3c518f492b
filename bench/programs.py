"""What users of PyTorch run: an iteration of training and a step, with torch.optim or with instep.torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
from task import NO_STEP, OURS, Task

DEFAULT, FOREACH, FUSED = "torch default", "torch foreach", "torch fused"
FORMS: dict[str, dict[str, bool]] = {
    DEFAULT: {},
    FOREACH: {"foreach": True},
    FUSED: {"fused": True},
}
THEIR_CLIPPING = f"{OURS}, torch's clipping"
STEP, ITERATION, LOOP = "a step", "an iteration", "a loop with all that belongs to it"
PROGRAMS = (ITERATION, LOOP, STEP)  # Task.program
NORM = 0.5  # at which a loop clips


def versions(who: str) -> dict[str, str]:
    import torch  # noqa: PLC0415 - a process of instep's NumPy steps does without

    from peers import PEERS  # noqa: PLC0415

    return {"PyTorch": torch.__version__, **(PEERS[OURS].versions() if _is_ours(who) else {})}


def _is_ours(who: str) -> bool:
    return who in (OURS, THEIR_CLIPPING)


def _optimizer(who: str, task: Task, params: list[Any], more: dict[str, Any]) -> Any:
    import torch  # noqa: PLC0415

    if not _is_ours(who):
        make: Any = getattr(torch.optim, task.rule)
        return make(params, **task.hyperparameters, **FORMS[who])
    import instep.torch  # noqa: PLC0415 - it would not leave the OpenMP runtime of the others as it is

    instep.set_num_threads(task.threads)
    return getattr(instep.torch, task.rule)(params, **task.hyperparameters, **more)


def call(who: str, task: Task) -> Callable[[], object]:
    """The program's call, on the threads that the task says."""
    import torch  # noqa: PLC0415

    if task.threads:
        torch.set_num_threads(task.threads)
    name, _, only_matrices = task.workload.partition(models.MATRICES[0])
    model = models.make(name)
    params = [p for p in model.module.parameters() if p.dim() == 2 or not only_matrices]
    if task.program == STEP:
        for param in params:
            param.grad = torch.randn_like(param)
        return _optimizer(who, task, params, {}).step  # type: ignore[no-any-return]
    assert task.batch is not None
    batch = model.batch(task.batch)
    if who == NO_STEP:
        return _without(model, batch, params)
    return (_loop if task.program == LOOP else _iteration)(who, task, model, batch, params)


def _without(model: Any, batch: Any, params: list[Any]) -> Callable[[], object]:
    """Forward and backward alone."""

    def iteration() -> None:
        for param in params:
            param.grad = None
        model.loss(batch).backward()

    return iteration


def _iteration(
    who: str, task: Task, model: Any, batch: Any, params: list[Any]
) -> Callable[[], object]:
    """Forward, backward and step."""
    optimizer = _optimizer(who, task, params, {})

    def iteration() -> None:
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()

    return iteration


def _loop(who: str, task: Task, model: Any, batch: Any, params: list[Any]) -> Callable[[], object]:
    """The same with clipped gradients and a scheduler, as many users write it."""
    import torch  # noqa: PLC0415

    optimizer = _optimizer(who, task, params, {"clip_norm": NORM} if who == OURS else {})
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10**9)
    clip = torch.nn.utils.clip_grad_norm_

    def iteration() -> None:
        optimizer.zero_grad()
        model.loss(batch).backward()
        if who != OURS:
            clip(params, NORM)
        optimizer.step()
        scheduler.step()

    return iteration
