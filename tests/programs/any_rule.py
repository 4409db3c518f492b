"""One loop for any class of optimizers; type checkers accept the right calls, and refuse the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

import instep
from instep import schedules
from instep.typing import Array, Copies, Gradients, Group, Nonfinite, Number, Params, StateDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from instep.typing import Schedule, Shared

Loss = Callable[[], Gradients]
MODE: Nonfinite = "raise"


def train(make: type[instep.Optimizer], params: Params, grads: Loss, lr: Number) -> StateDict:
    opt = make(params, lr=lr, weight_decay=1e-4, clip_norm=100.0)
    for _ in range(200):
        opt.step(grads())
    return opt.state_dict()


class Careful(instep.Adam):
    """With a default of its own."""

    def __init__(self, params: Params, lr: Number = 0.05, **more: Unpack[Shared]) -> None:
        more.setdefault("nonfinite", MODE)
        super().__init__(params, lr=lr, **more)


def halved(schedule: Schedule) -> Schedule:
    return lambda step: schedule(step) / 2


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except (TypeError, ValueError) as error:
        return type(error).__name__
    return "nothing"


def main() -> None:
    for rule in (instep.SGD, instep.Momentum, instep.RMSprop, instep.Adam, instep.AdamW, Careful):
        w: Array = np.full(3, 2.0)
        b: Array = np.full(1, -2.0)
        groups: list[Group] = [{"params": w}, {"params": {"b": b}, "lr": 0.03, "l1": 0.0}]

        def grads(w: Array = w, b: Array = b) -> Gradients:
            return [2 * w, {"b": 2 * b}]

        state = train(rule, groups, grads, halved(schedules.Constant(0.1)))
        print(f"{rule.__name__}: {abs(w).max() < 0.1 and abs(b).max() < 0.1} {state['step_count']}")
    half: Copies = [np.empty(3, np.float16), None]
    opt = Careful([np.ones(3, np.float32), np.ones(1)], copy_to=half, ema_decay=0.9)
    print("as in Careful:", opt.nonfinite)
    make: type[instep.Optimizer] = instep.SGD
    print(
        "refused:",
        refused(lambda: make(np.ones(1), learning_rate=0.1)),  # type: ignore[call-arg]
        refused(lambda: make(np.ones(1), lr="0.1")),  # type: ignore[arg-type]
        refused(lambda: make(np.ones(1), nonfinite="stop")),  # type: ignore[arg-type]
        refused(lambda: make({"w": 1.0})),  # type: ignore[arg-type]
        refused(lambda: opt.step(["gradients", object()])),  # type: ignore[list-item]
        refused(lambda: instep.Optimizer(np.ones(1), lr=0.1)),
    )


if __name__ == "__main__":
    main()
