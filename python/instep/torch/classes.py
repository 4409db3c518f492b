"""Makes the classes of instep.torch from instep's rules."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from instep._support import documentation
from instep._support.wording import kind as kind_of
from instep.optimizers.near_misses import bind
from instep.torch.group_numbers import Kind, kinds, read
from instep.torch.stepping import OWN, Stepping
from instep.torch.tensors import torch

__all__ = ["made"]

_PATH = "instep.torch"
# Arguments of instep's optimizers that torch has elsewhere, or that a parameter group has none of.
_LEFT_OUT = {"params", "ema_decay", "copy_to", "state_storage", *OWN}

_NEVER = {
    "capturable": "the step runs on the CPU",
    "differentiable": "autograd doesn't record it",
}


def made() -> dict[str, type[Stepping]]:
    """Return a class for each rule, by torch's name where torch has the rule."""
    return {name: _class_of(name, kind) for name, kind in kinds().items()}


def _class_of(name: str, kind: Kind) -> type[Stepping]:
    torchs = getattr(torch.optim, name, None) if kind.torchs is not None else None
    if torchs is None:
        kind = Kind(kind.rule, None)
    signature = _signature(torchs if torchs is not None else kind.rule)
    make = _as_torch(torchs, signature) if torchs is not None else _as_instep(kind, signature)
    make.__signature__ = signature  # type: ignore[attr-defined]
    bases = (Stepping,) if torchs is None else (Stepping, torchs)
    if kind.rule._shows_iterate:
        bases = (_Averaging, *bases)
    members = {
        "__module__": _PATH,
        "__qualname__": name,
        "__doc__": _docstring(name, kind, torchs, signature),
        "__init__": make,
        "_kind": kind,
    }
    return type(name, bases, members)


def _signature(of: Any) -> inspect.Signature:
    """Return the signature of ``__init__``: that of torch's or instep's class, with instep's own keywords last."""
    parameters = list(inspect.signature(of.__init__).parameters.values())
    kept = [p for p in parameters if p.name == "params" or p.name not in _LEFT_OUT]
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in OWN.items()
    ]
    return inspect.Signature([*kept, *own])


def _split(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all arguments but instep's own keywords, and instep's own."""
    arguments = dict(bind(type(args[0]).__name__, signature, args, kwargs).arguments)
    del arguments["self"]
    for name, value in arguments.items():
        if name != "params" and callable(value) and not isinstance(value, type):
            raise TypeError(
                f"{name} must be a number, got {kind_of(value)}; use a scheduler of "
                "torch.optim.lr_scheduler"
            )
    return arguments, {name: arguments.pop(name) for name in OWN}


def _as_torch(torchs: Any, signature: inspect.Signature) -> Callable[..., None]:
    def __init__(*args: Any, **kwargs: Any) -> None:
        arguments, own = _split(signature, args, kwargs)
        for name, why in _NEVER.items():
            if arguments.get(name):
                raise ValueError(
                    f"{name} must be False, as {why}, got True; use torch.optim.{torchs.__name__}"
                )
        self = args[0]
        self._begin(**own)
        torchs.__init__(self, **arguments)
        # With it a GradScaler would leave the division by its scale to the step.
        vars(self).pop("_step_supports_amp_scaling", None)

    return __init__


def _as_instep(kind: Kind, signature: inspect.Signature) -> Callable[..., None]:
    def __init__(*args: Any, **kwargs: Any) -> None:
        arguments, own = _split(signature, args, kwargs)
        params = arguments.pop("params")
        self = args[0]
        self._begin(**own)
        read(kind, 0, arguments)
        torch.optim.Optimizer.__init__(self, params, arguments)

    return __init__


def _docstring(name: str, kind: Kind, torchs: Any, signature: inspect.Signature) -> str:
    rule = kind.rule.__name__
    names = [n for n in signature.parameters if n not in ("self", *OWN)]
    if torchs is not None:
        whose, what = (
            f"torch.optim.{name}",
            f"``torch.optim.{name}`` with the step of `instep.{rule}`.",
        )
    else:
        whose, what = f"instep.{rule}", f"`instep.{rule}` as an optimizer of PyTorch."
    return _DOCSTRING.format(
        what=what,
        rule=rule,
        names=textwrap.fill(", ".join(names), 96),
        whose=f"``{whose}``",
        example=_EXAMPLE.format(name=name),
    )


_DOCSTRING = """{what}

``help(instep.{rule})`` has the formula and its source.

Parameters
----------
{names}
    As for {whose}; no argument may be a schedule of instep.
clip_norm : float or None
    Greater than 0. If the Euclidean norm of all gradients together exceeds this limit, the step
    takes them scaled down to the limit. ``grad_norm`` holds the norm before scaling.
nonfinite : {{"propagate", "skip", "raise"}}
    What to do if a gradient is infinite or NaN: go on computing; change nothing and count the step
    in ``skipped_steps``; or change nothing and raise FloatingPointError.
state_dtype : torch.dtype, "8bit", dict or None
    The format of the states that are made from now on; None for the parameter's dtype. With "8bit",
    for parameters that are not float64, ``state[p]["exp_avg_code"]`` has codes of 8 bits and
    ``["exp_avg_unit"]`` a float32 for each 64 of them. Second moments in float16 are stored as
    square roots, ``["exp_avg_sq_root"]``. A dict has a format for each state by torch's name; a
    state that is not named has the parameter's dtype. States that a format can't hold stay wide, or
    the format is refused.
rounding : {{"stochastic", "nearest"}}
    How states of 8 and 16 bits are rounded.
seed : int
    Of the random numbers, from 0 to 2**64 - 1. They depend on the seed, the place of the parameter
    over all groups and its step count alone. ``state_dict()`` has the seed, and a loaded seed
    replaces it.
param_rounding : {{"stochastic", "nearest"}}
    How float16 and bfloat16 parameters are rounded.
master_bits : 24, 32 or None
    Give each bfloat16 parameter an array of its next 8 or 16 bits, ``state[p]["remainder"]``, so
    that steps see a parameter of 24 or 32 bits. Call `reset_remainders` after you have changed a
    parameter by hand.
min_8bit_size : int
    Parameters of fewer elements get wide states where state_dtype is "8bit".

Raises
------
TypeError, ValueError
    If an argument is out of its range. The first step refuses parameters that it can't change.

Examples
--------
{example}"""

_EXAMPLE = """>>> import torch, instep.torch
>>> w = torch.nn.Parameter(torch.ones(2, 2))
>>> optimizer = instep.torch.{name}([w], lr=0.5)
>>> for _ in range(2):
...     optimizer.zero_grad()
...     w.square().sum().backward()
...     optimizer.step()
>>> bool((w < 1).all())
True
"""


@documentation.without_quotes
class _Averaging(Stepping):
    """An optimizer whose rule averages the weights itself."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the rule's average of the weights in the parameters inside a ``with`` block.

        Evaluate or save the model there. At the end of the block, the weights are put back.

        Raises
        ------
        RuntimeError
            If the block is in another block, or a step is taken in it.
        """
        if self._is_averaged:
            raise RuntimeError("a block of averaged() must end before the next begins")
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        try:
            self._show()
            yield
        finally:
            self._is_averaged = False
            with torch.no_grad():
                for parameter, weights in zip(parameters, before, strict=True):
                    parameter.copy_(weights)
