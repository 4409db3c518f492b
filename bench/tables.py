"""Figures as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def duration(seconds: float) -> str:
    """Three digits that count, in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 0.9995 or unit == "us":
            break
    value = seconds * factor
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {unit}"


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first flush left and the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def contestants_table(summary: Mapping[str, Any], what: str, unit: str) -> str:
    """The contestants of a comparison beside one of them, and who was left out."""
    contestants = summary["contestants"]
    lines = [("contestant", what, "quartiles", "rounds", f"x {unit}")]
    for label, found in contestants.items():
        low, high = found["quartiles"]
        ratio = "-"
        if unit in contestants and "by instep" in found:
            ratio = f"{found['by instep'] / contestants[unit]['by instep']:.2f}"
        spread = f"{duration(low)} .. {duration(high)}"
        lines.append((label, duration(found["median"]), spread, str(found["rounds"]), ratio))
    left_out = [f"{who} is left out: {why}" for who, why in summary["left out"].items()]
    return "\n".join([plain_table(lines), *left_out])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same for a page; the first row is the header."""
    header, *body = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *body))


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the comments with this name on a page."""
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{content}{m[2]}", text, flags=re.S)
    if count != 1:
        raise ValueError(f"the page must have one table {name!r}, got {count}")
    return new


def put(text: str, name: str, rows: Sequence[Sequence[str]]) -> str:
    """Replace the table of a page that stands between the comments with this name."""
    return fill(text, name, f"{markdown_table(rows)}\n")
