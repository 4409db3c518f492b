"""Arguments that differ between ranks, methods that ranks wouldn't call, and many parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adam_on_ranks import ODD, SIZE, gradients, made
from one_process import together

import instep
from instep.mpi import CommunicationError, Distributed, ranked, storing

pytest.importorskip("safetensors")


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("name", "own", "told"),
    [
        ("via", "root", "via, got 'auto' on rank 0, 'root' on rank 1"),
        ("default", None, "default, got none on rank 0, one on rank 1"),
        ("scaler", instep.LossScaler, "scaler, got none on rank 0, one on rank 1"),
    ],
)
def test_load_with_another_argument_on_one_rank(
    name: str, own: Any, told: str, there: bool, tmp_path: Path
) -> None:
    """All raise the same, and go on together."""
    path = tmp_path / "run"

    def each(comm: Any) -> None:
        optimizer = made(comm)
        if there:
            optimizer.save(path)
        optimizer.step(gradients(0, comm.rank))
        given = {} if name == "default" else {"default": 3}
        if comm.rank == ODD:
            given[name] = own() if callable(own) else own
        with pytest.raises(ValueError, match=re.escape(told)):
            optimizer.load(path, **given)
        optimizer.step(gradients(1, comm.rank))
        assert optimizer.step_count == 2

    together(SIZE, each)


def test_a_file_that_can_not_be_looked_at_is_not_absent(tmp_path: Path) -> None:
    """The default would begin the run anew, and its next save replace the file."""
    (tmp_path / "no folder").touch()

    def each(comm: Any) -> None:
        optimizer = made(comm)
        for path in (tmp_path / "no folder" / "run", tmp_path / ("x" * 300)):
            with pytest.raises(OSError, match=r"\[Errno "):
                optimizer.load(path, default=3)
        assert optimizer.load(tmp_path / "run", default=3) == 3
        optimizer.step(gradients(0, comm.rank))

    together(2, each)


@pytest.mark.parametrize("call", ["save", "load"])
def test_a_file_after_the_end(call: str, tmp_path: Path) -> None:
    """Such a call says what has ended, and doesn't make it a fault in the middle of a step."""

    def each(comm: Any) -> None:
        optimizer = made(comm)
        if comm.rank == ODD:
            with pytest.raises(CommunicationError, match="has left after step 0"):
                optimizer.close()
            said = "the Distributed is closed"
        else:
            said = "rank 1 has left after step 0"
            with pytest.raises(CommunicationError, match=said):
                optimizer.step(gradients(0, comm.rank))
        for method in (getattr(optimizer, call), getattr(optimizer, call)):
            with pytest.raises(CommunicationError, match=said):
                method(tmp_path / "run")
        assert not optimizer._job.seat.broken  # at the interpreter's end, this would end the job
        optimizer.close()

    together(SIZE, each)


def test_a_method_that_ranks_would_not_call() -> None:
    class Halved(instep.SGD):
        def step(self, grads: Any = None, *, grad_scale: float | None = None) -> None:
            super().step(grads, grad_scale=0.5)

    def each(comm: Any) -> None:
        with pytest.raises(
            TypeError, match="with the step of instep, got one of its own in Halved"
        ):
            Distributed(Halved, np.ones(3), comm=comm, lr=0.1)

    together(2, each)


def test_many_parameters_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What state_dict and load_state_dict do grows with the number of parameters, not its square."""
    looks: list[str] = []

    class Counted(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            looks.append("parts")
            return super().__iter__()

    def states(plan: Any) -> Any:
        looks.append("states")
        return plan.inner.states

    parts_of = storing.parts_of
    monkeypatch.setattr(ranked.RankedPlan, "states", property(states))
    monkeypatch.setattr(storing, "parts_of", lambda *given: Counted(parts_of(*given)))

    def each(comm: Any) -> None:
        params = [np.ones(3) for _ in range(50)]
        optimizer = Distributed(instep.Adam, params, comm=comm, lr=0.1, shard=True)
        optimizer.load_state_dict(optimizer.state_dict())

    together(2, each)
    assert {"parts", "states"} == set(looks)
    assert len(looks) < 50
