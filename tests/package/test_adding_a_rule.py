"""Whatever a new rule needs besides its formula is there: CONTRIBUTING, "Adding a rule", is the list.

What can be found isn't listed: these are the places where a rule has to be entered by hand. Each test names what a
rule lacks, and where.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cases
import digests
import numpy as np
import pytest
from by_hand import BY_HAND
from formulas import RULES

import instep
from instep import _core, rules
from instep.optimizers.hyperparameters import Flag, Interval, Numeric, OneOf
from instep.optimizers.rule import InTorch

ROOT = Path(__file__).parents[2]
Description = Mapping[str, tuple[str, ...]]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def classes() -> list[type[instep.Optimizer]]:
    """The classes in python/instep/rules, exported or not."""
    modules = [
        importlib.import_module(f"instep.rules.{module.name}")
        for module in pkgutil.iter_modules(rules.__path__)
    ]
    found = {value for module in modules for value in vars(module).values() if is_rule(value)}
    return sorted(found, key=lambda rule: rule.__name__)


def is_rule(value: object) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, instep.Optimizer)
        and value is not instep.Optimizer
    )


def lacks_of_rule(name: str, description: Description) -> Iterator[str]:
    """What a rule of the core lacks."""
    for kind in ("hpp", "cpp"):
        if not (ROOT / f"cpp/rules/{name}.{kind}").is_file():
            yield f"cpp/rules/{name}.{kind}: no such file"
    mine = [rule for rule in classes() if rule._rule == name]
    if not mine:
        yield f"python/instep/rules/: no class has _rule = {name!r}"
    for option in description["options"]:
        variants = [*cases.VARIANTS, *cases.MATRIX_VARIANTS]
        if not any(variant_has(v, option) for v in variants if v.rule in mine):
            yield f"python/instep/rules/: no class can switch the option {option!r} on"
    if name not in digests.FAMILIES:
        yield "tests/helpers/digests.py: FAMILIES has no such rule"
    elif list(digests.FAMILIES[name].switches) != list(description["options"]):
        yield f"tests/helpers/digests.py: its options in FAMILIES are not {description['options']}"
    for number in description["hyperparameters"]:
        if number not in {"lr", *digests.NUMBERS}:
            yield f"tests/helpers/digests.py: NUMBERS has no {number!r}"
    if not re.search(rf"^digest {name}[+ ]", text("tests/cpp/digests.txt"), re.M):
        yield "tests/cpp/digests.txt: no digests; run python tests/helpers/digests.py"


def variant_has(variant: cases.Variant, option: str) -> bool:
    made = variant.make(cases.one_element(variant.rule))
    return option in variant.rule._options(made.param_groups[0]._settings)


def lacks_of_class(rule: type[instep.Optimizer]) -> Iterator[str]:
    """What a class of optimizers lacks."""
    name = rule.__name__
    if name not in rules.__all__:
        yield "python/instep/rules/__init__.py: not exported"
    if name not in instep.__all__:
        yield "python/instep/__init__.py: not in __all__"
    for path, where in (
        ("python/instep/__init__.py", instep.__doc__ or ""),
        ("CHANGELOG.md", text("CHANGELOG.md")),
    ):
        if f"`{name}`" not in where:
            yield f"{path}: not named{' in the docstring' if path != 'CHANGELOG.md' else ''}"
    states = rule(cases.one_element(rule, np.float32)).state["0"].values()
    bytes_of_states = sum(s.nbytes for s in states if s.ndim)  # not those that are one number
    if not re.search(rf"^\| `{name}` \| {bytes_of_states}\b", text("README.md"), re.M):
        yield f"README.md: no row in the table of rules, with {bytes_of_states} bytes a parameter"
    if f"\n**{name}**" not in text("docs/semantics.md"):
        yield "docs/semantics.md: no section"
    if f"\n| `{name}` |" not in text("docs/choosing.md"):
        yield "docs/choosing.md: no row"
    yield from lacks_of_reference(name, rule)
    for number, kind in rule._hyperparameters.items():
        if number not in instep.typing.Group.__annotations__:
            yield f"python/instep/typing.py: Group has no {number!r}"
        if not isinstance(kind, (Flag, OneOf)) and number not in cases.NUMBERS:
            yield f"tests/helpers/cases.py: NUMBERS has no {number!r}"
    if name not in BY_HAND:
        yield "tests/helpers/by_hand/: no BY_HAND has such a rule"
    yield from lacks_of_torch(name, rule)


def lacks_of_reference(name: str, rule: type[instep.Optimizer]) -> Iterator[str]:
    if name not in RULES:
        yield "tests/helpers/formulas/: no RULES has such a rule"
        return
    defaults = {n: inspect.signature(rule).parameters[n].default for n in rule._hyperparameters}
    if RULES[name].defaults != defaults:
        yield f"tests/helpers/formulas/: its defaults in RULES are not {defaults}"
    of_core = _core.rules()[rule._rule]
    mine = [*RULES[name].states, *RULES[name].scalars]
    if mine != [*of_core["states"], *of_core["scalar_states"]]:
        yield "tests/helpers/formulas/: its states in RULES are not those of the core"
    joint = bool(of_core["joint_states"])
    if joint != (RULES[name].joint is not None):
        yield f"tests/helpers/formulas/: it has {'no' if joint else 'a'} function joint in RULES"
    if joint != bool(rule._alike):
        yield f"python/instep/rules/: _alike has {'no' if joint else 'some'} hyperparameters"


def lacks_of_torch(name: str, rule: type[instep.Optimizer]) -> Iterator[str]:
    if "_torch" not in vars(rule):
        yield "python/instep/rules/: no _torch of its own; None says that torch has no such rule"
    torchs = vars(rule).get("_torch")
    if not isinstance(torchs, InTorch):
        return
    said = {*torchs.hyperparameters, *torchs.absent, "l1", "decoupled_l1", "clip_value"}
    for number in rule._hyperparameters.keys() - said:
        yield f"python/instep/rules/: _torch says neither that torch has {number!r} nor that it hasn't"
    if name in RULES and RULES[name].matrices:
        return  # test_peers_of_muon.py: torch computes it in bfloat16
    if name not in {case[0] for case in table("tests/reference/test_torch.py", "TORCH_CASES")}:
        yield "tests/reference/test_torch.py: TORCH_CASES has no such rule"


def table(path: str, name: str) -> Any:
    """A table of a file of tests."""
    return runpy.run_path(str(ROOT / path))[name]


def report(name: str, lacks: Iterator[str]) -> None:
    lines = [f"{name} lacks, of what CONTRIBUTING lists under 'Adding a rule':", *lacks]
    if lines[1:]:
        pytest.fail("\n  ".join(lines), pytrace=False)


@pytest.mark.parametrize("name", _core.rules())
def test_a_rule_of_the_core_lacks_nothing(name: str) -> None:
    report(f"the rule {name!r}", lacks_of_rule(name, _core.rules()[name]))


@pytest.mark.parametrize("rule", classes(), ids=lambda rule: rule.__name__)
def test_a_class_of_optimizers_lacks_nothing(rule: type[instep.Optimizer]) -> None:
    report(f"the class {rule.__name__}", lacks_of_class(rule))


def test_the_readme_counts_the_rules() -> None:
    counted = re.search(r"SGD, Adam, AdamW and \[(\d+) more rules\]", text("README.md"))
    assert counted
    assert int(counted[1]) == len(classes()) - 3


def test_a_header_is_a_rule_of_the_core() -> None:
    tables = {path.stem for path in (ROOT / "cpp" / "rules").glob("*.cpp")}
    assert tables == set(_core.rules()), "each has the name of its rule"


class Speedy(instep.SGD):
    """Nothing of it is anywhere."""

    __slots__ = ()

    speed = Numeric(Interval())


def test_contributing_names_every_place() -> None:
    nothing = {"hyperparameters": ("lr", "speed"), "options": ("twice",), "states": ()}
    lacks = [*lacks_of_rule("speedy", nothing), *lacks_of_class(Speedy)]
    places = {re.sub(r"speedy", "<name>", lack.partition(":")[0]) for lack in lacks}
    assert len(places) == 15
    section = text("CONTRIBUTING.md").partition("## Adding a rule")[2].partition("\n## ")[0]
    missing = {place for place in places if f"`{place}`" not in section}
    assert not missing


def test_what_torch_has_of_a_rule_is_complete() -> None:
    class Slow(instep.Adam):
        __slots__ = ()

        _torch = instep.Adam._torch
        speed = Numeric(Interval())

    lacks = list(lacks_of_torch("Slow", Slow))
    assert [lack.partition(":")[2].split()[-6:] for lack in lacks[:1]] == [
        ["has", "'speed'", "nor", "that", "it", "hasn't"]
    ]
    assert lacks[1] == "tests/reference/test_torch.py: TORCH_CASES has no such rule"
