"""Which tensors can be stepped, and in one line why another can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instep._support.hosts import host
from instep._support.wording import kind

__all__ = ["DTYPES", "FACE", "TESTED", "check", "is_usual", "number", "torch"]

FACE, TESTED = "instep.torch", "2.13"
torch: Any = host(FACE, "torch", "PyTorch", "torch")

_PLAIN = (torch.Tensor, torch.nn.Parameter)
#: Of numbers; codes and remainders have others.
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# What is wrong with a tensor, how it is called then, and how to mend it. Each is asked of what has passed those before.
_WRONG: tuple[tuple[Callable[[Any], bool], Callable[[Any], str], str], ...] = (
    (lambda t: not isinstance(t, torch.Tensor), kind, ""),
    (
        lambda t: type(t) not in _PLAIN,
        lambda t: f"one of the class {type(t).__name__}",
        "; step the plain tensor in it (of a DTensor, to_local())",
    ),
    (
        lambda t: t.layout != torch.strided,
        lambda _: "a sparse tensor",
        "; call to_dense(), or make the layer with sparse=False",
    ),
    (lambda t: t.is_quantized, lambda _: "a quantized tensor", ""),
    (
        lambda t: t.is_meta,
        lambda _: "a tensor on the device 'meta', without memory",
        "; make the model with to_empty(device='cpu'), and load its weights",
    ),
    (
        lambda t: t.device.type != "cpu",
        lambda t: f"a tensor on the device {t.device.type!r}",
        "; move it with .to('cpu')",
    ),
    (
        lambda t: t.is_complex(),
        lambda t: f"a tensor of {t.dtype}",
        "; make it a view of real numbers with torch.view_as_real",
    ),
    (lambda t: t.numel() and not t.data_ptr(), lambda _: "a tensor without memory", ""),
)

_WRONG_WITH_PARAMETERS = (
    *_WRONG,
    # It has no count of its changes.
    (
        lambda t: t.is_inference(),
        lambda _: "a tensor made under torch.inference_mode()",
        "; clone it outside",
    ),
)


def is_usual(tensor: Any, dtypes: tuple[Any, ...] = DTYPES) -> bool:
    """Tell quickly that nothing is wrong with a tensor. False says little: it may be empty."""
    return (
        type(tensor) in _PLAIN
        and tensor.dtype in dtypes
        and tensor.layout is torch.strided
        and tensor.is_cpu
        and tensor.data_ptr() != 0
    )


def check(
    who: str, tensor: Any, *, is_parameter: bool = False, dtypes: tuple[Any, ...] = DTYPES
) -> None:
    """Raise TypeError for a tensor that no step can use."""
    if is_usual(tensor, dtypes) and not (is_parameter and tensor.is_inference()):
        return
    numbers = "real floating-point numbers"
    if dtypes is not DTYPES:
        numbers = " or ".join(map(str, dtypes))
    another = (lambda t: t.dtype not in dtypes), (lambda t: f"a tensor of {t.dtype}"), ""
    for is_wrong, called, mend in (*(_WRONG_WITH_PARAMETERS if is_parameter else _WRONG), another):
        if is_wrong(tensor):
            raise TypeError(
                f"{who} must be a dense tensor of {numbers} in the CPU's memory, got "
                f"{called(tensor)}{mend}"
            )


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
