"""Prove from the object files of a build that each instruction-set level is what it says.

    python tools/check_levels.py [--symbols] BUILD_FOLDER

For every level: nothing but its table of entry points and its rules' tables is visible to the linker and nothing is
weak, so that no code of one level can replace another's; and each rule's loop uses vectors as wide as the level has,
for float32 and float64, in its division and square root too, and shorter ones for what is left over. Where nothing has
to be converted, that loop is the only one: a compiler that makes two of it, one for each outcome of a condition, may
vectorise only one. For everything else in the module: no instruction beyond the x86-64 baseline.

With --symbols, for builds that are not optimised, the symbols alone are looked at.

Ends with status 1 and a line for each finding.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from disassembly import (
    BASELINE,
    functions,
    innermost_loops,
    instructions,
    level_of,
    visible_symbols,
)

# Level's namespace -> register that its widest vectors use; None: only the symbols are looked at.
LEVELS = {
    "x86_64_v2": r"%xmm",
    "x86_64_v3": r"%ymm",
    "x86_64_v4": r"%zmm",
    "baseline": None,
}
SHORTEST = "%xmm"  # of a remainder that is shorter than a vector, where nothing has to be converted
UNCONVERTED = (" Float32 Float32", " Float64 Float64")
SIXTEENS = "x86_64_v3"  # the level that has sixteens.hpp
SUFFIX = {"float": "s", "double": "d"}
OPERATIONS = ("mul", "sub", "div", "sqrt")
NAME_OF_LOOP = re.compile(
    r".*::Update(BySixteens)?<.*::(\w+<(?:float|double), \d+u>)(?:, (?:float|double))?, "
    r".*::(\w+), .*::(\w+), (?:(\d+)u, )?std::integer_sequence<.*::run\("
)
NAME_OF_STATE_LOOP = re.compile(
    r".*::Update(Coded|AtRandom)<.*::(\w+<float, \d+u>), .*::run(_as)?.*\("
)


def check_symbols(level: str, path: Path) -> list[str]:
    """Find what the linker sees besides the level's table, and the rule's in each object of one."""
    wanted = f"instep::{level}::level"
    if path.parent.name == "rules":
        wanted = f"instep::{level}::rules::{path.name.partition('.')[0]}"
    found = visible_symbols(path, "--demangle")
    print(f"{level}: {path.name}: symbols that the linker sees: {found}")
    findings = [
        f"{level}: {path.name}: the linker sees {symbol!r}"
        for symbol in found
        if symbol.split(maxsplit=1)[1] != wanted or symbol[0] in "WVuwv"
    ]
    return findings if found else [f"{level}: {path.name}: {wanted} is not there"]


def check_loops(level: str, rule: str, body: str, suffix: str) -> list[str]:
    """Find what isn't one loop in vectors and, for the last ones of several, at most one of single numbers."""
    loops = innermost_loops(body)
    packed, single = (
        sum(
            any(re.fullmatch(rf"v?(add|sub|mul|div|sqrt){kind}{suffix}", m) for m in loop)
            for loop in loops
        )
        for kind in "ps"
    )
    shortest_has_two = suffix == SUFFIX["double"]  # and leaves a single one, which needs no loop
    if packed == 1 and single <= (0 if shortest_has_two else 1):
        return []
    return [f"{level}: {rule}: {packed} loops in vectors and {single} of single numbers"]


def loops_of_rules(level: str, path: Path) -> tuple[dict[str, str], list[str]]:
    """Disassembly of each loop, by rule, what it does beside it, both formats; and what is odd about them."""
    findings = []
    loops: dict[str, str] = {}
    for name, body in functions(path, "--demangle").items():
        if match := NAME_OF_LOOP.match(name):
            rule = f"{match[2]} with {match[5] or 0} {match[3]} {match[4]}"
            if rule in loops:
                findings.append(f"{level}: {rule}: two functions")
            if bool(match[1]) != (level == SIXTEENS and "BFloat16" in rule):
                findings.append(f"{level}: {rule}: is {'' if match[1] else 'not '}done by sixteens")
            loops[rule] = body
    findings += [
        f"{level}: {path.name}: no loop in{formats}"
        for formats in UNCONVERTED
        if not any(rule.endswith(formats) for rule in loops)
    ]
    return loops, findings


def check_vectors(level: str, path: Path) -> list[str]:
    register = LEVELS[level]
    loops, findings = loops_of_rules(level, path)
    for rule, body in sorted(loops.items()):
        suffix = SUFFIX["double" if "<double" in rule else "float"]
        unconverted = rule.endswith(UNCONVERTED)
        counts = {}
        for operation in OPERATIONS:
            packed = len(re.findall(rf"\bv?{operation}p{suffix}\b.*{register}", body))
            scalar = len(re.findall(rf"\bv?{operation}s{suffix}\b", body))
            if packed or scalar:
                counts[operation] = packed
                if not packed:
                    findings.append(f"{level}: {rule}: {operation} is not vectorised")
                # Where whole vectors are no longer than the shortest (x86-64-v2), it sees theirs and says nothing.
                remainder = len(re.findall(rf"\bv?{operation}p{suffix}\b.*{SHORTEST}", body))
                if unconverted and not remainder:
                    findings.append(
                        f"{level}: {rule}: {operation} of a remainder is not vectorised"
                    )
        if unconverted:
            findings += check_loops(level, rule, body, suffix)
        print(
            f"{level}: {rule}: packed {register}: "
            + ", ".join(f"{k} {v}" for k, v in counts.items())
        )
        if "mul" not in counts:
            findings.append(f"{level}: {rule}: no multiplication found")
    return findings


def check_state_loops(level: str, path: Path) -> list[str]:
    """Find what isn't in vectors in the loops that read and write the states themselves."""
    register = LEVELS[level]
    findings = []
    for name, body in functions(path, "--demangle").items():
        match = NAME_OF_STATE_LOOP.match(name)
        if match is None or "mul" not in body:  # one that only chooses between two others
            continue
        loop = f"{match[2]} {match[1]}"
        packed = len(re.findall(rf"\bv?mulps\b.*{register}", body))
        print(f"{level}: {loop}: packed {register}: mul {packed}")
        if not packed:
            findings.append(f"{level}: {loop}: mul is not vectorised")
        if re.search(r"\bv?sqrtss\b", body):
            findings.append(f"{level}: {loop}: takes a root of a single number")
    return findings


def check_baseline(objects: list[Path]) -> list[str]:
    findings = []
    for path in objects:
        wide = [
            f"{path.name}: {name}: {mnemonic} {operands}"
            for name, body in functions(path, "--demangle").items()
            for mnemonic, operands in instructions(body)
            if level_of(mnemonic, operands) > BASELINE
        ]
        print(f"{path.name}: instructions beyond the baseline: {len(wide)}")
        findings += wide[:3]
    return findings


def main(build: Path, symbols_alone: bool) -> int:
    objects = [path for path in build.rglob("*.o") if "CMakeScratch" not in path.parts]
    findings = []
    kernels: dict[Path, str] = {}  # level of each object file of one
    for path in objects:
        for level in LEVELS:
            if f"instep_{level}.dir" in path.parts:
                kernels[path] = level
    for path, level in sorted(kernels.items()):
        findings += check_symbols(level, path)
        if path.parent.name == "rules" and LEVELS[level] is not None and not symbols_alone:
            findings += check_vectors(level, path)
            findings += check_state_loops(level, path)
    if not kernels:
        findings.append(f"no object file of a level under {build}")
    if not symbols_alone:
        findings += check_baseline([path for path in objects if path not in kernels])
    for finding in findings:
        print("FOUND", finding)
    print(
        f"{len(kernels)} objects of {len(set(kernels.values()))} levels, {len(findings)} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    options = sys.argv[1:-1]
    sys.exit(main(Path(sys.argv[-1]), symbols_alone=options == ["--symbols"]))
