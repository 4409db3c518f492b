"""Making a Distributed: what all ranks compare, and what kind of object they get."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS, one_element
from one_process import assert_alike, together

import instep
from instep import checkpoint, interop
from instep.checkpoint import CheckpointError
from instep.mpi import Distributed, over_threads

ODD = 1  # the rank that differs


def params() -> dict[str, Any]:
    return {"w": np.linspace(0, 1, 6).reshape(2, 3), "b": np.ones(4, np.float32)}


def make(comm: Any, **changed: Any) -> Any:
    """With other arguments on one rank."""
    given = {"make": instep.Adam, "params": params(), "lr": 0.1}
    if comm.rank == ODD:
        given |= changed
    return Distributed(given.pop("make"), given.pop("params"), comm=comm, **given)


def refused(match: str, error: type[Exception] = ValueError, **changed: Any) -> list[str]:
    """What each rank says."""
    ranks = over_threads.run(3, lambda comm: make(comm, **changed))
    found = [rank.exception() for rank in ranks]
    for rank, one in enumerate(found):
        assert type(one) is error, one
        assert match in str(one)
        assert "\n" not in str(one)
        assert (f"rank {ODD}" in str(one)) or rank == ODD
    return list(map(str, found))


def changed(name: str, array: Any) -> Any:
    return {**params(), name: array}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (changed("b", np.ones(5, np.float32)), "got 'float32 (4,)' on rank 0, 'float32 (5,)' on"),
        (changed("b", np.ones(4)), "got 'float32 (4,)' on rank 0, 'float64 (4,)' on rank 1"),
        (changed("w", np.zeros((3, 2))), "got 'float64 (2, 3)' on rank 0, 'float64 (3, 2)' on"),
        ({"w": params()["w"]}, "names"),
        ({"w": params()["w"], "c": params()["b"]}, "got 'b' on rank 0, 'c' on rank 1"),
        ({"b": params()["b"], "w": params()["w"]}, "got 'w' on rank 0, 'b' on rank 1"),
        (list(params().values()), "got 'w' on rank 0, '0' on rank 1"),
        (changed("b", np.full(4, np.nan, np.float32)), "other elements of 'b' on rank 1 than on"),
        (
            changed("w", -0.0 * params()["w"]),
            "other elements of 'w' on rank 1 than on rank 0; make",
        ),
    ],
    ids=["shape", "dtype", "transposed", "fewer", "name", "order", "list", "nan", "sign"],
)
def test_other_parameters(given: Any, told: str) -> None:
    refused(told, params=given)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"make": instep.AdamW}, "got 'Adam' on rank 0, 'AdamW' on rank 1"),
        ({"amsgrad": True}, "the same optimizer (0.groups.0.options"),
        (
            {"ema_decay": 0.5},
            "the same optimizer (0.averages), got False on rank 0, True on rank 1",
        ),
        (
            {"state_dtype": "float16"},
            "(0.groups.0.state_dtype), got None on rank 0, 'float16' on rank 1",
        ),
        ({"sync": True}, "all ranks must have the same sync, got False on rank 0, True on rank 1"),
        (
            {"make": lambda given, **k: instep.Combined(instep.Adam(given, **k))},
            "all ranks must have the same kind of optimizer, got 'one' on rank 0, 'Combined' on rank 1",
        ),
    ],
    ids=["rule", "option", "averages", "state_dtype", "sync", "combined"],
)
def test_another_optimizer(more: Any, told: str) -> None:
    refused(told, **more)


def test_shard_on_one_rank() -> None:
    refused("all ranks must have the same shard, got 'auto' on rank 0, True on rank 1", shard=True)


def test_another_release() -> None:
    def other(call: Any) -> None:
        if call.rank == ODD and call.name == "allgatherv":
            release = f'"{instep.__version__}"'.encode()
            call.send[0] = call.send[0].replace(release, b'"9' + release[2:])

    for rank in over_threads.run(3, make, before=other):
        assert type(rank.exception()) is ValueError
        text = f"all ranks must have the same release of instep, got '{instep.__version__}' on rank"
        assert text in str(rank.exception())


def test_another_protocol() -> None:
    """A rank of a release whose rounds are others."""

    def other(call: Any) -> None:
        if call.rank == ODD and call.name == "allgather":
            call.send[0] = b"is\2" + call.send[0][3:]

    for rank in over_threads.run(3, make, before=other):
        assert type(rank.exception()) is instep.mpi.CommunicationError
        text = "all ranks must have the same release of instep, got another one on rank 1 than on"
        assert text in str(rank.exception())


@pytest.mark.parametrize(
    ("more", "error", "told"),
    [
        ({"lr": -1.0}, ValueError, "lr must be"),
        ({"lr": "1"}, TypeError, "lr must be"),
        ({"what": 3}, TypeError, "must be one of"),
        ({"make": 3}, TypeError, "make must be a class of optimizers, or a function"),
        ({"make": lambda given, lr: 3}, TypeError, "make must return an optimizer of instep, got"),
        ({"make": lambda given: 3}, TypeError, "lr"),
        ({"make": instep.Optimizer}, TypeError, "Optimizer"),
        ({"shard": 1}, ValueError, "shard must be True, False or 'auto', got 1"),
        ({"sync": 1}, TypeError, "sync must be True or False, got 1"),
        ({"params": changed("w", np.zeros(3, np.int64))}, TypeError, "'w'"),
        (
            {"params": changed("w", np.zeros((3, 2)).T)},
            ValueError,
            "parameter 'w' must be C-contiguous to be shared out among ranks, got",
        ),
        ({"params": changed("b", np.ones(8, np.float32)[::2])}, ValueError, "C-contiguous"),
    ],
)
def test_an_error_on_one_rank(more: Any, error: type[Exception], told: str) -> None:
    said = refused(told, error, **more)
    assert all(text == f"rank {ODD}: {said[ODD]}" for k, text in enumerate(said) if k != ODD)


def test_an_error_in_a_function_that_makes() -> None:
    class Own(KeyError):
        pass

    def failing(given: Any, **keywords: Any) -> Any:
        raise Own("mine")

    ranks = over_threads.run(3, lambda comm: make(comm, make=failing))
    assert [type(rank.exception()) for rank in ranks] == [KeyError, Own, KeyError]


def test_an_optimizer_that_was_there_before() -> None:
    text = "make must make a new optimizer, got one that was there before"
    there = instep.Adam(params())
    refused(text, make=lambda given, **keywords: there)

    def twice(comm: Any) -> None:
        first = make(comm)
        with pytest.raises(ValueError, match=text):
            Distributed(lambda given: first, params(), comm=comm)

    together(2, twice)
    text = r"optimizers[0] must be made by the function that Distributed calls, got one"
    refused(text, make=lambda given, **keywords: instep.Combined(there))


def test_optimizers_that_are_made_beside_it() -> None:
    """They are as always after it, and another job's inside a function are its own."""

    def each(comm: Any) -> None:
        beside: list[Any] = []

        def function(given: Any) -> Any:
            beside.append(instep.SGD(np.zeros(2)))
            return instep.SGD(given)

        Distributed(function, np.ones(2), comm=comm).step(np.ones(2))
        with pytest.raises(TypeError, match="step must be called of the Distributed"):
            beside[0].step(np.ones(2))
        plain = instep.SGD(np.zeros(2), lr=1.0)
        plain.step(np.ones(2))
        assert plain.params["0"].tolist() == [-1, -1]

    together(2, each)


@pytest.mark.parametrize("shard", [True, False])
def test_rank_0s_parameters(shard: bool) -> None:
    def each(comm: Any) -> Any:
        own = {name: array + comm.rank for name, array in params().items()}
        copies = {"w": np.zeros((2, 3), np.float16), "b": None}
        optimizer = Distributed(
            instep.SGD,
            own,
            comm=comm,
            sync=True,
            shard=shard,
            lr=0.5,
            ema_decay=0.5,
            copy_to=copies,
        )
        with optimizer.averaged():
            shown = copy.deepcopy(own)
        synced = copy.deepcopy((own, copies))
        optimizer.step({name: np.ones(array.shape) for name, array in own.items()})
        return shown, synced, own

    wanted = params()
    copies = {"w": wanted["w"].astype(np.float16), "b": None}
    stepped = {name: array - np.asarray(1.5, array.dtype) for name, array in wanted.items()}
    for found in together(3, each):
        assert_alike(found, (wanted, (wanted, copies), stepped))


class Mine(instep.AdamW):
    """With arguments, attributes and a method of its own."""

    def __init__(self, given: Any, extra: int = 3, **keywords: Any) -> None:
        super().__init__(given, **keywords)
        self.extra = extra

    def twice(self, grads: Any) -> None:
        for _ in range(2):
            self.step(grads)


def test_a_class_of_the_users() -> None:
    def each(comm: Any) -> Any:
        optimizer = Distributed(Mine, w := np.ones(3), comm=comm, extra=5, lr=0.1)
        optimizer.twice(np.ones(3))
        optimizer.note = "mine"
        assert isinstance(optimizer, (Mine, Distributed))
        assert optimizer.extra == 5
        assert optimizer.step_count == 2
        assert "Distributed(Mine(lr=0.1" in repr(optimizer)
        return w

    w = np.ones(3)
    plain = Mine(w, lr=0.1)
    for _ in range(2):
        for _ in range(2):
            plain.accumulate(np.ones(3))
        plain.step()
    assert_alike(together(2, each), [w, w])


@pytest.mark.parametrize("rule", ALL_OPTIMIZERS, ids=lambda rule: rule.__name__)
def test_it_is_an_optimizer(rule: Any) -> None:
    def each(comm: Any) -> Any:
        optimizer = Distributed(rule, one_element(rule), comm=comm)
        assert isinstance(optimizer, (rule, instep.Optimizer, Distributed))
        assert isinstance(optimizer, Distributed)
        assert type(optimizer).__name__ == rule.__name__
        assert type(optimizer) is type(Distributed(rule, one_element(rule), comm=comm))
        assert optimizer.comm is comm
        assert optimizer.param_groups[0]["lr"] == optimizer.lr
        assert repr(optimizer).startswith(f"Distributed({rule.__name__}(lr=")
        assert repr(optimizer).endswith(f"step_count=0), rank={comm.rank}, size=2)")
        return None

    together(2, each)


#: What is refused, and what is said.
REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "copy": (copy.copy, "can't be copied or pickled"),
    "deepcopy": (copy.deepcopy, "can't be copied or pickled"),
    "pickle": (pickle.dumps, "can't be copied or pickled"),
    "add_param_group": (
        lambda optimizer: optimizer.add_param_group({"params": [np.ones(2)]}),
        "must get all its groups when it is made, got another one",
    ),
    "checkpoint.save": (
        lambda optimizer: checkpoint.save(io.BytesIO(), optimizer),
        "",
    ),
    "to_torch_state_dict": (
        interop.to_torch_state_dict,
        "an optimizer in one process was expected",
    ),
    "from_torch_state_dict": (
        lambda optimizer: interop.from_torch_state_dict(
            optimizer, {"state": {}, "param_groups": []}
        ),
        "an optimizer in one process was expected",
    ),
    "Combined": (instep.Combined, "optimizers[0] must be an optimizer in one process, got a Dist"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_one_process_can_do(what: str) -> None:
    """Nothing of a Distributed is given away as if it were all, or changed behind the other ranks' back."""
    call, text = REFUSED[what]

    def each(comm: Any) -> str:
        optimizer = Distributed(instep.Adam, params(), comm=comm, shard=True, lr=0.1)
        with pytest.raises(TypeError) as caught:
            call(optimizer)
        optimizer.step({name: np.ones(array.shape) for name, array in params().items()})
        return str(caught.value)

    for said in together(2, each):
        assert text in said
        assert "\n" not in said


def test_files_of_one_process(tmp_path: Path) -> None:
    plain = instep.Adam(params(), lr=0.1)
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, plain)

    def each(comm: Any) -> None:
        optimizer = make(comm)
        before = path.read_bytes()
        for call in (checkpoint.save, checkpoint.load):
            with pytest.raises(
                (TypeError, CheckpointError), match="an optimizer in one process was expected"
            ):
                call(path, optimizer)
        assert path.read_bytes() == before
        optimizer.step(None)

    together(2, each)


def test_one_of_several() -> None:
    """Its optimizers can't be stepped alone, but have their hyperparameters."""

    def each(comm: Any) -> None:
        both = Distributed(
            lambda given: instep.Combined(
                instep.SGD([given[0]], lr=0.5, ema_decay=0.5), instep.Adam([given[1]])
            ),
            [np.ones(3), np.ones(2)],
            comm=comm,
        )
        assert isinstance(both, instep.Combined)
        assert isinstance(both, Distributed)
        first = both.optimizers[0]
        for call in (
            lambda: first.step([np.ones(3)]),
            lambda: first.averaged().__enter__(),
            first.state_dict,
            lambda: first.load_state_dict({}),
            lambda: copy.deepcopy(first),
            lambda: pickle.dumps(both.optimizers[1]),
            lambda: first.add_param_group({"params": [np.ones(2)]}),
        ):
            with pytest.raises(TypeError, match="Distributed"):
                call()
        first.accumulate([np.ones(3)])
        first.lr = 0.25
        both.step()
        assert first.params["0"].tolist() == [1 - 0.25 * comm.size] * 3

    together(2, each)


def test_a_communicator_of_no_library() -> None:
    with pytest.raises(TypeError, match="comm must be an intracommunicator of mpi4py, a process"):
        Distributed(instep.SGD, np.ones(3), comm=None)
    with pytest.raises(TypeError, match="comm"):
        Distributed(instep.SGD, np.ones(3))  # type: ignore[call-arg]


def test_nothing_to_share_out() -> None:
    """Parameters without elements, or fewer of them than ranks."""

    def each(comm: Any) -> Any:
        found = []
        for given in ([np.zeros((0, 3))], {"a": np.ones(()), "b": np.zeros(0)}):
            optimizer = Distributed(
                instep.Adam, given, comm=comm, shard=True, clip_norm=1.0, lr=0.5
            )
            ones = {"a": 1.0, "b": None}
            optimizer.step(ones if isinstance(given, dict) and "a" in given else None)
            found.append((optimizer.step_count, optimizer.grad_norm, given))
        return found

    for found in together(4, each):
        assert [each[:2] for each in found] == [(1, 0.0), (1, 4.0)]
        np.testing.assert_allclose(found[1][2]["a"], 0.5)
