"""What instep.torch refuses: by name, in one line, and with nothing changed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from torch_twins import bits, furthest, held, one, parameters, train, twins  # noqa: E402

import instep.torch  # noqa: E402

DENSE = "must be a dense tensor of real floating-point numbers in the CPU's memory, got"


class Derived(torch.Tensor):
    """A subclass without a difference."""


class DerivedParameter(torch.nn.Parameter):
    """A subclass without a difference."""


def _without_memory() -> Any:
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(0)
    return tensor


def _inference() -> Any:
    with torch.inference_mode():
        return torch.ones(3)


GRADIENTS: dict[str, tuple[Any, str]] = {
    "sparse": (lambda: torch.ones(3).to_sparse(), "a sparse tensor; call to_dense.., or make the"),
    "a subclass": (lambda: torch.ones(3).as_subclass(Derived), "one of the class Derived; step"),
    "without memory": (_without_memory, "a tensor without memory"),
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("what", GRADIENTS)
def test_gradients(what: str, is_first: bool) -> None:
    make, error = GRADIENTS[what]
    p, q = one(), one()
    p.grad = make()
    optimizer = instep.torch.Adam([q, p])
    good = q.grad.clone()
    if not is_first:
        p.grad = torch.ones(3)
        optimizer.step()
        p.grad = make()
    before = held(optimizer)
    with pytest.raises(TypeError, match=f"^the gradient of '1' {DENSE} {error}"):
        optimizer.step()
    assert held(optimizer) == before
    assert bool(optimizer.state) is not is_first
    # as if there had been no error
    calm = instep.torch.Adam([r := twins([q])[0], s := twins([p])[0]])
    calm.load_state_dict(optimizer.state_dict())
    p.grad = torch.full((3,), 0.5)
    r.grad, s.grad = good.clone(), p.grad.clone()
    optimizer.step()
    calm.step()
    assert held(optimizer) == held(calm)


def _meta() -> Any:
    return torch.nn.Parameter(torch.ones(3, device="meta"))


PARAMETERS: dict[str, tuple[Any, str]] = {
    "complex": (lambda: torch.ones(3, dtype=torch.complex64), "a tensor of torch.complex64; make"),
    "meta": (_meta, "a tensor on the device 'meta', without memory; make the model with to_empty"),
    "a subclass": (
        lambda: torch.ones(3).as_subclass(Derived),
        "one of the class Derived; step the",
    ),
    "a subclass of Parameter": (
        lambda: DerivedParameter(torch.ones(3)),
        "one of the class DerivedParameter; step the plain tensor in it",
    ),
    "inference": (_inference, "a tensor made under torch.inference_mode"),
    "without memory": (_without_memory, "a tensor without memory"),
    "float8": (lambda: torch.ones(3).to(torch.float8_e5m2), "a tensor of torch.float8_e5m2"),
}


@pytest.mark.parametrize("what", PARAMETERS)
def test_parameters(what: str) -> None:
    make, error = PARAMETERS[what]
    p, q = one(), make()
    optimizer = instep.torch.Adam([("good", p), ("bad", q)])
    optimizer.step()  # it has no gradient
    before = held(instep.torch.Adam([p])), bits(optimizer.state[p]["exp_avg"])
    plain = q.as_subclass(torch.Tensor) if isinstance(q, Derived) else q
    if what == "inference":
        with torch.inference_mode():
            q.grad = torch.ones(3)
    else:
        plain.grad = q.grad = torch.ones_like(torch.ones(3), device=q.device).to(q.dtype)
    with pytest.raises(TypeError, match=f"^(parameter|the gradient of) 'bad' {DENSE} {error}"):
        optimizer.step()
    assert (held(instep.torch.Adam([p])), bits(optimizer.state[p]["exp_avg"])) == before
    assert optimizer.state[p]["step"] == 1
    assert q not in optimizer.state


def test_quantized_tensors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are deprecated
        q = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
        optimizer = instep.torch.Adam([one()])
        optimizer.step()
        optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"] = q
        with pytest.raises(TypeError, match=f"^state 'exp_avg' of '0' {DENSE} a quantized tensor"):
            optimizer.step()


def test_distributed_tensors(tmp_path: Any) -> None:
    distributed = pytest.importorskip("torch.distributed.tensor")
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        p = torch.nn.Parameter(distributed.distribute_tensor(torch.ones(4), mesh))
        p.sum().backward()
        optimizer = instep.torch.Adam([p])
        with pytest.raises(TypeError, match=r"one of the class DTensor; .* DTensor, to_local"):
            optimizer.step()
        assert not optimizer.state
        local = p.to_local()
        assert torch.equal(local, torch.ones(4))
    finally:
        torch.distributed.destroy_process_group()


def _over(base: Any) -> list[Any]:
    return [torch.nn.Parameter(base[:4]), torch.nn.Parameter(base[2:])]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda: [torch.nn.Parameter(torch.ones(1).expand(4))],
            "^parameter '0' must have separate",
        ),
        (lambda: _over(torch.ones(6)), "^parameter '0' must have memory of its own.* '1'"),
        (lambda: _over(torch.ones(6))[:1] * 2, "^parameter '0' must have memory of its own.* '1'"),
    ],
)
def test_memory_that_is_shared(make: Any, error: str) -> None:
    params = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicates in a group
        optimizer = instep.torch.Adam(params)
    for p in params:
        p.grad = torch.ones(4)
    with pytest.raises(ValueError, match=error):
        optimizer.step()
    assert not optimizer.state
    assert torch.equal(params[0], torch.ones(4))


def test_a_gradient_in_the_parameters_memory() -> None:
    p = one()
    optimizer = instep.torch.Adam([p])
    optimizer.step()
    before = held(optimizer)
    p.grad = p.detach()
    with pytest.raises(ValueError, match=r"^the gradient of '0' must have memory of its own"):
        optimizer.step()
    p.grad = optimizer.state[p]["exp_avg"]
    with pytest.raises(ValueError, match=r"^the gradient of '0' must have memory of its own"):
        optimizer.step()
    assert held(optimizer) == before


def test_a_gradient_that_loses_its_memory_between_steps() -> None:
    # at any address: below all arrays of the optimizer there is only free memory, also at 0
    params = [one(n) for n in (3, 5_000, 300_000)]
    optimizer = instep.torch.Adam(params)
    optimizer.step()
    optimizer.step()
    for i, p in enumerate(params):
        size = p.grad.untyped_storage().size()
        p.grad.untyped_storage().resize_(0)
        before = held(optimizer)
        error = f"^the gradient of '{i}' {DENSE} a tensor without memory"
        with pytest.raises(TypeError, match=error):
            optimizer.step()
        assert held(optimizer) == before
        p.grad.untyped_storage().resize_(size)
        p.grad.zero_()
    empty = one(0)
    optimizer = instep.torch.Adam([empty, one()])
    for _ in range(3):
        optimizer.step()
    assert optimizer.state[empty]["step"] == 3


def test_duplicates_warn_at_construction() -> None:
    p = one()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        instep.torch.Adam([p, p])


def test_what_is_no_parameter() -> None:
    optimizer = instep.torch.Adam([one()])
    optimizer.param_groups[0]["params"].append(5)
    with pytest.raises(TypeError, match=r"^parameter '1' must be a dense tensor .* got an int"):
        optimizer.step()
    assert not optimizer.state


def test_what_needs_no_gradient_is_taken() -> None:
    a = [p.detach() for p in parameters()]
    b = twins(a)
    train((instep.torch.Adam(a), a), (instep.torch.Adam(b), b))
    assert [bits(p) for p in a] == [bits(p) for p in b]
    integers = torch.zeros(3, dtype=torch.int32)
    instep.torch.Adam([one(), integers]).step()  # it never gets a gradient


def test_inference_mode() -> None:
    a = parameters()
    b = twins(a)
    ours, theirs = instep.torch.Adam(a), torch.optim.Adam(b)
    with torch.inference_mode():  # also the first step
        train((ours, a), steps=2)
    train((theirs, b), steps=2)
    assert a[0].grad.is_inference()
    ours.step()
    theirs.step()
    train((ours, a), (theirs, b), steps=1)
    assert furthest(a, b) < 1e-6
    assert ours.state[a[0]]["step"] == 4


HUGE = [
    {"lr": 1e308},
    {"lr": 5e-324},
    {"eps": 0.0},
    {"betas": (0.0, 0.0)},
    {"weight_decay": 1e30},
    {"lr": 1, "eps": 1, "weight_decay": 1},
]


@pytest.mark.parametrize("options", HUGE, ids=str)
def test_odd_numbers(options: dict[str, Any]) -> None:
    a = parameters(dtype=torch.float64)
    b = twins(a)
    train((instep.torch.AdamW(a, **options), a), (torch.optim.AdamW(b, **options), b), steps=2)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=0, equal_nan=True)
