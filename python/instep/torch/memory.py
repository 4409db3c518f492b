"""A tensor's memory, as the core takes it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from instep._support.bfloat16 import bfloat16
from instep.torch.tensors import FACE, torch

__all__ = ["LOOKS", "array", "layout", "memory"]

#: Whether the core looks at tensors itself. PyTorch before 2.10 has no table of functions for that.
LOOKS = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
_DTYPES = {
    getattr(torch, name): name
    for name in ("float64", "float32", "float16", "int8", "uint8", "int16")
}


def memory(tensor: Any) -> Any:
    """Return the tensor, or an array over its memory, which the caller must keep."""
    return tensor if LOOKS else array(tensor)


def layout(tensor: Any) -> tuple[Any, ...]:
    """Return what an array over a tensor's memory depends on."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def array(tensor: Any) -> np.ndarray[Any, Any]:
    """Return an array over a tensor's memory: not ``.numpy()``, after which no storage can be resized."""
    name = _DTYPES.get(tensor.dtype)
    dtype = bfloat16(f"{FACE} with bfloat16 tensors") if name is None else np.dtype(name)
    shape, item = tuple(tensor.shape), dtype.itemsize
    if 0 in shape:
        return np.empty(shape, dtype)
    last = sum((n - 1) * step for n, step in zip(shape, tensor.stride(), strict=True))
    buffer = (ctypes.c_char * ((last + 1) * item)).from_address(tensor.data_ptr())
    strides = tuple(step * item for step in tensor.stride())
    found: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer, strides=strides)
    return found
