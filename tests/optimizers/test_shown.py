"""What `repr` and notebooks show of an optimizer: at any time, and without an error."""

from __future__ import annotations

import copy
import threading
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import instep
from instep import schedules
from instep.optimizers.settings import Settings


class Tables(HTMLParser):
    """The cells of each table, by row, and the text outside; every tag must be closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.outside = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in ("div", "strong", "table", "thead", "tbody", "tr", "th", "td")
        assert attrs == []
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "table" in self._open:
            self.tables[-1][-1][-1] += data
        else:
            self.outside += data


def shown(optimizer: Any) -> tuple[str, list[list[str]], list[list[str]]]:
    tables = Tables(optimizer._repr_html_())
    hyperparameters, parameters = tables.tables
    return tables.outside, hyperparameters, parameters


def test_tables_of_one_group() -> None:
    params = {"w": np.ones((3, 2), np.float32), "b": np.ones(2)}
    optimizer = instep.SGD(params, lr=schedules.Constant(0.5), clip_norm=2.0, state_dtype="f2")
    optimizer.step({"w": None, "b": np.ones(2)})
    outside, hyperparameters, parameters = shown(optimizer)
    assert outside == "SGD (parameters: 2, elements: 8, step_count: 1)"
    assert hyperparameters[:2] == [["hyperparameter", "value"], ["lr", "Constant(value=0.5)"]]
    assert hyperparameters[-2:] == [["clip_norm", "2.0"], ["state_dtype", "'float16'"]]
    assert [row[0] for row in hyperparameters[1:-2]] == list(optimizer.param_groups[0])[1:]
    assert parameters == [
        ["parameter", "shape", "dtype"],
        ["w", "(3, 2)", "float32"],
        ["b", "(2,)", "float64"],
    ]


def test_tables_of_several_groups() -> None:
    optimizer = instep.Adam([{"params": np.ones(2)}, {"params": np.ones(3), "l1": 0.5}])
    outside, hyperparameters, parameters = shown(optimizer)
    assert outside == "Adam (parameters: 2, groups: 2, elements: 5, step_count: 0)"
    assert hyperparameters[0] == ["hyperparameter", "group 0", "group 1"]
    assert ["l1", "0.0", "0.5"] in hyperparameters
    assert parameters[1:] == [["0", "(2,)", "float64"], ["1", "(3,)", "float64"]]


def test_long_tables_are_cut() -> None:
    many = instep.SGD([{"params": np.ones(1000)} for _ in range(1010)])
    outside, hyperparameters, parameters = shown(many)
    assert "elements: 1,010,000" in outside
    assert hyperparameters[0] == [
        "hyperparameter",
        *map("group {}".format, range(10)),
        "and 1,000 more",
    ]
    assert parameters[-2:] == [["9", "(1000,)", "float64"], ["and 1,000 more"]]
    assert len(parameters) == 1 + 10 + 1
    assert len(shown(instep.SGD([np.ones(1) for _ in range(10)]))[2]) == 1 + 10


class Tagged:
    """A schedule whose text would be read as HTML."""

    def __call__(self, step: int) -> float:
        return 0.5

    def __repr__(self) -> str:
        return "<script>alert('&amp;')</script>"


def test_names_and_values_are_no_html() -> None:
    optimizer = instep.SGD({"<b>&lt;": np.ones(1)}, lr=Tagged())
    assert "<script" not in optimizer._repr_html_()
    _, hyperparameters, parameters = shown(optimizer)
    assert hyperparameters[1] == ["lr", repr(Tagged())]
    assert parameters[1][0] == "<b>&lt;"


class Wordless:
    """A schedule of the caller's that has no text and can't be compared."""

    def __call__(self, step: int) -> float:
        return 0.5

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Incomparable(Wordless):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


def test_what_has_no_text_is_named_by_its_kind() -> None:
    optimizer = instep.SGD(np.ones(1), lr=Wordless())
    assert repr(optimizer).startswith("SGD(lr=a Wordless, momentum=0.0, ")
    assert shown(optimizer)[1][1] == ["lr", "a Wordless"]


def test_what_can_not_be_compared_does_not_stop_repr() -> None:
    groups = [{"params": np.ones(1), "lr": Incomparable()} for _ in range(2)]
    assert repr(instep.SGD(groups)).startswith("<instep.SGD object at 0x")


class LeadsBack:
    """A schedule that knows its optimizer, and shows it."""

    optimizer: Any = None

    def __call__(self, step: int) -> float:
        return 0.5

    def __repr__(self) -> str:
        return f"LeadsBack({self.optimizer!r})"


def test_a_schedule_that_leads_back() -> None:
    schedule = LeadsBack()
    schedule.optimizer = instep.SGD(np.ones(1), lr=schedule)
    assert repr(schedule.optimizer).startswith("SGD(lr=LeadsBack(...), momentum=0.0, ")


def incomplete() -> list[Any]:
    bare = instep.Adam.__new__(instep.Adam)
    unbound = instep.Adam.__new__(instep.Adam)
    Settings.__init__(unbound, {}, None, "skip", None)
    return [bare, unbound]


@pytest.mark.parametrize("which", [0, 1])
def test_an_object_that_is_not_complete(which: int) -> None:
    """As a debugger finds it inside a constructor that raises."""
    optimizer = incomplete()[which]
    assert repr(optimizer).startswith("<instep.Adam object at 0x")
    assert optimizer._repr_html_() is None
    with pytest.raises(AttributeError):
        copy.copy(optimizer)
    assert not hasattr(optimizer, "step_count")


def test_while_another_thread_steps() -> None:
    w = np.ones(1 << 20, np.float32)
    optimizer = instep.Adam(w)
    end = threading.Event()

    def step() -> None:
        gradient = np.ones_like(w)
        while not end.is_set():
            optimizer.step(gradient)

    thread = threading.Thread(target=step)
    thread.start()
    counts = []
    while len(set(counts)) < 3:
        text = repr(optimizer)
        assert text.startswith("Adam(lr=0.001, betas=")
        counts.append(int(text.partition("elements=1048576, step_count=")[2][:-1]))
        assert optimizer._repr_html_() is not None
    end.set()
    thread.join()
    assert counts == sorted(counts)
