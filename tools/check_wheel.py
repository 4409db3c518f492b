"""Prove of a wheel, repaired or not, that it holds what it should and its module nothing that it shouldn't.

    python tools/check_wheel.py WHEEL BUILD_FOLDER

The build folder is the one that the wheel's module was linked in: the module there still has its symbols. That it is
the same one is checked first, by the bytes and addresses of everything executable. Then:

- No instruction beyond the x86-64 baseline outside the functions of a level, none in them beyond the level, and each
  level's own in use; nothing fused or approximate; the floating-point environment set by instep alone.
- No option on any compiler's command line that tunes for the machine it ran on or bends the arithmetic.
- One symbol visible from outside: the module's entry.
- The types are in; less than a megabyte; the version is pyproject.toml's; and the licence of each library that came.

Ends with status 1 and a line for each finding.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path

from disassembly import (
    BASELINE,
    LEVEL_NAMES,
    V2,
    V3,
    V4,
    functions,
    instructions,
    is_inexact,
    level_of,
    run,
    visible_symbols,
)

MOST_BYTES = 2_000_000
ENTRY = "PyInit__core"
# A function of a level, or of instep at all, by the beginning of its mangled name.
IN_LEVEL = re.compile(r"_ZZ*NK?6instep9x86_64_v([234])")
IN_INSTEP = re.compile(r"_ZZ*NK?6instep")
BENDING = re.compile(
    r"-m(arch|tune|cpu)=native|-Ofast|-ffast-math|-funsafe-math-optimizations|-fassociative-math"
    r"|-freciprocal-math|-ffinite-math-only|-fno-signed-zeros|-fno-rounding-math|-mrecip\S*"
    r"|-mdaz-ftz|-ffp-contract=(fast|on)|-flto\S*"
)


def executable_sections(path: Path) -> list[tuple[str, str, bytes]]:
    """Name, address and bytes of everything in the file that can be executed."""
    found = []
    table = run("readelf", "--wide", "--section-headers", path)
    row = r"\]\s+(\S+)\s+PROGBITS\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s+\S+\s+AX"
    content = path.read_bytes()
    for match in re.finditer(row, table):
        offset, size = int(match[3], 16), int(match[4], 16)
        found.append((match[1], match[2], content[offset : offset + size]))
    return found


def check_is_same(module: Path, built: Path) -> list[str]:
    """Whether the module in the wheel is the one in the build folder, but for its symbols."""
    inside, outside = executable_sections(module), executable_sections(built)
    print(f"executable sections of the module: {', '.join(name for name, _, _ in inside)}")
    if inside and inside == outside:
        return []
    return [f"{module.name}: its code is not that of {built}"]


def check_code(built: Path) -> list[str]:
    """Every instruction of the module, by the function that it stands in."""
    findings = []
    used: dict[int, Counter[int]] = {}  # level of the function -> level of the instruction -> count
    for name, body in functions(built).items():
        match = IN_LEVEL.match(name)
        allowed = int(match[1]) if match else BASELINE
        counts = used.setdefault(allowed, Counter())
        for mnemonic, operands in instructions(body):
            needed = level_of(mnemonic, operands)
            counts[needed] += 1
            if needed > allowed:
                findings.append(f"{name}: beyond {LEVEL_NAMES[allowed]}: {mnemonic} {operands}")
            if is_inexact(mnemonic):
                findings.append(f"{name}: rounds otherwise than the formula: {mnemonic}")
            if mnemonic in ("ldmxcsr", "vldmxcsr") and not IN_INSTEP.match(name):
                findings.append(f"{name}: sets the floating-point environment")
        if "fast_math" in name:
            findings.append(f"{name}: start-up code of -ffast-math")
    for allowed, counts in sorted(used.items()):
        where = f"functions of {LEVEL_NAMES[allowed]}" if allowed > BASELINE else "everything else"
        listed = ", ".join(f"{LEVEL_NAMES.get(k, '?')} {v}" for k, v in sorted(counts.items()))
        print(f"{where}: instructions by the level that they need: {listed}")
    for level in (V2, V3, V4):
        if not used.get(level, Counter())[level]:
            findings.append(
                f"no instruction of {LEVEL_NAMES[level]} in the functions of that level"
            )
    return findings


def check_commands(build: Path) -> list[str]:
    """The command lines of the compiler."""
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    print(f"compiler's command lines: {len(commands)}")
    return [
        f"{Path(entry['file']).name} is compiled with {match[0]}"
        for entry in commands
        for match in BENDING.finditer(entry["command"])
    ]


def check_content(wheel: Path, names: list[str], metadata: str) -> list[str]:
    """What lies in the wheel, its size and its version."""
    findings = []
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size:,} bytes, {len(names)} files")
    if size >= MOST_BYTES:
        findings.append(f"{wheel.name}: {size:,} bytes; fewer than {MOST_BYTES:,} are wanted")
    for wanted in ("instep/py.typed", "instep/_core/__init__.pyi"):
        if wanted not in names:
            findings.append(f"{wheel.name}: {wanted} is missing")
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    source = re.search(r'^version = "(.*)"$', pyproject, re.M)
    said = {wheel.name.split("-")[1], Parser().parsestr(metadata)["Version"]}
    if source is None or said != {source[1]}:
        findings.append(f"{wheel.name}: versions {said}; pyproject.toml's alone is wanted")
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    for library in names:
        if ".libs/" not in library or library.endswith("/"):
            continue
        print(f"came along: {library}")
        licence = re.split(r"[-.]", Path(library).name)[0] + ".txt"
        if licence not in licences:
            findings.append(f"{library}: its licence, {licence}, is not in the wheel")
    return findings


def main(wheel: Path, build: Path) -> int:
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        modules = [name for name in names if re.fullmatch(r"instep/_core\..*so", name)]
        if len(modules) != 1:
            sys.exit(f"{wheel.name}: modules {modules}; one is wanted")
        module = Path(archive.extract(modules[0], folder))
        metadata = next(n for n in names if n.endswith(".dist-info/METADATA"))
        findings = check_content(wheel, names, archive.read(metadata).decode("utf-8"))
        findings += check_is_same(module, build / module.name)
        exported = visible_symbols(module, "--dynamic")
    print(f"symbols visible from outside: {exported}")
    if exported != [f"T {ENTRY}"]:
        findings.append(f"{module.name}: exports {exported}; {ENTRY} alone is wanted")
    findings += check_commands(build)
    if "X86-64" in run("readelf", "--file-header", build / module.name):
        findings += check_code(build / module.name)
    else:
        print("not x86-64: its one level is the compiler's baseline")
    for finding in findings[:20]:
        print("FOUND", finding)
    print(f"{wheel.name}: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
