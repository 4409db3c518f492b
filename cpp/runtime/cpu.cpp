#include "runtime/cpu.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#define INSTEP_X86_64 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace instep {

namespace {

constexpr bool has_all(std::uint64_t word, std::uint64_t bits) { return (word & bits) == bits; }

constexpr std::uint64_t bit(int position) { return std::uint64_t{1} << position; }

}  // namespace

CpuWords read_cpu_words() {
    CpuWords words;
#if defined(INSTEP_X86_64) && defined(_MSC_VER)
    int registers[4];
    __cpuid(registers, 0);
    const int highest = registers[0];
    __cpuid(registers, 1);
    words.leaf1_ecx = static_cast<std::uint32_t>(registers[2]);
    if (highest >= 7) {
        __cpuidex(registers, 7, 0);
        words.leaf7_ebx = static_cast<std::uint32_t>(registers[1]);
    }
    __cpuid(registers, static_cast<int>(0x80000001));
    words.extended1_ecx = static_cast<std::uint32_t>(registers[2]);
    if (has_all(words.leaf1_ecx, bit(27))) words.xcr0 = _xgetbv(0);
#elif defined(INSTEP_X86_64)
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) words.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) words.leaf7_ebx = ebx;
    if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx)) words.extended1_ecx = ecx;
    if (has_all(words.leaf1_ecx, bit(27))) {  // OSXSAVE: xgetbv may be executed
        std::uint32_t low = 0;
        std::uint32_t high = 0;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        words.xcr0 = (std::uint64_t{high} << 32) | low;
    }
#endif
    return words;
}

int x86_64_level(const CpuWords& words) {
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF in 64-bit mode
    if (!has_all(words.leaf1_ecx, bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23))) return 1;
    if (!has_all(words.extended1_ecx, bit(0))) return 1;
    // FMA, MOVBE, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; the XMM and YMM states
    if (!has_all(words.leaf1_ecx, bit(12) | bit(22) | bit(27) | bit(28) | bit(29))) return 2;
    if (!has_all(words.leaf7_ebx, bit(3) | bit(5) | bit(8))) return 2;
    if (!has_all(words.extended1_ecx, bit(5))) return 2;
    if (!has_all(words.xcr0, bit(1) | bit(2))) return 2;
    // AVX-512 F, DQ, CD, BW, VL; the mask, upper ZMM and high ZMM states
    if (!has_all(words.leaf7_ebx, bit(16) | bit(17) | bit(28) | bit(30) | bit(31))) return 3;
    if (!has_all(words.xcr0, bit(5) | bit(6) | bit(7))) return 3;
    return 4;
}

}  // namespace instep
