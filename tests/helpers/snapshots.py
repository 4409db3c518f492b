"""Everything in an optimizer that can change, to compare before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

import instep


def bits(optimizer: Any, scaler: instep.LossScaler | None = None) -> Any:
    """Parameters, state and the scaler's state; arrays as dtype, shape and bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype, value.shape, value.tobytes()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return value

    params = {name: plain(array) for name, array in optimizer.params.items()}
    return params, plain(optimizer.state_dict()), scaler and scaler.state_dict()


def snapshot(optimizer: Any) -> Any:
    """The same, with the results of the last step that can be read."""
    return bits(optimizer), optimizer.grad_norm
