"""Which tensors can be stepped, and in one line why another can't."""

from __future__ import annotations

from typing import Any

from instep._support.hosts import host, part
from instep._support.wording import kind

__all__ = ["FACE", "TESTED", "number", "refusal", "torch"]

FACE, TESTED = "instep.torch", "2.13"
torch: Any = host(FACE, "torch", "PyTorch", "torch")

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
part(FACE, torch, "Tensor.__dlpack_c_exchange_api__", TESTED)  # by which the core finds a tensor's memory


def refusal(who: str, tensor: Any) -> Exception | None:
    """Return the error for a tensor that can't be stepped, or that is no gradient for a step; None if it can."""
    found, mend = _found(tensor)
    if not found:
        return None
    expected = "be a dense tensor of real floating-point numbers in the CPU's memory"
    error = TypeError if isinstance(tensor, torch.Tensor) else ValueError
    return error(f"{who} must {expected}, got {found}{mend}")


def _found(tensor: Any) -> tuple[str, str]:
    """Say what is wrong with a tensor, and how to mend it, if that is known."""
    if not isinstance(tensor, torch.Tensor):
        return kind(tensor), ""
    if type(tensor) not in _PLAIN:
        name = type(tensor).__name__
        local = "; step its local part, tensor.to_local()" if name == "DTensor" else ""
        return f"one of the class {name}", local
    if tensor.is_sparse or tensor.layout != torch.strided:
        return "a sparse tensor", "; call to_dense(), or make the layer with sparse=False"
    if tensor.is_quantized:
        return "a quantized tensor", ""
    if tensor.device.type != "cpu":
        return f"a tensor on the device {tensor.device.type!r}", "; move it with .to('cpu')"
    if tensor.dtype not in _DTYPES:
        as_real = "; view it with torch.view_as_real" if tensor.is_complex() else ""
        return f"a tensor of {tensor.dtype}", as_real
    if tensor.is_inference():
        return "a tensor that was made under torch.inference_mode()", "; clone it outside"
    if tensor.numel() and not tensor.data_ptr():
        return "a tensor without memory", ""
    return "", ""


def number(who: str, value: Any) -> Any:
    """Return a hyperparameter without tensors: torch takes a tensor of one element for a number."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{who} must be a number, got a tensor of shape {tuple(value.shape)}")
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(number(f"{who}[{k}]", one) for k, one in enumerate(value))
    if callable(value):
        raise TypeError(
            f"{who} must be a number, got {kind(value)}; use a scheduler of torch.optim.lr_scheduler"
        )
    return value
