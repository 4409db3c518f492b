"""The file that other machines are compared with says what the reference computes now."""

from __future__ import annotations

import itertools

import digests
import pytest

import instep
from instep import _core


def test_the_file_is_current() -> None:
    """Otherwise: python tests/helpers/digests.py."""
    assert digests.FILE.read_text(encoding="ascii").splitlines() == list(digests.lines())


def test_every_rule_and_choice_is_in_it() -> None:
    choices = [choice.name.split("+") for choice in digests.choices()]
    for name, rule in _core.rules().items():
        assert list(digests.FAMILIES[name].switches) == list(rule["options"])
        for on in itertools.product([False, True], repeat=len(rule["options"])):
            options = list(itertools.compress(rule["options"], on))
            assert ([name, *options] in choices) == is_valid(name, options)
    assert {choice[0] for choice in choices} == _core.rules().keys()


def is_valid(name: str, options: list[str]) -> bool:
    try:
        instep.Steps().add_group(name, options)
    except ValueError:
        return False
    return True


def test_powers_near_a_tie_are_refused() -> None:
    """0.9**51 is 0.499 of the last place from the nearest double, and so from the next one nearly."""
    digests.check_power(0.9, 2)
    with pytest.raises(SystemExit, match=r"0\.9\*\*51 is too near a tie"):
        digests.check_power(0.9, 51)
    with pytest.raises(SystemExit, match=r"1000\.0\*\*0\.25 is too near a tie"):
        digests.check_power(1000.0, 0.25)


@pytest.mark.parametrize("number", ["beta1", "beta2", "beta3", "clip_exponent"])
def test_the_powers_of_a_rule_are_looked_at(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(digests.NUMBERS, number, 0.9 if number != "clip_exponent" else 0.25)
    rule, t = ("ADOPT", 1001) if number == "clip_exponent" else ("Adan", 51)
    with pytest.raises(SystemExit, match="too near a tie"):
        digests.check_powers(rule, t)
