"""The programs of other libraries in bench/hosts/ run, and compare what they say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_folder import BENCH

sys.path.append(str(BENCH / "hosts"))


@pytest.fixture
def sklearn_fit() -> Any:
    pytest.importorskip(
        "sklearn", reason="scikit-learn is not installed: pip install 'instep[sklearn]'"
    )
    return importlib.import_module("sklearn_fit")


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_who_fits_in_scikit_learn(sklearn_fit: Any, solver: str) -> None:
    fits = sklearn_fit.contestants(500, solver, "float64", (5,))
    theirs, ours, without = (fits[label](3) for label in ("scikit-learn", "instep", "no step"))
    assert theirs.n_iter_ == ours.n_iter_ == without.n_iter_ == 3
    made = [type(mlp._optimizer).__module__ for mlp in (theirs, ours, without)]
    assert made == [
        "sklearn.neural_network._stochastic_optimizers",
        "instep.sklearn",
        "sklearn_fit",
    ]
    assert theirs.loss_curve_ == ours.loss_curve_
    assert theirs.loss_curve_[2] < without.loss_curve_[2]
    assert all(np.array_equal(a, b) for a, b in zip(theirs.coefs_, ours.coefs_, strict=True))


def test_the_table_of_scikit_learn(
    sklearn_fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sklearn_fit, "TURN", 1e-9)
    options = ["--batch", "900", "--hidden", "3", "--seconds", "0.001", "--json"]
    monkeypatch.setattr(sys, "argv", ["sklearn_fit.py", *options, str(tmp_path / "found.json")])
    sklearn_fit.main()
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    names = [f"{s}, {d}, batch 900" for d in ("float64", "float32") for s in ("adam", "sgd")]
    assert list(found["rows"]) == names
    assert all(name in told for name in [*names, "times as fast", "cpu: ", "scikit-learn: "])
    for row in found["rows"].values():
        assert row["epochs"] == 1
        assert row["rounds"] >= 7
        assert min(row["an epoch"].values()) > 0
        assert row["times as fast"] > 0
