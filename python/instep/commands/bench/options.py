"""The options of the benchmarks' commands."""

from __future__ import annotations

import argparse

__all__ = ["count", "seconds"]


def seconds(text: str) -> float:
    """Return how long to measure; for argparse, whose error names the option."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.0 < found <= 3600.0:
        raise argparse.ArgumentTypeError(
            f"the seconds must be a number above 0, 3600 at most, got {text!r}"
        )
    return found


def count(text: str) -> int:
    """Return a count of at least 1, e.g. of elements; for argparse, whose error names the option."""
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(
            f"the count must be a whole number of at least 1, got {text!r}"
        )
    return found
