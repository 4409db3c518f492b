"""What can go wrong with states in files (docs/faults.md, docs/state-storage.md)."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CHUNK
from interpreters import environment, python
from snapshots import bits
from stored import output_of

import instep
from instep import _core, checkpoint, interop

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="refused on Windows")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SIZE = 40 * CHUNK + 7
HALF = "half a step is in .*; resume from a checkpoint"


@pytest.fixture(autouse=True)
def _small_windows() -> Iterator[None]:
    _core.testing.set_window_bytes(1 << 18)
    yield
    _core.testing.fail_file_calls_after(-1)


@pytest.fixture
def optimizer(tmp_path: Path) -> Any:
    made = instep.Adam(np.ones(SIZE, np.float32), state_storage=tmp_path / "states")
    made.step(grad(1))
    return made


def grad(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)


def plain_after(*seeds: int) -> Any:
    plain = instep.Adam(np.ones(SIZE, np.float32))
    for seed in seeds:
        plain.step(grad(seed))
    return plain


# ---- errors of the disk --------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 20, 50])
def test_an_error_in_the_middle_of_a_step(optimizer: Any, tmp_path: Path, calls: int) -> None:
    path = tmp_path / "run"
    checkpoint.save(path, optimizer)
    before = bits(optimizer)
    _core.testing.fail_file_calls_after(calls)
    with pytest.raises(OSError, match=r"\[Errno 5\] .*; .*: '.*'") as caught:
        optimizer.step(grad(2))
    _core.testing.fail_file_calls_after(-1)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "states") in caught.value.filename
    assert optimizer.step_count == 1
    if "nothing has changed" in str(caught.value):
        assert bits(optimizer) == before
    else:
        assert HALF.partition(" is")[0] in str(caught.value)
        for refused in (
            lambda: optimizer.step(grad(2)),
            lambda: interop.to_torch_state_dict(optimizer),
            optimizer.state_dict,
            lambda: checkpoint.save(path, optimizer),
        ):
            with pytest.raises(RuntimeError, match=HALF):
                refused()
        checkpoint.load(path, optimizer)
        assert bits(optimizer) == before
    optimizer.step(grad(2))
    assert bits(optimizer) == bits(plain_after(1, 2))


def test_both_kinds_of_errors_were_tried(optimizer: Any) -> None:
    """The first read of a step finds nothing changed, a later one half a step."""
    messages = []
    for calls in (0, 20):
        state, weights = optimizer.state_dict(), optimizer.params["0"].copy()
        _core.testing.fail_file_calls_after(calls)
        with pytest.raises(OSError, match="Errno 5") as caught:
            optimizer.step(grad(2))
        _core.testing.fail_file_calls_after(-1)
        messages.append(str(caught.value))
        optimizer.load_state_dict(state)
        optimizer.params["0"][...] = weights
    assert "nothing has changed" in messages[0]
    assert "half a step is in" in messages[1]


def test_an_error_in_the_sums_changes_nothing(tmp_path: Path) -> None:
    optimizer = instep.LAMB(np.ones(SIZE), state_storage=tmp_path)
    optimizer.step(grad(1))
    before = bits(optimizer)
    _core.testing.fail_file_calls_after(3)
    with pytest.raises(OSError, match="nothing has changed"):
        optimizer.step(grad(2))
    _core.testing.fail_file_calls_after(-1)
    assert bits(optimizer) == before
    optimizer.step(grad(2))


def test_an_error_in_a_load(optimizer: Any, tmp_path: Path) -> None:
    state = plain_after(3).state_dict()
    _core.testing.fail_file_calls_after(2)
    with pytest.raises(OSError, match=r"Errno 5.*half a load is in"):
        optimizer.load_state_dict(state)
    _core.testing.fail_file_calls_after(-1)
    with pytest.raises(RuntimeError, match=r"half a load is in .*; resume from a checkpoint"):
        optimizer.step(grad(2))
    optimizer.load_state_dict(state)
    optimizer.step(grad(2))


def test_an_error_in_one_of_a_combined(tmp_path: Path) -> None:
    def made() -> instep.Combined:
        return instep.Combined(
            instep.Adam({"a": np.ones(SIZE)}),
            instep.Adam({"b": np.ones(SIZE)}, state_storage=tmp_path / "b"),
            instep.Adam({"c": np.ones(SIZE)}, state_storage=tmp_path / "c"),
        )

    combined = made()
    grads = {name: grad(1) for name in "abc"}
    combined.step(grads)
    state, plain = combined.state_dict(), combined.params["a"].copy()
    _core.testing.fail_file_calls_after(160)  # in the third, as the second makes fewer calls
    with pytest.raises(OSError, match=HALF):
        combined.step(grads)
    _core.testing.fail_file_calls_after(-1)
    counts = [one.step_count for one in combined.optimizers]
    assert counts == [1, 1, 1]
    assert combined.params["a"].tobytes() == plain.tobytes()  # those that can't fail come last
    with pytest.raises(RuntimeError, match=HALF):
        combined.step(grads)
    for name, one in zip("bc", combined.optimizers[1:], strict=True):
        with pytest.raises(RuntimeError, match=HALF):
            one.step({name: grads[name]})
    combined.load_state_dict(state)
    combined.step(grads)


def test_a_file_that_becomes_shorter(optimizer: Any, tmp_path: Path) -> None:
    os.truncate(tmp_path / "states" / "instep-0-exp_avg.states", 1 << 17)
    before = optimizer.params["0"].copy()
    with pytest.raises(OSError, match=r"Errno 5.*another program has shortened the file"):
        optimizer.step(grad(2))
    assert optimizer.params["0"].tobytes() == before.tobytes()


def test_files_that_are_deleted_are_still_the_optimizers(optimizer: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "states").iterdir():
        path.unlink()
    (tmp_path / "states").rmdir()
    optimizer.step(grad(2))
    assert bits(optimizer) == bits(plain_after(1, 2))
    other = instep.Adam(np.ones(SIZE), state_storage=tmp_path / "states")
    del optimizer
    other.step(grad(1))
    assert len(list((tmp_path / "states").iterdir())) == 3


# ---- a folder that can't be used -----------------------------------------------------------------


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            instep.Adam(np.ones(3), state_storage=path)
    assert (tmp_path / "file").read_text() == "mine"
    if Path("/proc/self").exists():  # where not even root can make a folder
        with pytest.raises(OSError, match="/proc/instep"):
            instep.Adam(np.ones(3), state_storage="/proc/instep/states")


@pytest.mark.skipif("os.geteuid() == 0", reason="root may write everywhere")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        instep.Adam(np.ones(3), state_storage=tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit of a file's size stands for a full disk: the first file fits, the second doesn't."""
    text = """
        import resource, sys, numpy as np, instep
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        small, large = np.ones(60_000, np.float32), np.ones(200_000, np.float32)
        try:
            instep.Adam(large, state_storage=sys.argv[1] + "/made/for/it")
        except OSError as error:
            print(error)
        optimizer = instep.Adam(small, state_storage=sys.argv[1])
        try:
            optimizer.add_param_group({"params": [large]})
        except OSError as error:
            print(error.filename)
        optimizer.step(np.ones(60_000, np.float32))
        import os; print(sorted(os.listdir(sys.argv[1])))
    """
    said = output_of(text, tmp_path)
    first, second, names = said.splitlines()
    assert first.startswith("[Errno 27]")
    assert "the states need 800064 bytes here" in first
    assert str(tmp_path / "made" / "for" / "it") in first
    assert second.startswith(str(tmp_path))
    assert names == "['instep-0-exp_avg.states', 'instep-1-exp_avg_sq.states', 'instep.lock']"


def test_an_optimizer_that_can_not_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    w = np.ones(3)
    for params in ([w, w], [np.ones(2, int)], [np.ones((2, 2)), np.broadcast_to(0.0, 3)]):
        with pytest.raises((TypeError, ValueError)) as caught:
            instep.Adam(params, state_storage=tmp_path / "a" / "b")
        assert list(tmp_path.iterdir()) == []
        del caught
    instep.Adam(w, state_storage=tmp_path / "a" / "b")


# ---- who else uses it ----------------------------------------------------------------------------


def test_another_optimizer_in_the_folder_is_refused(optimizer: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a folder of this optimizer alone, got one that another"):
        instep.SGD(np.ones(3), state_storage=tmp_path / "states")
    text = "import sys, numpy as np, instep; instep.Adam(np.ones(3), state_storage=sys.argv[1])"
    done = python("-c", text, tmp_path / "states")
    assert "got one that another optimizer uses, in this or another process" in done.stderr
    optimizer.step(grad(2))
    assert bits(optimizer) == bits(plain_after(1, 2))


def test_a_lost_optimizer_in_a_cycle_does_not_keep_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        cycle: list[Any] = [instep.Adam(np.ones(3), state_storage=tmp_path)]
        cycle.append(cycle)
        del cycle
    assert (tmp_path / "instep.lock").exists()


def test_lost_optimizers_in_cycles_of_two_threads(tmp_path: Path) -> None:
    """Each thread waits for the collection of the other, in which its own would do nothing."""

    class Slow:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            time.sleep(0.1)

    def again(folder: Path) -> int:
        return instep.Adam(np.ones(3), state_storage=folder).step_count

    folders = [tmp_path / name for name in "ab"]
    gc.collect()
    gc.disable()
    try:
        Slow()
        for folder in folders:
            cycle: list[Any] = [instep.Adam(np.ones(3), state_storage=folder)]
            cycle.append(cycle)
        del cycle
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(again, folders)) == [0, 0]
    finally:
        gc.enable()


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_and_takes_nothing_away(optimizer: Any, tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        calls: list[Callable[[], Any]] = [
            lambda: optimizer.step(grad(2)),
            lambda: optimizer.load_state_dict(plain_after(3).state_dict()),
            lambda: optimizer.add_param_group({"params": [np.ones(2)]}),
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                said.append(str(error))
        del optimizer, calls
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    assert len(lines) == 3
    assert all("must stay in the process that made it" in line for line in lines)
    assert len(list((tmp_path / "states").iterdir())) == 3
    optimizer.step(grad(2))
    assert bits(optimizer) == bits(plain_after(1, 2))


# ---- a killed process ----------------------------------------------------------------------------

KILLED = """
    import sys, numpy as np, instep
    from instep import _core, checkpoint
    _core.testing.set_window_bytes(1 << 18)
    size = 4_000_000
    weights = np.memmap(sys.argv[1] + "/weights", np.float32, "w+", shape=size)
    optimizer = instep.Adam(weights, state_storage=sys.argv[1] + "/states")
    grad = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    optimizer.step(grad)
    checkpoint.save(sys.argv[1] + "/run", optimizer)
    print("ready", flush=True)
    while True:
        optimizer.step(grad)
"""


def test_kill_in_the_middle_of_a_step(tmp_path: Path) -> None:
    lock = tmp_path / "states" / "instep.lock"
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
            env=environment(), stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        mark = lock.read_bytes()
        if mark.startswith(b"half"):
            break
    assert mark.startswith(b"half a step, number ")
    weights = np.memmap(tmp_path / "weights", np.float32, "r+")
    message = "has half a step of a run that ended in the middle"
    with pytest.warns(RuntimeWarning, match=message) as told:
        optimizer = instep.Adam(weights, state_storage=tmp_path / "states")
    assert told[0].filename == __file__
    assert not optimizer.state["0"]["exp_avg"].any()
    checkpoint.load(tmp_path / "run", optimizer)
    plain = instep.Adam(np.zeros(weights.size, np.float32))
    checkpoint.load(tmp_path / "run", plain)
    for one in (optimizer, plain):
        one.step(np.ones(weights.size, np.float32))
    assert bits(optimizer) == bits(plain)


def test_ctrl_c_during_a_step(tmp_path: Path) -> None:
    """It waits until the step is done; the thread for input and output gets no signals."""
    text = """
        import os, signal, sys, threading, numpy as np, instep
        from instep import _core
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell has set
        _core.testing.set_window_bytes(1 << 18)
        size = 4_000_000
        optimizer = instep.Adam(np.ones(size, np.float32), state_storage=sys.argv[1])
        plain = instep.Adam(np.ones(size, np.float32))
        grad = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        caught = 0
        for _ in range(5):
            timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                optimizer.step(grad)
                timer.join()
            except KeyboardInterrupt:
                caught += 1
        while plain.step_count < optimizer.step_count:
            plain.step(grad)
        assert optimizer.params["0"].tobytes() == plain.params["0"].tobytes()
        assert optimizer.state["0"]["exp_avg"].tobytes() == plain.state["0"]["exp_avg"].tobytes()
        print(caught)
    """
    said = output_of(text, tmp_path)
    assert int(said) == 5
