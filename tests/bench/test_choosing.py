"""docs/choosing.md: every rule is there, and its tables and figure come from bench/choosing.py."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from pathlib import Path

import bench_folder  # noqa: F401 - makes these modules importable
import pytest
from cases import ALL_OPTIMIZERS, one_element

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

choosing = importlib.import_module("choosing")

PAGE = choosing.PAGE.read_text(encoding="utf-8")
NAMES = sorted(rule.__name__ for rule in ALL_OPTIMIZERS)


def table(name: str, page: str = PAGE) -> list[list[str]]:
    """The cells of a table that the script writes."""
    found = page.partition(f"<!-- {name}: ")[2].partition(f"<!-- end of {name} -->")[0]
    lines = [line for line in found.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_rules_are_all_that_are_exported() -> None:
    assert sorted(choosing.RULES) == NAMES


@pytest.mark.parametrize("rule", ALL_OPTIMIZERS, ids=lambda rule: rule.__name__)
def test_the_page_has_every_rule(rule: type) -> None:
    name = rule.__name__
    states = rule(one_element(rule, "float32")).state["0"].values()
    lr = inspect.signature(rule).parameters["lr"].default
    row = rf"^\| `{name}` \| {sum(s.nbytes for s in states if s.ndim)} \| [^|]* \| {lr:g} \| "
    assert len(re.findall(row, PAGE, re.M)) == 1, "a row with the bytes and the default rate"
    assert f"`{name}`" in PAGE.partition("## The rules")[0] or name in NOT_BY_PROBLEM
    assert [f"`{name}`" in cells for cells in table("losses")].count(True) == 1


# Relatives of rules that the list of problems has.
NOT_BY_PROBLEM = ("RAdam", "Yogi", "ADOPT", "Adan")


def short() -> choosing.Problems:
    return choosing.Problems(*(p._replace(steps=3, seeds=1) for p in choosing.PROBLEMS))


def test_a_short_run_writes_the_page_and_the_figure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    choosing.write(page, short(), choosing.RULES)
    once = page.read_text(encoding="utf-8")
    for name in ("losses", "zeros", "asides"):
        assert len(table(name, once)) == len(table(name))
        assert table(name, once) != table(name)
    assert [cells[0] for cells in table("losses", once)] == [c[0] for c in table("losses")]
    assert (tmp_path / choosing.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert once.partition("<!-- losses")[0] == PAGE.partition("<!-- losses")[0]


def test_the_same_numbers_again() -> None:
    for problem in short():
        for name in ("Adam", "ASGD", "FTRL"):
            assert choosing.compare(problem, name) == choosing.compare(problem, name)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "LARS", "Lion", "Adagrad", "Rprop"])
def test_the_page_is_up_to_date(name: str) -> None:
    """Where every machine computes the same: rules without powers, and a problem without BLAS."""
    (row,) = (cells for cells in table("losses") if cells[0] == f"`{name}`")
    found = choosing.compare(choosing.PROBLEMS.rosenbrock, name)
    start = choosing.start_loss(choosing.PROBLEMS.rosenbrock)
    losses = [choosing.number(one.loss, start) for one in found]
    assert [cell.strip("*") for cell in row[1:3]] == losses
    assert row[3] == f"{found.best.lr:g}"


def test_five_rates_with_the_default() -> None:
    for name in choosing.RULES:
        assert len(set(choosing.rates(name))) == 5
        assert choosing.default_lr(name) in choosing.rates(name)


def test_gradients_are_those_of_the_loss() -> None:
    """By differences; the batch is all data."""
    np = choosing.np
    small = choosing.rosenbrock(0)
    whole = choosing.digits(0, whole=True)
    for run in (small, whole):
        grads = run.gradients()
        for name, w in run.params.items():
            before, loss = w.copy(), run.loss()
            np.subtract(w, 1e-7 * grads[name], out=w)
            decrease = (loss - run.loss()) / 1e-7
            assert decrease == pytest.approx(float(np.sum(grads[name] ** 2)), rel=1e-3), name
            w[...] = before


def test_the_gradient_of_the_sparse_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    np = choosing.np
    monkeypatch.setattr(choosing, "L1", 0.0)
    monkeypatch.setattr(choosing, "EXAMPLES", 64)
    choosing._clicks.cache_clear()
    run = choosing.sparse(0)
    (grad,) = run.gradients().values()
    loss = run.loss()
    run.params["w"] -= 1e-6 * grad
    assert (loss - run.loss()) / 1e-6 == pytest.approx(float(np.sum(grad**2)), rel=1e-3)
    choosing._clicks.cache_clear()


def test_losses_are_shown_as_digits_that_count() -> None:
    shown = {4.236: "4.24", 0.3904: "0.390", 0.0123: "0.012", 1.71e-5: "1.7e-05"}
    assert {loss: choosing.number(loss, 24.2) for loss in shown} == shown
    assert choosing.number(25.0, 24.2) == "higher"
    assert choosing.number(math.inf, 24.2) == "diverges"
    assert choosing.number(math.nan, 24.2) == "diverges"


def test_a_page_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the page must have one table 'losses', got 0"):
        importlib.import_module("tables").put("# A page\n", "losses", [("rule",), ("`SGD`",)])
