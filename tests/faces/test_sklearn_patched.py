"""`patched` puts the names back whatever happens; estimators that it has trained go on anywhere."""

from __future__ import annotations

import copy
import dis
import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from interpreters import python
from interrupted import traced

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'instep[sklearn]'"
)

import joblib
from perceptrons import SMALL, both, by_fit, by_parts, data, made_by, trained, unequal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, _multilayer_perceptron
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

import instep
from instep.sklearn import patched

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

THEIRS, OURS = (AdamOptimizer, SGDOptimizer), (instep.sklearn.Adam, instep.sklearn.SGD)


def names() -> tuple[Any, Any]:
    return _multilayer_perceptron.AdamOptimizer, _multilayer_perceptron.SGDOptimizer


# --- The names


def test_a_block_in_a_block() -> None:
    block = patched()
    with block:
        assert names() == OURS
        with block, patched():
            assert names() == OURS
        assert names() == OURS
    assert names() == THEIRS


def test_a_block_that_raises() -> None:
    with pytest.raises(KeyError), patched(), patched():  # noqa: PT012 - two blocks end
        assert names() == OURS
        raise KeyError
    assert names() == THEIRS


def test_a_function() -> None:
    @patched()
    def called(depth: int) -> list[Any]:
        return [names(), *(called(depth - 1) if depth else [])]

    assert called(2) == [OURS] * 3
    assert names() == THEIRS


def interrupted_after_a_call(number: int, action: Callable[[], Any]) -> bool:
    """Raise KeyboardInterrupt where Python looks for signals: after this call that patch.py makes.

    Return whether it came to this call.
    """
    calls, after_call = 0, False

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal calls, after_call
        if not frame.f_code.co_filename.endswith("sklearn/patch.py"):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            if after_call:
                calls += 1
                if calls == number:
                    raise KeyboardInterrupt
            after_call = dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("CALL")
        return trace

    traced(action, trace)
    return calls >= number


def test_ctrl_c_leaves_no_block_open() -> None:
    def block() -> None:
        with patched():
            pass

    interrupts = 0
    while interrupted_after_a_call(interrupts + 1, block):
        interrupts += 1
        assert names() == THEIRS
        assert patched._blocks == 0
    assert interrupts > 3


def test_ctrl_c_while_another_thread_has_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        """A lock that is waited for until a Ctrl-C comes."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        def __exit__(self, *exception: object) -> None:
            pytest.fail("was never entered")

    with pytest.raises(KeyboardInterrupt), patched():
        monkeypatch.setattr(patched, "_lock", Interrupted())
    assert names() == THEIRS
    assert patched._blocks == 0


def test_what_another_library_put_there_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(AdamOptimizer):
        pass

    monkeypatch.setattr(_multilayer_perceptron, "AdamOptimizer", Other)
    with patched():
        assert names() == OURS
    assert names() == (Other, SGDOptimizer)


def test_threads() -> None:
    """Blocks of one thread begin and end inside those of others."""
    wrong: list[Any] = []
    begin = threading.Barrier(4)

    def run() -> None:
        begin.wait()
        for _ in range(2000):
            with patched():
                if names() != OURS:
                    wrong.append(names())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert names() == THEIRS


# --- Pickles and copies


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_pickle_has_what_scikit_learns_has(solver: str) -> None:
    theirs, ours = both(by_parts, MLPClassifier, solver=solver)
    state = ours._optimizer.__getstate__()
    assert set(state) == set(vars(theirs._optimizer))
    sizes = [len(pickle.dumps(mlp)) for mlp in (theirs, ours)]
    assert abs(sizes[1] - sizes[0]) < 100, "parameters, or arrays twice"


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("first", [nullcontext, patched])
def test_training_goes_on_inside_and_outside(first: Any, solver: str) -> None:
    other = patched if first is nullcontext else nullcontext
    settings = {"solver": solver, "learning_rate": "invscaling"}
    expected = by_parts(trained(by_parts, MLPClassifier, **settings), nullcontext)
    found = trained(by_parts, MLPClassifier, first, **settings)
    made = type(found._optimizer)
    found = by_parts(pickle.loads(pickle.dumps(found)), other)
    assert unequal(expected, found) == []
    assert type(found._optimizer) is made
    assert made in (THEIRS if first is nullcontext else OURS)


GO_ON = """
import pickle, sys
from sklearn.neural_network import _multilayer_perceptron
with open(sys.argv[1], "rb") as file:
    mlp, X, y = pickle.load(file)
mlp.partial_fit(X, y)
assert _multilayer_perceptron.AdamOptimizer.__module__.startswith("sklearn.")
print(mlp._optimizer.t, float(mlp.loss_).hex())
"""


def test_training_goes_on_in_another_process(tmp_path: Path) -> None:
    X, y = data(MLPClassifier)
    theirs, ours = both(by_parts, MLPClassifier)
    path = tmp_path / "mlp.pickle"
    path.write_bytes(pickle.dumps((ours, X, y)))
    done = python("-c", GO_ON, path)
    assert done.returncode == 0, done.stderr
    theirs.partial_fit(X, y)
    assert done.stdout.split() == [str(theirs._optimizer.t), float(theirs.loss_).hex()]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_copy_of_an_optimizer_has_moments_of_its_own(solver: str, copied: Any) -> None:
    ours = trained(by_parts, MLPClassifier, patched, solver=solver)
    twin = copied(ours._optimizer)
    before = pickle.dumps(twin)
    by_parts(ours, nullcontext)
    assert pickle.dumps(twin) == before != pickle.dumps(ours._optimizer)


def test_what_is_set_is_copied_and_gone_on_with() -> None:
    theirs, ours = both(by_parts, MLPClassifier)
    for mlp in (theirs, ours):
        mlp._optimizer.t = 5
        by_parts(mlp, nullcontext)
        moments = [np.abs(m) + 1 for m in mlp._optimizer.ms]
        mlp._optimizer.ms = moments
        by_parts(mlp, nullcontext)
        assert all(np.min(m) >= 1 for m in moments)
    assert unequal(theirs, ours) == []


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_pickles(mode: str, tmp_path: Path) -> None:
    X, y = data(MLPClassifier)
    theirs, ours = both(by_parts, MLPClassifier)
    joblib.dump(ours, tmp_path / "mlp.joblib")
    mapped = joblib.load(tmp_path / "mlp.joblib", mmap_mode=mode)
    if mode == "c":
        assert unequal(theirs.partial_fit(X, y), mapped.partial_fit(X, y)) == []
    else:
        with pytest.raises(ValueError, match=r"^parameter 'coefs_\[0\]' must be writeable.*$"):
            mapped.partial_fit(X, y)
        mapped.coefs_ = [w.copy() for w in mapped.coefs_]
        mapped.intercepts_ = [b.copy() for b in mapped.intercepts_]
        assert unequal(theirs.partial_fit(X, y), mapped.partial_fit(X, y)) == []


# --- scikit-learn's own tools


def test_clones_are_not_fitted() -> None:
    ours = trained(by_fit, MLPClassifier, patched)
    assert not hasattr(clone(ours), "_optimizer")
    assert unequal(trained(by_fit, MLPClassifier), by_fit(clone(ours), patched)) == []


INITIALIZERS = pytest.mark.skipif(
    int(joblib.__version__.split(".")[1]) < 5, reason="joblib passes initializers on from 1.5 on"
)
BACKENDS = ["threading", "loky", pytest.param("loky, in the workers too", marks=INITIALIZERS)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_grid_search(backend: str) -> None:
    X, y = data(MLPClassifier)

    def search() -> Any:
        grid = {"learning_rate_init": [1e-2, 1e-3], "solver": ["adam", "sgd"]}
        return GridSearchCV(MLPClassifier(**SMALL), grid, n_jobs=2, cv=2).fit(X, y)

    expected = search()
    more = {"initializer": patched().__enter__} if "," in backend else {}
    with patched(), joblib.parallel_config(backend.partition(",")[0], **more):
        found = search()
    scores = [one.cv_results_["mean_test_score"] for one in (expected, found)]
    assert np.array_equal(*scores)
    assert isinstance(found.best_estimator_._optimizer, OURS)
    assert unequal(expected.best_estimator_, found.best_estimator_) == []


@INITIALIZERS
def test_workers_of_joblib_are_patched_by_an_initializer() -> None:
    with joblib.parallel_config("loky", n_jobs=2, initializer=patched().__enter__):
        made = joblib.Parallel()(joblib.delayed(made_by)() for _ in range(4))
    assert made == ["instep.sklearn"] * 4
