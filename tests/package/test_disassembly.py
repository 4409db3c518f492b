"""What tools/disassembly.py says of instructions, on which the checks of the built module rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def load() -> Any:
    path = Path(__file__).parents[2] / "tools" / "disassembly.py"
    spec = importlib.util.spec_from_file_location("disassembly", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


disassembly = load()

LEVELS = {
    1: ["mulps %xmm1,%xmm0", "movaps %xmm1,%xmm0", "tzcnt %rax,%rax", "prefetchw (%rax)", "ret"],
    2: [
        "pblendvb %xmm0,%xmm1,%xmm2",
        "roundsd $9,%xmm0,%xmm0",
        "pmulld %xmm1,%xmm0",
        "popcnt %rax,%rdx",
    ],
    3: [
        "vmulps %ymm1,%ymm0,%ymm2",
        "vpermq $0xd8,%ymm0,%ymm0",
        "vzeroupper",
        "shlx %rax,%rdx,%rcx",
    ],
    4: [
        "vmulps %zmm1,%zmm0,%zmm2",
        "vmovups %ymm17,(%rax)",
        "vaddps (%rax){1to8},%ymm0,%ymm1",
        "vpternlogd $0xff,%ymm0,%ymm0,%ymm0",
        "kmovw %eax,%k1",
        "vpcmpd $1,%ymm0,%ymm1,%k2",
    ],
    5: [
        "vpdpbusd %zmm1,%zmm2,%zmm3",
        "vcvtne2ps2bf16 %zmm1,%zmm2,%zmm3",
        "vaddph %zmm1,%zmm2,%zmm3",
    ],
}


@pytest.mark.parametrize(
    ("level", "text"), [(level, text) for level, texts in LEVELS.items() for text in texts]
)
def test_levels(level: int, text: str) -> None:
    ((mnemonic, operands),) = disassembly.instructions(f"  1a2b:\t{text}\n")
    assert disassembly.level_of(mnemonic, operands) == level


def test_loops_have_no_loop_within() -> None:
    body = """
     100:\tmov    %rdi,%rax
     104:\tvmulps %ymm1,%ymm0,%ymm2
     108:\tnotrack jmp *%rax
     10c:\tvmulss %xmm1,%xmm0,%xmm2
     110:\tje     118 <f+0x18>
     114:\tjne    10c <f+0xc>
     118:\tjmp    104 <f+0x4>
     11c:\tvaddps %ymm1,%ymm0,%ymm2
     120:\tjne    11c <f+0x1c>
     124:\tmulps  %xmm0,%xmm1
     128:\tret
     12c:\tjmp    124 <f+0x24>
"""
    assert disassembly.innermost_loops(body) == [["vmulss", "je", "jne"], ["vaddps", "jne"]]
    assert disassembly.innermost_loops(body[:90]) == []


def test_prefixes_are_no_mnemonics() -> None:
    text = "   10:\trep stos %al,%es:(%rdi)\n   12:\tlock cmpxchg %rdx,(%rcx)\n   16:\tnotrack jmp *%rax\n"
    assert [m for m, _ in disassembly.instructions(text)] == ["stos", "cmpxchg", "jmp"]


@pytest.mark.parametrize(
    ("mnemonic", "inexact"),
    [
        *((m, True) for m in ("rcpps", "vrsqrtss", "vrcp14pd", "vfmadd231ps", "vfnmsub132sd")),
        *((m, False) for m in ("divps", "vsqrtpd", "vmulps", "vfpclassps")),
    ],
)
def test_what_rounds_otherwise(mnemonic: str, inexact: bool) -> None:
    assert disassembly.is_inexact(mnemonic) is inexact
