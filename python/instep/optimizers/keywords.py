"""The keywords that every rule takes, for type checkers and editors."""

from __future__ import annotations

import os
from typing import TypedDict

from instep.optimizers.containers import Copies
from instep.optimizers.hyperparameters import Nonfinite, Number
from instep.optimizers.stored_formats import MasterBits, Rounding, StateDtype

__all__ = ["Shared"]


class Shared(TypedDict, total=False):
    """Keywords of every rule, besides weight_decay: `Optimizer` has their defaults."""

    l1: Number
    decoupled_l1: bool
    clip_value: Number | None
    maximize: bool
    clip_norm: Number | None
    nonfinite: Nonfinite
    ema_decay: Number | None
    copy_to: Copies | None
    state_dtype: StateDtype
    rounding: Rounding
    seed: int
    param_rounding: Rounding
    master_bits: MasterBits | None
    min_8bit_size: int
    state_storage: str | os.PathLike[str] | None
