"""Formats in which instep.torch stores states and parameters, for the tests of all of them.

Import this module after ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch_twins import parameters

import instep.torch

SHAPES = ((70, 70), (130,), (7,))
MATRICES = ((70, 70), (3, 30))
#: A parameter's dtype, and options for it.
FORMATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "8bit": (torch.float32, {"state_dtype": "8bit", "seed": 7}),
    "8bit of all sizes": (torch.float32, {"state_dtype": "8bit", "min_8bit_size": 0}),
    "8bit to nearest": (torch.float32, {"state_dtype": "8bit", "rounding": "nearest"}),
    "bfloat16 states": (torch.float32, {"state_dtype": "bfloat16", "seed": 2**64 - 1}),
    "bfloat16 model": (torch.bfloat16, {}),
    "random bfloat16 model": (torch.bfloat16, {"param_rounding": "stochastic", "seed": 3}),
    "random float16 model": (torch.float16, {"param_rounding": "stochastic"}),
    "24 bits": (torch.bfloat16, {"state_dtype": "8bit", "master_bits": 24}),
    "24 random bits": (torch.bfloat16, {"master_bits": 24, "param_rounding": "stochastic"}),
    "32 bits": (torch.bfloat16, {"state_dtype": "8bit", "master_bits": 32, "min_8bit_size": 0}),
}
MOMENTUM: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}


def shapes_of(name: str) -> Any:
    """Shapes that a class takes, with enough elements for codes."""
    return MATRICES if name == "Muon" else SHAPES


def make(name: str, stored: str, **more: Any) -> tuple[Any, list[Any]]:
    """An optimizer in a format, and its parameters."""
    dtype, options = FORMATS[stored]
    params = parameters(shapes_of(name), dtype)
    options = {"lr": 0.01, **MOMENTUM.get(name, {}), **options, **more}
    return getattr(instep.torch, name)(params, **options), params
