"""An optimizer in a notebook: two small tables, of hyperparameters and of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from instep._support.wording import text_of

if TYPE_CHECKING:
    from instep.optimizers.bound import Bound

__all__ = ["tables"]

_MOST = 10  # parameters, and groups


def tables(optimizer: Bound) -> str | None:
    """Return the tables as HTML; None if this fails, and the notebook shows the text."""
    try:
        counts = ", ".join(f"{name}: {value:,}" for name, value in optimizer._counts().items())
        return (
            f"<div><strong>{escape(type(optimizer).__name__)}</strong> ({counts})"
            f"{_table(_hyperparameters(optimizer))}{_table(_parameters(optimizer))}</div>"
        )
    except Exception:  # the optimizer is not complete, or a caller's object in it fails
        return None


def _hyperparameters(optimizer: Bound) -> Iterator[Sequence[str]]:
    """A row of titles, rows with a value for each group, and rows for settings that all groups share."""
    of_all = optimizer._of_groups()
    groups = of_all[:_MOST]
    titles = [f"group {k}" for k in range(len(groups))] if groups[1:] else ["value"]
    yield ["hyperparameter", *titles, *_more(len(of_all))]
    for name in groups[0]:
        yield [name, *(text_of(group[name]) for group in groups)]
    for name, value in optimizer._extras_in_use().items():
        yield [name, text_of(value)]


def _parameters(optimizer: Bound) -> Iterator[Sequence[str]]:
    yield ["parameter", "shape", "dtype"]
    for name, array in islice(optimizer.params.items(), _MOST):
        plain = np.asarray(array)  # a subclass may report another shape
        yield [name, str(plain.shape), plain.dtype.name]
    for more in _more(len(optimizer.params)):
        yield [more]


def _more(count: int) -> list[str]:
    return [f"and {count - _MOST:,} more"] if count > _MOST else []


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as a table, the first as its head; a row's first cell is a title."""
    head, *body = rows
    lines = "".join(_row(row, "td") for row in body)
    return f"<table><thead>{_row(head, 'th')}</thead><tbody>{lines}</tbody></table>"


def _row(texts: Sequence[str], cell: str) -> str:
    title, *others = map(escape, texts)
    return f"<tr><th>{title}</th>{''.join(f'<{cell}>{text}</{cell}>' for text in others)}</tr>"
