"""A rule of the reference, step by step beside an optimizer of another package; skips where the package is missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cases import rng_for
from reference import Reference

import instep

STEPS = 60
SHAPES = {"w": (4, 3), "b": (5,), "c": ()}
LR = 0.03

Arrays = Mapping[str, np.ndarray]


def run(
    rule: str,
    options: Mapping[str, Any],
    update: Callable[[Arrays, Arrays], Arrays],
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> tuple[Reference, dict[str, np.ndarray]]:
    """Step the reference and, by `update(params, gradients)`, a peer; return it and the parameters of the peer."""
    rng = rng_for(rule, sorted(options))
    start = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    ours, theirs = Reference(rule, start, **options), start
    for _ in range(STEPS):
        grads = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        ours.step(grads)
        theirs = update(theirs, grads)
    return ours, {name: np.asarray(p) for name, p in theirs.items()}


def assert_close(ours: Arrays, theirs: Arrays, tolerance: float = 1e-12) -> None:
    """Within the tolerance of the array's largest number."""
    assert ours.keys() == theirs.keys()
    for name, p in ours.items():
        np.testing.assert_allclose(p, theirs[name], rtol=0, atol=tolerance * np.abs(p).max())


def package(name: str) -> Any:
    """Another package; without it the test is skipped."""
    return pytest.importorskip(name, reason=f"{name} is not installed: `nox -s peers` has it")


def of_optax(optax: ModuleType, optimizer: Any) -> Callable[[Arrays, Arrays], Arrays]:
    """The step of an optimizer of optax, from the parameters before its first one."""
    state = None
    update = package("jax").jit(optimizer.update)

    def step(params: Arrays, grads: Arrays) -> Arrays:
        nonlocal state
        state = optimizer.init(params) if state is None else state
        updates, state = update(grads, state, params)
        return optax.apply_updates(params, updates)

    return step


def beside(
    make: Callable[..., Any],
    update: Callable[[Arrays, Mapping[str, Any]], Arrays],
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    groups: list[list[str]] | None = None,
    absent: Iterable[tuple[int, str]] = (),
) -> tuple[instep.Optimizer, dict[str, np.ndarray], Arrays]:
    """Step an optimizer of instep and a peer; return the optimizer and the parameters of both.

    The gradients, for both, are those of a noisy quadratic at the parameters of instep. `absent` has pairs of a step
    and the name of a parameter that has no gradient in it.
    """
    rng = rng_for("beside", sorted(shapes))
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    theirs: Arrays = {name: p.copy() for name, p in params.items()}
    goal = {name: 3 * rng.standard_normal(shape) for name, shape in shapes.items()}
    opt = make(*([{name: params[name] for name in g} for g in groups or [list(shapes)]]))
    for step in range(STEPS):
        grads: dict[str, Any] = {
            n: p - goal[n] + 0.3 * rng.standard_normal(p.shape) for n, p in params.items()
        }
        grads |= {name: None for at, name in absent if at == step}
        opt.step([{n: grads[n] for n in g} for g in groups] if groups else grads)
        theirs = update(theirs, grads)
    assert not np.allclose(params["w"], goal["w"], atol=0.01)
    return opt, params, theirs


class OfTorch:
    """The step of an optimizer with PyTorch's interface: `make` takes the list of tensors, or one list a group."""

    def __init__(self, make: Callable[..., Any], groups: list[list[str]] | None = None) -> None:
        self.make, self.groups = make, groups
        self.tensors: dict[str, Any] = {}
        self.optimizer: Any = None

    def __call__(self, params: Arrays, grads: Mapping[str, np.ndarray | None]) -> Arrays:
        torch = package("torch")
        if self.optimizer is None:
            self.tensors = {
                name: torch.tensor(np.asarray(p), requires_grad=True) for name, p in params.items()
            }
            groups = self.groups or [list(params)]
            self.optimizer = self.make(*([self.tensors[name] for name in g] for g in groups))
        for name, tensor in self.tensors.items():
            tensor.grad = None if grads[name] is None else torch.tensor(grads[name])
        self.optimizer.step()
        return self.values()

    def values(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}


def module_of_timm(name: str) -> ModuleType:
    """A file of timm.optim without the rest of timm, which needs torchvision."""
    package("torch")
    spec = importlib.util.find_spec("timm")
    if spec is None:
        pytest.skip("timm is not installed: `nox -s peers` has it")
    alone = "optim_of_timm"
    if alone not in sys.modules:
        sys.modules[alone] = ModuleType(alone)
        (folder,) = spec.submodule_search_locations or ()
        sys.modules[alone].__path__ = [str(Path(folder) / "optim")]
    return importlib.import_module(f"{alone}.{name}")
