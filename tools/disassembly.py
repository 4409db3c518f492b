"""What the tools beside it know of machine code: symbols and functions of a file, and what an instruction needs.

Uses nm and objdump of the binutils.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BASELINE, V2, V3, V4, NO_LEVEL = 1, 2, 3, 4, 5
LEVEL_NAMES = {BASELINE: "x86-64", V2: "x86-64-v2", V3: "x86-64-v3", V4: "x86-64-v4"}

_INSTRUCTION = re.compile(
    r"^\s*([0-9a-f]+):\t(?:(?:lock|rep\w*|data16|notrack|bnd|[c-gs]s) +)*(\S+) *(.*)$", re.M
)

_SSE3_TO_SSE4_2 = re.compile(
    r"popcnt|crc32[bwlq]?|pcmp(gtq|eqq|[ei]str[im])|round[sp][sd]|p?blend(v?p[sd]|vb|w)|dpp[sd]"
    r"|extractps|insertps|movntdqa|mpsadbw|packusdw|p(ext|ins)r[bdq]|phminposuw"
    r"|pm(ax|in)(s[bd]|u[wd])|pmov[sz]x\w+|pmul(dq|ld|hrsw)|ptest|p(abs|sign)[bwd]|palignr"
    r"|ph(add|sub)\w+|pmaddubsw|pshufb|addsubp[sd]|h(add|sub)p[sd]|lddqu|mov(d|sh|sl)dup|fisttp\w*"
    r"|cmpxchg16b|[ls]ahf"
)
_BIT_MANIPULATION = re.compile(
    r"andn|bextr|bls(i|r|msk)|bzhi|mulx|pdep|pext|rorx|s(ar|hl|hr)x|lzcnt|movbe"
)
# Of the vector instructions that AVX-512 brought, those that name neither a wide nor a mask register.
_AVX512_ALONE = re.compile(
    r"vpternlog[dq]|vrndscale\w+|vpabsq|vpsravw|vps[lr]lvw|vpsraq|vpsravq|vpm(ax|in)[su]q|vpmullq"
    r"|vcvtt?(p[sd]2u?qq|p[sd]2udq|s[sd]2usi\w*|u?qq2p[sd]|udq2p[sd]|usi2s[sd]\w*)|vpmovu?s?[qdw][bwd]"
    r"|vp(and|andn|or|xor)[dq]|vmovdq[au](8|16|32|64)|vperm[it]2\w+|vpermw|vp?blendm\w+"
    r"|valign[dq]|vscalef\w+|vget(exp|mant)\w+|vfixupimm\w+|vrange\w+|vreduce\w+|vfpclass\w+"
    r"|vpro[lr]v?[dq]|vcompress\w+|vexpandp[sd]|vpcompress[dq]|vpexpand[dq]|vpconflict[dq]"
    r"|vplzcnt[dq]|vdbpsadbw|v(insert|extract|broadcast|shuf)[fi](32|64)x\d"
)
_BEYOND_V4 = re.compile(
    r"vpdp\w+|v(dp|cvtne)\w*bf16\w*|v\w+[ps]h|vpopcnt[bwdq]|vperm(b|[it]2b)|vpcompress[bw]"
    r"|vpexpand[bw]|vpsh[lr]d\w+|vpmadd52\w+|vpshufbitqmb|vpmultishiftqb|v?gf2p8\w+|v?aes\w+"
    r"|v?pclmul\w+|vp2intersect\w+|v(rcp|rsqrt)28\w+|vexp2\w+|sha(1|256)\w+|ad[co]x[lq]?|rd(rand|seed)"
    r"|t(dp|ile)\w+"
)
# Rounds otherwise than the formulas: approximations, and a*b+c rounded once.
_INEXACT = re.compile(r"v?r(cp|sqrt)(14|28)?[ps][sd]|vexp2p[sd]|vfn?m(add|sub|addsub|subadd)\w+")


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def visible_symbols(path: Path, *options: str) -> list[str]:
    """Every symbol that the file defines and that the linker sees: 'kind name'."""
    lines = run("nm", "--defined-only", "--extern-only", *options, path).splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.strip()]


def functions(path: Path, *options: str) -> dict[str, str]:
    """Disassembly of each function by its name; one after another where a name stands twice."""
    text = run("objdump", "--disassemble", "--no-show-raw-insn", *options, path)
    parts = re.split(r"^[0-9a-f]+ <(.*)>:\n", text, flags=re.M)[1:]
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        found[name] = found.get(name, "") + body
    return found


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Mnemonic and operands of each instruction in a disassembly."""
    for match in _INSTRUCTION.finditer(text):
        yield match[2], match[3].partition("#")[0]


def innermost_loops(body: str) -> list[list[str]]:
    """Mnemonics of each loop of a function, from where a jump goes back to until the jump, that has none within it."""
    code = [(int(m[1], 16), m[2], m[3]) for m in _INSTRUCTION.finditer(body)]
    spans = []
    for address, mnemonic, operands in code:
        target = re.match(r"([0-9a-f]+)\b", operands)
        if mnemonic.startswith("j") and target and int(target[1], 16) < address:
            spans.append((int(target[1], 16), address))
    innermost = [
        (low, high)
        for low, high in spans
        if not any(low <= o[0] and o[1] <= high for o in spans if o != (low, high))
    ]
    found = [[m for address, m, _ in code if low <= address <= high] for low, high in innermost]
    # With a return inside it is a branch that rejoins what stands before it.
    return [loop for loop in found if "ret" not in loop]


def level_of(mnemonic: str, operands: str) -> int:
    """Return the least microarchitecture level of the psABI that has an x86-64 instruction."""
    level = _level_of_mnemonic(mnemonic)
    if level == V3 and mnemonic.startswith("v") and _names_avx512(operands):
        return V4
    return level


@cache
def _level_of_mnemonic(mnemonic: str) -> int:
    if _BEYOND_V4.fullmatch(mnemonic):
        return V3 if re.fullmatch("vcvtp(h2ps|s2ph)", mnemonic) else NO_LEVEL
    if _AVX512_ALONE.fullmatch(mnemonic) or re.fullmatch(r"k[a-z]+[bwdq]{1,2}", mnemonic):
        return V4
    if mnemonic.startswith("v") or _BIT_MANIPULATION.fullmatch(mnemonic):
        return V3
    return V2 if _SSE3_TO_SSE4_2.fullmatch(mnemonic) else BASELINE


@cache
def _names_avx512(operands: str) -> bool:
    return re.search(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])|\{", operands) is not None


@cache
def is_inexact(mnemonic: str) -> bool:
    """Whether an x86-64 instruction approximates, or rounds a product and a sum once."""
    return _INEXACT.fullmatch(mnemonic) is not None
