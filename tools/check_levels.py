"""Prove from the object files of a build that each instruction-set level is what it says.

    python tools/check_levels.py BUILD_FOLDER

For every level: nothing but its table of entry points is visible to the linker and nothing is weak, so that no code of
one level can replace another's; and each rule's loop uses vectors as wide as the level has, for float32 and float64,
in its division and square root too, and shorter ones for what is left over. Where nothing has to be converted, that
loop is the only one: a compiler that makes two of it, one for each outcome of a condition, may vectorise only one. For
everything else in the module: no instruction beyond the x86-64 baseline.

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


def check_symbols(level: str, path: Path) -> list[str]:
    wanted = f"instep::{level}::level"
    found = visible_symbols(path, "--demangle")
    print(f"{level}: symbols that the linker sees: {found}")
    return [
        f"{level}: the linker sees {symbol!r}"
        for symbol in found
        if symbol.split(maxsplit=1)[1] != wanted or symbol[0] in "WVuwv"
    ]


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


def check_vectors(level: str, path: Path) -> list[str]:
    register = LEVELS[level]
    findings = []
    name_of_loop = re.compile(
        r".*::update(_by_sixteens)?<.*::(\w+<(float|double), \d+u>)(?:, \3)?, .*::(\w+), .*::(\w+)(?:, (\d+)u)?>\("
    )
    loops: dict[str, str] = {}  # by rule, what its loop does beside it, both formats
    for name, body in functions(path, "--demangle").items():
        if match := name_of_loop.match(name):
            rule = f"{match[2]} with {match[6] or 0} {match[4]} {match[5]}"
            if rule in loops:
                findings.append(f"{level}: {rule}: two functions")
            if bool(match[1]) != (level == SIXTEENS and "BFloat16" in rule):
                findings.append(f"{level}: {rule}: is {'' if match[1] else 'not '}done by sixteens")
            loops[rule] = body
    if not any(rule.endswith(UNCONVERTED) for rule in loops):
        return [f"{level}: no loops of rules found in which nothing is converted"]
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


def main(build: Path) -> int:
    objects = [path for path in build.rglob("*.o") if "CMakeScratch" not in path.parts]
    findings = []
    kernels: list[Path] = []
    for path in objects:
        if path.name != "level.cpp.o":
            continue
        kernels.append(path)
        level = next(
            part for part in path.parts if part.startswith("instep_") and part.endswith(".dir")
        )
        level = level.removeprefix("instep_").removesuffix(".dir")
        findings += check_symbols(level, path)
        if LEVELS[level] is not None:
            findings += check_vectors(level, path)
    if not kernels:
        findings.append(f"no object file of a level under {build}")
    findings += check_baseline([path for path in objects if path not in kernels])
    for finding in findings:
        print("FOUND", finding)
    print(f"{len(kernels)} levels, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
