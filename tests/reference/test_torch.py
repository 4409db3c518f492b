"""The reference against PyTorch, in float64: the rules and options that PyTorch has."""

from __future__ import annotations

import numpy as np
import pytest
from cases import rng_for
from reference import Reference


def lr_schedule(step: int) -> float:
    return 0.05 / (1 + step)


def momentum_schedule(step: int) -> float:
    return 0.5 + 0.4 * step / 50


L2 = {"weight_decay": 0.03}
UP = {"maximize": True}
HEAVY = {"lr": lr_schedule, "momentum": momentum_schedule}
NESTEROV = {"momentum": 0.9, "nesterov": True}
TORCH_CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.05} | L2 | UP),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.6} | L2),
    ("SGD", {"lr": 0.05} | NESTEROV | L2 | UP),
    ("SGD", HEAVY),
    ("Momentum", {}),
    ("Momentum", {"lr": 0.05, "momentum": 0.7} | L2),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "alpha": 0.9} | L2 | UP),
    ("RMSprop", {"momentum": 0.9, "eps": 1e-3} | L2),
    ("RMSprop", {"centered": True, "eps": 1e-2} | HEAVY),
    ("Adam", {}),
    ("Adam", {"lr": lr_schedule, "betas": (0.8, 0.95), "eps": 1e-2} | L2 | UP),
    ("Adam", {"amsgrad": True, "betas": (0.9, 0.5), "lr": 0.05}),
    ("AdamW", {}),
    ("AdamW", {"lr": lr_schedule, "weight_decay": 0.3} | UP),
    ("AdamW", {"amsgrad": True, "betas": (0.9, 0.5), "lr": 0.05}),
    ("Adamax", {}),
    ("Adamax", {"lr": lr_schedule, "betas": (0.8, 0.95), "eps": 1e-2} | L2 | UP),
    ("NAdam", {}),
    ("NAdam", {"lr": lr_schedule, "betas": (0.8, 0.95), "momentum_decay": 0.1} | L2 | UP),
    ("NAdam", {"lr": 0.05, "decoupled_weight_decay": True} | L2),
    ("RAdam", {}),
    ("RAdam", {"lr": lr_schedule, "betas": (0.8, 0.95), "eps": 1e-2} | L2 | UP),
    ("RAdam", {"lr": 0.05, "betas": (0.9, 0.99), "decoupled_weight_decay": True} | L2),
    ("Adagrad", {}),
    ("Adagrad", {"lr": lr_schedule, "lr_decay": 0.1, "initial_accumulator_value": 0.2} | L2 | UP),
    ("Adadelta", {}),
    ("Adadelta", {"lr": lr_schedule, "rho": 0.8, "eps": 1e-3} | L2 | UP),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.05, "etas": (0.4, 1.3), "step_sizes": (1e-3, 0.1)} | UP),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.05, "lambd": 0.02, "alpha": 0.6, "t0": 10} | L2 | UP),
    ("ASGD", {"lr": lr_schedule, "t0": 10}),
]


pytestmark = pytest.mark.usefixtures("torch_in_double")


def compare_with_torch(rule, options, *, before_step=None, **more):
    """50 steps with a gradient missing now and then; before_step edits PyTorch's gradients.

    What options leave out is PyTorch's default, and so compares the defaults, too.
    """
    torch = pytest.importorskip("torch")
    rng = rng_for(rule, sorted(options))
    params = {k: rng.standard_normal(shape) for k, shape in [("w", (4, 3)), ("b", 5), ("c", ())]}
    ours = Reference(rule, params, **options, **more)
    leaves = {k: torch.tensor(np.asarray(p), requires_grad=True) for k, p in params.items()}
    schedules = {k: v for k, v in options.items() if callable(v)}
    if rule == "Momentum":
        rule, options = "SGD", {"momentum": 0.9} | options
    first = {k: v(0) if callable(v) else v for k, v in options.items()}
    theirs = getattr(torch.optim, rule)(leaves.values(), **first)
    for step in range(50):
        grads = {k: rng.standard_normal(np.shape(p)) for k, p in params.items()}
        grads["b"] = None if step % 7 in (0, 3) else grads["b"]
        for k, leaf in leaves.items():
            leaf.grad = None if grads[k] is None else torch.tensor(grads[k])
        theirs.param_groups[0].update({k: v(step) for k, v in schedules.items()})
        if before_step:
            before_step(torch, list(leaves.values()))
        theirs.step()
        ours.step(grads)
    for k, leaf in leaves.items():
        close = {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(ours.params[k], leaf.detach().numpy(), **close)
        state = theirs.state[leaf]
        for name in ours.state[k]:
            if "lr_in_velocity" not in more:
                np.testing.assert_allclose(ours.state[k][name], state[name].numpy(), **close)
        if "step" in state:
            assert ours.steps[k] == int(state["step"])
    assert ours.steps["w"] == ours.step_count == 50 > ours.steps["b"]


@pytest.mark.parametrize(("rule", "options"), TORCH_CASES)
def test_equals_torch(rule, options):
    compare_with_torch(rule, options)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lr_in_velocity_is_torchs_rule_while_lr_is_constant(nesterov):
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov}
    compare_with_torch("SGD", options, lr_in_velocity=True)


def test_gradient_terms_equal_torch():
    def edit(torch, leaves):
        torch.nn.utils.clip_grad_value_(leaves, 0.7)
        for p in leaves:
            if p.grad is not None:
                p.grad -= 0.02 * p.detach().sign()  # maximize turns it round

    options = {"maximize": True}
    compare_with_torch("Adam", options, before_step=edit, clip_value=0.7, l1=0.02)


def test_clip_norm_equals_torch():
    def edit(torch, leaves):
        grads = [p.grad for p in leaves if p.grad is not None]
        total = torch.linalg.vector_norm(torch.cat([g.reshape(-1) for g in grads]))
        for g in grads:
            g.mul_(min(1.0, 4.0 / total))  # clip_grad_norm_ itself adds 1e-6 to the norm

    compare_with_torch("Momentum", {"lr": 0.05}, before_step=edit, clip_norm=4.0)
