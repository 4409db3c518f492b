"""Optimizers of PyTorch whose steps are instep's: one import in a training loop on the CPU.

>>> import torch
>>> import instep.torch
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = instep.torch.Adam(model.parameters(), lr=0.1)  # where torch.optim.Adam stood
>>> x, y = torch.eye(3), torch.ones(3, 1)
>>> for _ in range(200):
...     optimizer.zero_grad()
...     loss = torch.nn.functional.mse_loss(model(x), y)
...     loss.backward()
...     optimizer.step()
>>> loss.item() < 1e-3
True

The classes are subclasses of ``torch.optim.Optimizer``, and of torch's own class where torch has the
rule: names, arguments, groups, states and files are torch's. Learning-rate schedulers, closures,
hooks, ``GradScaler`` and ``torch.save`` work as they do there. `decoded` turns states in narrow
formats into torch's. docs/torch.md says what differs.
"""

from typing import TYPE_CHECKING, Any

from instep.optimizers.near_misses import hint as _hint
from instep.torch.classes import made as _made
from instep.torch.decoding import decoded
from instep.torch.tensors import torch as _torch

_classes = _made()
globals().update(_classes)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...

else:

    def __getattr__(name: str) -> object:
        mend = _hint(name, _classes)
        if name == "Momentum":
            mend = "; use SGD with momentum=0.9"
        elif hasattr(_torch.optim, name):
            mend = f"; use torch.optim.{name}"
        raise AttributeError(f"module 'instep.torch' has no attribute {name!r}{mend}")


def __dir__() -> list[str]:
    return __all__


__all__ = [*sorted(_classes), "decoded"]  # noqa: PLE0604 - made from the rules
