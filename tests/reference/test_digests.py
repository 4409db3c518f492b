"""The file that other machines are compared with says what the reference computes now."""

from __future__ import annotations

import digests
import pytest

from instep import _core


def test_the_file_is_current() -> None:
    """Otherwise: python tests/helpers/digests.py."""
    assert digests.FILE.read_text(encoding="ascii").splitlines() == list(digests.lines())


def test_every_rule_is_in_it() -> None:
    assert {name: set(family.switches) for name, family in digests.FAMILIES.items()} == {
        name: set(rule["options"]) for name, rule in _core.rules().items()
    }


def test_powers_near_a_tie_are_refused() -> None:
    """0.9**51 is 0.499 of the last place from the nearest double, and so from the next one nearly."""
    digests.check_power(2)
    with pytest.raises(SystemExit, match=r"0\.9\*\*51 is too near a tie"):
        digests.check_power(51)
