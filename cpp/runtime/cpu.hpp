// What this CPU and operating system support.
#pragma once

#include <cstdint>

namespace instep {

// The CPUID and XCR0 words that x86-64 levels depend on. Kept apart from reading them so that tests can ask about
// machines other than their own.
struct CpuWords {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t extended1_ecx = 0;
    std::uint64_t xcr0 = 0;  // 0 where the operating system hasn't enabled XSAVE
};

CpuWords read_cpu_words();

// Highest x86-64 microarchitecture level (2, 3 or 4; 1 if not even 2) of the psABI, counting a register state only
// where the operating system saves it on a context switch.
int x86_64_level(const CpuWords& words);

}  // namespace instep
