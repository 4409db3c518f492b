"""Instruction-set levels: chosen by CPU and operating system, forced by name, proven to have run."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from cases import LEVELS, use_level
from interpreters import output, run

import instep
from instep import _core

X86 = platform.machine().lower() in ("x86_64", "amd64")
needs_x86 = pytest.mark.skipif(not X86, reason="levels of x86-64")

# CPUID leaf 1 ECX, leaf 7 EBX, leaf 0x80000001 ECX, XCR0 of machines with and without each piece.
V2 = {"leaf1_ecx": 0x0098_2201, "leaf7_ebx": 0, "extended1_ecx": 0x01, "xcr0": 0}
V3 = {"leaf1_ecx": 0x38D8_3201, "leaf7_ebx": 0x128, "extended1_ecx": 0x21, "xcr0": 0x7}
V4 = {**V3, "leaf7_ebx": 0xD003_0128, "xcr0": 0xE7}


def level_of(words: dict[str, int]) -> int:
    return _core.testing.x86_64_level(**words)


def test_levels_by_cpu_words() -> None:
    assert level_of(dict.fromkeys(V2, 0)) == 1
    assert level_of(V2) == 2
    assert level_of(V3) == 3
    assert level_of(V4) == 4
    assert level_of(dict.fromkeys(V2, 0xFFFF_FFFF)) == 4


@pytest.mark.parametrize(("words", "level"), [(V2, 2), (V3, 3), (V4, 4)])
def test_every_bit_counts(words: dict[str, int], level: int) -> None:
    """Taking away any one bit that a level names takes the level away."""
    for word, value in words.items():
        for bit in range(value.bit_length()):
            if not value >> bit & 1 or (word == "xcr0" and bit == 0):  # x87 state is always there
                continue
            assert level_of({**words, word: value & ~(1 << bit)}) < level, f"{word} bit {bit}"


def test_registers_that_the_system_does_not_save_do_not_count() -> None:
    assert level_of({**V4, "xcr0": 0x7}) == 3, "AVX-512 in the CPU, not enabled by the system"
    assert level_of({**V4, "xcr0": 0x3}) == 2, "AVX in the CPU, not enabled by the system"


@needs_x86
@pytest.mark.parametrize(
    ("level", "target"),
    [("x86-64-v2", "SSE4.2"), ("x86-64-v3", "AVX2"), ("x86-64-v4", "AVX-512 F BW CD DQ VL")],
)
def test_each_level_was_compiled_for_what_it_says(level: str, target: str) -> None:
    use_level(level)
    assert instep.config()["isa"]["used"] == level
    assert instep.config()["isa"]["target"] == target


@needs_x86
def test_supported_levels_are_those_of_the_cpu() -> None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except OSError:
        pytest.skip("no /proc/cpuinfo here")
    wanted = {"x86-64-v2": "sse4_2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}
    assert list(instep.isa_levels()) == [name for name in LEVELS if wanted[name] in flags]


def test_the_best_is_the_default() -> None:
    assert output("import instep; print(instep.config()['isa']['used'])") == instep.isa_levels()[0]


@pytest.mark.parametrize("level", LEVELS)
def test_forced_by_the_environment(level: str) -> None:
    use_level(level)
    code = "import instep; print(instep.config()['isa']['used'])"
    assert output(code, INSTEP_ISA=level) == level


@pytest.mark.parametrize("name", ["avx512", "", "x86-64-v9", "X86-64-V2"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"level must be one of .*, got '{name}'"):
        instep.set_isa(name)
    done = run("import instep", INSTEP_ISA=name)
    if not name:  # as good as not set
        assert done.returncode == 0
        return
    assert done.returncode != 0
    assert "the environment variable INSTEP_ISA" in done.stderr


def test_wrong_type() -> None:
    bad: Any = 3
    with pytest.raises(TypeError, match=r"the instruction-set level must be one of .*, got an int"):
        instep.set_isa(bad)


def test_the_level_may_change_between_steps() -> None:
    rng = np.random.default_rng(13)
    p, q = (np.ones(100, "f4") for _ in range(2))
    a, b = instep.Adam(p), instep.Adam(q)
    for k in range(6):
        g = rng.standard_normal(100)
        instep.set_isa(instep.isa_levels()[k % len(instep.isa_levels())])
        a.step(g)
        instep.set_isa(instep.isa_levels()[0])
        b.step(g)
    assert p.tobytes() == q.tobytes()
