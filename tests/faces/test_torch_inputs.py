"""instep.torch on the inputs of PyTorch's own tests: the same numbers, and the same errors."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
pytest.importorskip(
    "expecttest", reason="PyTorch's inputs for tests need it: pip install expecttest"
)

from torch.testing._internal import common_optimizers  # noqa: E402
from torch_twins import (  # noqa: E402
    IN_TORCH,
    default_dtype,
    furthest,
    parameters,
    shapes_for,
    train,
    twins,
)

import instep.torch  # noqa: E402

CPU = torch.device("cpu")
FLOAT64, FLOAT32 = torch.float64, torch.float32


def _inputs(name: str) -> list[Any]:
    return list(getattr(common_optimizers, f"optim_inputs_func_{name.lower()}")(device=CPU))


def _errors(name: str) -> list[Any]:
    make = getattr(common_optimizers, f"optim_error_inputs_func_{name.lower()}")
    return list(make(device="cpu", dtype=torch.float32))


INPUTS = [(name, one) for name in IN_TORCH for one in _inputs(name)]
ERRORS = [(name, one) for name in IN_TORCH for one in _errors(name)]


def _label(value: Any) -> str | None:
    described = getattr(value, "error_inputs", value)
    described = getattr(value, "optimizer_error_input", described)
    return getattr(described, "desc", None) if not isinstance(value, str) else value


def test_no_input_is_lost() -> None:
    # PyTorch 2.13 has these. A class or an input that a later version adds changes the numbers.
    assert {name: len(_inputs(name)) for name in IN_TORCH} == {
        "ASGD": 7,
        "Adadelta": 6,
        "Adagrad": 7,
        "Adam": 5,
        "AdamW": 5,
        "Adamax": 5,
        "Muon": 7,
        "NAdam": 7,
        "RAdam": 6,
        "RMSprop": 8,
        "Rprop": 5,
        "SGD": 9,
    }
    assert len(INPUTS) == 77
    # What torch.optim has and instep.torch has not.
    known = {n for n, c in vars(torch.optim).items() if isinstance(c, type)}
    assert known - set(IN_TORCH) == {"Optimizer", "Adafactor", "LBFGS", "SparseAdam"}


def _tolerance(name: str, options: dict[str, Any], dtype: Any) -> float:
    if dtype == FLOAT64:
        return 1e-12
    return 1e-5 if name == "SGD" and options.get("momentum") else 1e-6


class _Muon64:
    """torch.optim.Muon's algorithm in float64, as torch computes its products in bfloat16."""

    def __init__(self, params: Any, of: Any) -> None:
        self.params, self.group = params, of.param_groups[0]
        self.buffers = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self) -> None:
        group = self.group
        momentum, lr = group["momentum"], float(group["lr"])
        for p, buffer in zip(self.params, self.buffers, strict=True):
            buffer.lerp_(p.grad, 1 - momentum)
            x = p.grad.lerp(buffer, momentum) if group["nesterov"] else buffer.clone()
            is_high = x.shape[0] > x.shape[1]
            x = x.T if is_high else x
            x = x / x.norm().clamp(min=group["eps"])
            a, b, c = group["ns_coefficients"]
            for _ in range(group["ns_steps"]):
                square = x @ x.T
                x = a * x + (b * square + c * square @ square) @ x
            scale = math.sqrt(max(1, p.shape[0] / p.shape[1]))
            p.mul_(1 - lr * group["weight_decay"])
            p.sub_(lr * scale * (x.T if is_high else x))


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=str)
@pytest.mark.parametrize(("name", "given"), INPUTS, ids=_label)
def test_twenty_steps_agree(name: str, given: Any, dtype: Any) -> None:
    with default_dtype(dtype):
        a = parameters(shapes_for(name), dtype)
        b = twins(a)
        ours = getattr(instep.torch, name)(a, **copy.deepcopy(given.kwargs))
        theirs = getattr(torch.optim, name)(b, **copy.deepcopy(given.kwargs))
        if name == "Muon":
            b = [torch.nn.Parameter(p.detach().double()) for p in b]
            theirs = _Muon64(b, theirs)
        start = [p.detach().clone() for p in a]
        train((ours, a), (theirs, b), steps=20)
        assert furthest(a, b) <= _tolerance(name, given.kwargs, dtype)
        assert all((p != before).any() for p, before in zip(a, start, strict=True))


def _provoke(make: Any, name: str, given: Any) -> None:
    wanted = copy.deepcopy(given.optimizer_error_input)
    params = parameters(shapes_for(name)) if wanted.params is None else wanted.params
    optimizer = make(params, **wanted.kwargs)
    assert given.error_on.name == "STEP_ERROR"
    optimizer.step()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "given"), ERRORS, ids=_label)
def test_the_errors_are_torchs(name: str, given: Any) -> None:
    caught = []
    for of in (torch.optim, instep.torch):
        with pytest.raises(Exception) as error:  # noqa: PT011 - the next lines say which
            _provoke(getattr(of, name), name, given)
        caught.append(error.value)
    if given.error_on.name == "STEP_ERROR":  # torch: a RuntimeError about what is complex
        assert isinstance(caught[1], TypeError)
        assert "complex" in str(caught[0])
        assert "complex" in str(caught[1])
        return
    assert type(caught[0]) is type(caught[1]) is given.error_type
    assert str(caught[0]) == str(caught[1])
    assert re.search(given.error_regex, str(caught[1]))
