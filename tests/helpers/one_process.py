"""What ranks do against one process that accumulates their gradients in their order, compared bit by bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from reference import assert_same_bits
from strategies import Setup
from twins import same_number

from instep.mpi import Distributed, over_threads
from instep.optimizers.containers import GRADIENTS

Make = Callable[[Any], Any]


def together(size: int, function: Callable[[Any], Any], **more: Any) -> list[Any]:
    """What the function returns on each rank, these being threads; what it raises is raised."""
    return [rank.result() for rank in over_threads.run(size, function, **more)]


def assert_alike(a: Any, b: Any, what: str = "") -> None:
    """Nested data is the same; arrays have the same bits."""
    if isinstance(b, Mapping):
        assert list(a) == list(b), what
        for key in b:
            assert_alike(a[key], b[key], f"{what}[{key!r}]")
    elif isinstance(b, (list, tuple)):
        assert len(a) == len(b), what
        for k, pair in enumerate(zip(a, b, strict=True)):
            assert_alike(*pair, f"{what}[{k}]")
    elif isinstance(b, np.ndarray):
        assert_same_bits(a, b, what)
    elif isinstance(b, float):
        assert same_number(a, b), what
    else:
        assert a == b, what


def everything(optimizer: Any) -> Any:
    """What this rank has; without a call of the others."""
    arrays = optimizer.params, optimizer.state, optimizer.averages, optimizer.accumulated
    counts = optimizer.step_count, optimizer.skipped_steps, optimizer._plan.steps
    numbers = optimizer.lr, optimizer.clip_norm, optimizer.grad_norm
    return copy.deepcopy(arrays), counts, numbers


class Seen(NamedTuple):
    """An optimizer between two steps."""

    params: list[np.ndarray]
    copies: list[np.ndarray]
    averaged: list[np.ndarray]  # parameters and copies as averaged() shows them
    grad_norm: float | None
    counts: tuple[int, int]
    state: Any  # None on ranks other than the first
    error: str = ""  # what the step before has raised


class Model:
    """Arrays in order, and the optimizer of them.

    `contain` puts an item for each parameter, in their order, into a container as for gradients.
    """

    def __init__(
        self, make: Make, params: Any, copies: Sequence[Any] = (), contain: Any = None
    ) -> None:
        self.make, self.params, self.copies = make, params, list(copies)
        self.arrays = leaves(params)
        self.contain = contain or (lambda items: filled(params, iter(items)))

    def seen(self, optimizer: Any, error: str = "") -> Seen:
        def all_of_them() -> list[np.ndarray]:
            return [np.array(array) for array in (*self.arrays, *self.copies)]

        averaged = []
        if has_averages(optimizer):
            before = all_of_them()
            with optimizer.averaged():
                averaged = all_of_them()
            assert_alike(all_of_them(), before, "after averaged()")
        return Seen(
            [np.array(array) for array in self.arrays],
            [np.array(array) for array in self.copies],
            averaged,
            optimizer.grad_norm,
            (optimizer.step_count, optimizer.skipped_steps),
            optimizer.state_dict(),
            error,
        )


def has_averages(optimizer: Any) -> bool:
    return any(
        o.ema_decay is not None or o._shows_iterate
        for o in getattr(optimizer, "optimizers", [optimizer])
    )


class Turn(NamedTuple):
    """What one rank brings to a step: gradients of micro-batches, then those of the step, or none at all."""

    micro: Sequence[Any] = ()
    last: Any = None


class Step(NamedTuple):
    turns: Sequence[Turn]  # by rank
    scale: float = 1.0
    change: Callable[[Any], None] | None = None  # of the optimizer, before it


def take(optimizer: Any, work: Callable[[], None]) -> str:
    """Take a step; return the text of a refusal for numbers that aren't finite."""
    try:
        work()
    except FloatingPointError as error:
        optimizer.discard_accumulated()
        return str(error)
    return ""


def in_one_process(model: Model, scratch: Callable[[], Any], steps: Sequence[Step]) -> list[Seen]:
    """`scratch` makes optimizers like the model's, which add up what a rank brings."""
    optimizer = model.make(model.params)
    found = [model.seen(optimizer)]
    for step in steps:
        if step.change is not None:
            step.change(optimizer)
        any_given = False
        for turn in step.turns:
            own = scratch()
            for grads in (*turn.micro, turn.last):
                if grads is not None:
                    own.accumulate(grads)
            sums = own_sums(own)
            if sums is not None:
                any_given = True
                optimizer.accumulate(model.contain(sums))
        given = () if any_given else (model.contain([None] * len(model.arrays)),)
        error = take(optimizer, lambda: optimizer.step(*given, grad_scale=step.scale))  # noqa: B023
        found.append(model.seen(optimizer, error))
    return found


def own_sums(optimizer: Any) -> list[np.ndarray | None] | None:
    """The sums of all parameters in order; None without any."""
    members = getattr(optimizer, "optimizers", [optimizer])
    found = [o.accumulated.get(name) for o in members for name in o.params]
    return found if any(each is not None for each in found) else None


def filled(container: Any, items: Any) -> Any:
    if isinstance(container, dict):
        return {key: filled(inner, items) for key, inner in container.items()}
    if isinstance(container, (list, tuple)):
        return type(container)(filled(inner, items) for inner in container)
    return None if container is None else next(items)


def leaves(container: Any) -> list[np.ndarray]:
    if isinstance(container, (dict, list, tuple)):
        inner = container.values() if isinstance(container, dict) else container
        return [leaf for each in inner for leaf in leaves(each)]
    return [] if container is None else [container]


def on_ranks(
    size: int, model: Callable[[], Model], steps: Sequence[Step], **more: Any
) -> list[list[Seen]]:
    """The same on each rank."""

    def each(comm: Any) -> list[Seen]:
        own = model()
        optimizer = Distributed(own.make, own.params, comm=comm, **more)
        found = [own.seen(optimizer)]
        for step in steps:
            if step.change is not None:
                step.change(optimizer)
            turn = step.turns[comm.rank]
            for grads in turn.micro:
                optimizer.accumulate(grads)
            pending = own_sums(optimizer) is not None
            given = GRADIENTS if turn.micro and turn.last is None and pending else turn.last
            error = take(optimizer, lambda: optimizer.step(given, grad_scale=step.scale))  # noqa: B023
            found.append(own.seen(optimizer, error))
        optimizer.close()
        return found

    return together(size, each)


def check(
    size: int,
    model: Callable[[], Model],
    steps: Sequence[Step],
    **more: Any,
) -> None:
    """Ranks and one process see the same after each step."""

    def scratch() -> Any:
        own = model()
        return own.make(own.params)

    wanted = in_one_process(model(), scratch, steps)
    for rank, found in enumerate(on_ranks(size, model, steps, **more)):
        for k, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
            state = theirs.state if rank == 0 else None
            same = theirs._replace(state=state)
            assert_alike(ours._asdict(), same._asdict(), f"rank {rank}, {k} steps: ")


def model_of(setup: Setup) -> Callable[[], Model]:
    """Models of a drawn optimizer, with arrays of their own that lie without gaps."""

    def fresh() -> Model:
        params = {name: np.array(p.view, order="C") for name, p in setup.params.items()}
        copies = {
            n: None if c is None else np.array(c.view, order="C") for n, c in setup.copies.items()
        }
        return Model(
            lambda given: setup.optimizer(given, copies),
            params,
            [copy for copy in copies.values() if copy is not None],
            lambda items: setup.contain(dict(zip(params, items, strict=True))),
        )

    return fresh
