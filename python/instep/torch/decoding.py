"""State dicts in the form that torch reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instep._support import documentation
from instep._support.checks import mapping
from instep._support.wording import listed
from instep.optimizers.stored_formats import REMAINDER, UNIT
from instep.storage.codes import decode
from instep.torch.entry import OWN_COUNT
from instep.torch.formats import CODE, ROOT
from instep.torch.loading import SEED
from instep.torch.memory import array
from instep.torch.tensors import check, torch

__all__ = ["decoded"]


@documentation.without_quotes
def decoded(state_dict: Mapping[str, Any]) -> dict[Any, Any]:
    """Return a state dict of instep.torch's in the form that ``torch.optim`` reads.

    Codes of 8 bits and square roots become the numbers that they stand for, in float32 and under
    torch's names. Remainders of parameters, the steps that instep counts where torch counts none,
    and the seed are left out. Everything else is taken over as it is, so a dict that torch can read
    already comes back with the same tensors.

    Parameters
    ----------
    state_dict : dict
        What ``state_dict()`` of an optimizer of instep.torch returned.

    Returns
    -------
    dict
        For ``load_state_dict`` of ``torch.optim``, or of an optimizer of instep.torch.

    Raises
    ------
    TypeError, ValueError
        If the argument is no such dict, or codes and their units don't fit.

    Examples
    --------
    >>> import torch, instep.torch
    >>> w = torch.nn.Parameter(torch.ones(5000))
    >>> ours = instep.torch.Adam([w], state_dtype="8bit")
    >>> w.grad = torch.full_like(w, 2.0)
    >>> ours.step()
    >>> list(ours.state[w])
    ['step', 'exp_avg_code', 'exp_avg_unit', 'exp_avg_sq_code', 'exp_avg_sq_unit']
    >>> theirs = torch.optim.Adam([w])
    >>> theirs.load_state_dict(instep.torch.decoded(ours.state_dict()))
    >>> list(theirs.state[w])
    ['step', 'exp_avg', 'exp_avg_sq']
    """
    mapping("the state dict", state_dict)
    if "state" not in state_dict:
        raise ValueError(f"the state dict must have the key 'state', got {listed(state_dict)}")
    states = {
        key: _decoded(f"of parameter {key}", own) if isinstance(own, Mapping) else own
        for key, own in mapping("'state' of the state dict", state_dict["state"]).items()
    }
    others = {key: value for key, value in state_dict.items() if key != SEED}
    return {**others, "state": states}


def _decoded(whose: str, states: Mapping[Any, Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in states.items():
        if not isinstance(key, str):
            found[key] = value
        elif key.endswith(CODE) and key.removesuffix(CODE) + UNIT in states:
            name = key.removesuffix(CODE)
            units = states[name + UNIT]
            check(f"state '{key}' {whose}", value, dtypes=(torch.int8, torch.uint8))
            check(f"state '{name + UNIT}' {whose}", units, dtypes=(torch.float32,))
            # A copy, since a tensor over an array's memory can't be resized.
            found[name] = torch.from_numpy(decode(array(value), array(units))).clone()
        elif key.endswith(ROOT):
            check(f"state '{key}' {whose}", value, dtypes=(torch.float16,))
            found[key.removesuffix(ROOT)] = value.to(torch.float32).square()
        elif not (
            key in (REMAINDER, OWN_COUNT)
            or (key.endswith(UNIT) and key.removesuffix(UNIT) + CODE in states)
        ):
            found[key] = value
    return found
