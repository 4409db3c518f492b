// The instruction sets that this CPU and operating system support.
#pragma once

#include <cstdint>

namespace instep {

// The CPUID and XCR0 words on which x86-64 levels depend. They are separate from the function that reads them, so that
// tests can ask about other machines than their own.
struct CpuWords {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t extended1_ecx = 0;
    std::uint64_t xcr0 = 0;  // 0 if the operating system hasn't enabled XSAVE
};

CpuWords read_cpu_words();

// The highest x86-64 microarchitecture level of the psABI (2, 3 or 4; 1 if not even 2). A register state counts only if
// the operating system saves it on a context switch.
int x86_64_level(const CpuWords& words);

}  // namespace instep
