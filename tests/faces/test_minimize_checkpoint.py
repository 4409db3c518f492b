"""Runs of instep.minimize in checkpoints: interrupted anywhere, they go on to the same bits."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from cases import OPTIMIZERS
from interpreters import UNMEASURED, python
from interrupted import traced

import instep
from instep import checkpoint, schedules
from instep.checkpoint import CheckpointError

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed: instep[scipy]")
pytest.importorskip("safetensors", reason="safetensors is not installed: instep[checkpoint]")
methods = instep.minimize
START = np.array([-1.0, 1.5, 0.3])


def run(name: str = "adam", **more: Any) -> Any:
    given = {"jac": optimize.rosen_der, "maxiter": 40, "checkpoint_interval": 0, **more}
    given.setdefault("lr", 1e-3)
    return methods.__dict__[name](given.pop("fun", optimize.rosen), given.pop("x0", START), **given)


def same(found: Any, expected: Any) -> bool:
    """Whether two results are the same, to the bit."""
    assert found.keys() == expected.keys()
    return all(
        np.asarray(found[key]).tobytes() == np.asarray(expected[key]).tobytes()
        for key in found
        if key != "message"
    )


class Cut:
    """A function that ends the run at its n-th call, once."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = at, error

    def __call__(self, x: np.ndarray) -> Any:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return optimize.rosen(x)


@pytest.mark.parametrize("name", sorted(rule.__name__.lower() for rule in OPTIMIZERS))
def test_every_rule_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = run(name)
    with pytest.raises(KeyboardInterrupt):
        run(name, fun=Cut(17), checkpoint=path)
    assert not same(run(name, maxiter=16), whole)
    found = run(name, checkpoint=path)
    assert same(found, whole)
    assert same(run(name, checkpoint=path), whole)  # ended already: the same result, and no step


@pytest.mark.parametrize("more", [{"ema_decay": 0.9}, {"jac": None}, {"x0": START.astype("f4")}])
def test_averages_differences_and_float32_go_on_to_the_same_bits(
    more: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        run(fun=Cut(13, ZeroDivisionError), checkpoint=tmp_path / "run", **more)
    assert same(run(checkpoint=tmp_path / "run", **more), run(**more))


@pytest.mark.parametrize("interval", [0, 1e9])
def test_a_run_goes_on_without_the_calls_of_before(interval: float, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(fun=Cut(30), checkpoint=path, checkpoint_interval=interval)
    seen: list[Any] = []
    run(checkpoint=path, callback=seen.append)
    assert len(seen) == 12  # of the steps from 29 on


def test_an_interval_saves_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: (saves.append(a[0]), save(*a)))
    run(checkpoint=tmp_path / "run", maxiter=10)
    assert len(saves) == 11
    saves.clear()
    run(checkpoint=tmp_path / "other", maxiter=10, checkpoint_interval=1e9)
    assert len(saves) == 2  # at the start and at the end


def test_more_steps_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert same(run(checkpoint=path, maxiter=20), run(maxiter=20))
    assert same(run(checkpoint=path), run())
    assert same(run(checkpoint=path, maxiter=3), run())  # fewer: the run is past them


def test_the_hyperparameters_are_those_of_the_call(tmp_path: Path) -> None:
    lr = schedules.CosineDecay(0.01, steps=40)
    run(checkpoint=tmp_path / "run", maxiter=20, lr=0.01)
    found = run(checkpoint=tmp_path / "run", lr=lr, betas=(0.8, 0.99))
    w = START.copy()
    opt = instep.Adam(w, lr=0.01)
    points = [w.copy()]
    for k in range(40):
        if k == 20:
            opt.lr, opt.betas = lr, (0.8, 0.99)
        opt.step(optimize.rosen_der(w))
        points.append(w.copy())
    best = min(points, key=optimize.rosen)
    assert found.x.tobytes() == best.tobytes()


def test_a_plateau_goes_on(tmp_path: Path) -> None:
    def with_plateau(**more: Any) -> Any:
        lr = schedules.ReduceOnPlateau(0.5, factor=0.5, patience=0)

        def observe(intermediate_result: Any) -> None:
            lr.observe(intermediate_result.fun)

        found = run("signum", lr=lr, callback=observe, **more)
        return found, lr(0)

    whole, last = with_plateau()
    assert last < 0.01
    with pytest.raises(KeyboardInterrupt):
        with_plateau(fun=Cut(17), checkpoint=tmp_path / "run")
    found, lr = with_plateau(checkpoint=tmp_path / "run")
    assert same(found, whole)
    assert lr == last


def interrupted_in_the_loop(at: int, action: Callable[[], Any]) -> int:
    """Raise KeyboardInterrupt before a bytecode of the loop, if it comes to this; return how many have run."""
    done = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal done
        if not frame.f_code.co_filename.endswith("minimize/run.py"):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            done += 1
            if done == at:
                raise KeyboardInterrupt
        return trace

    traced(action, trace)
    return done


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}])
def test_ctrl_c_anywhere_in_the_loop_goes_on_to_the_same_bits(
    more: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    more = {"maxiter": 2, "checkpoint_interval": 1e9, "callback": lambda x: None, **more}
    whole = run(**more)
    count = interrupted_in_the_loop(0, lambda: run(**more, checkpoint=path))
    assert count > 300
    for at in range(1, count, 3):
        path.unlink(missing_ok=True)
        interrupted_in_the_loop(at, lambda: run(**more, checkpoint=path))
        assert same(run(**more, checkpoint=path), whole)


def test_a_signal_in_another_program(tmp_path: Path) -> None:
    program = """
import os, signal
import instep
from scipy.optimize import minimize, rosen, rosen_der

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell has set

def fun(x):
    fun.calls += 1
    if fun.calls == 500:
        os.kill(os.getpid(), signal.SIGINT)
    return rosen(x)

fun.calls = 0
try:
    minimize(fun, [-1.0, 1.5, 0.3], jac=rosen_der, method=instep.minimize.adam,
             options=dict(maxiter=1000, checkpoint="run"))
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python("-W", "error", "-c", program, folder=tmp_path, **UNMEASURED)
    assert done.stdout == "interrupted\n", done.stderr
    whole = run(maxiter=1000)
    assert same(run(maxiter=1000, checkpoint=tmp_path / "run"), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- refused ----------------------------------------------------------------------------------------


def test_a_run_from_another_x0_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"must be of a run from this x0, .*; remove the file"
    ):
        run(checkpoint=path, x0=START + 1)
    for other in (
        {"x0": START[:2]},
        {"x0": START.astype("f4")},
        {"name": "sgd"},
        {"amsgrad": True},
    ):
        with pytest.raises(CheckpointError, match=r"^\S+run: "):
            run(checkpoint=path, **other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("extra", [None, {"epoch": 1}, [], {"minimize": 3}, {"minimize": {}}])
def test_a_checkpoint_of_another_program(extra: Any, tmp_path: Path) -> None:
    path = tmp_path / "run"
    checkpoint.save(path, instep.Adam(START.copy()), extra)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"must be of a run of instep\.minimize, got another"):
        run(checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"nit": "2"},
        {"nit": 10**18},
        {"nit": -1},
        {"nfev": 1.5},
        {"fun": None},
        {"jac": None},
        {"jac": np.ones(4)},
        {"best": 3},
        {"best": {}},
        {"best": {"x": np.ones(4), "fun": 1.0, "jac": np.ones(3)}},
        {"best": {"x": np.ones(3), "fun": "1", "jac": np.ones(3)}},
    ],
    ids=str,
)
def test_numbers_that_no_run_has_stored(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(checkpoint=path, maxiter=2)
    optimizer = instep.Adam(START.copy())
    extra = checkpoint.load(path, optimizer)
    extra["minimize"].update(change)
    checkpoint.save(path, optimizer, extra)
    with pytest.raises(CheckpointError, match=r"must be of a run of instep\.minimize, got another"):
        run(checkpoint=path)


def test_a_damaged_file_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError):
        run(checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == b"nonsense"
    calls: list[Any] = []
    with pytest.raises(FileNotFoundError):
        run(checkpoint=tmp_path / "none" / "run", callback=calls.append)
    assert not calls  # before the first step


def test_an_error_counts_more_than_a_save_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def fun(x: np.ndarray) -> Any:
        if not np.array_equal(x, START):
            shutil.rmtree(folder)
            raise ZeroDivisionError
        return optimize.rosen(x)

    with pytest.raises(ZeroDivisionError):
        run(fun=fun, checkpoint=folder / "run")
