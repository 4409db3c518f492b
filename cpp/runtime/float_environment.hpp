// The floating-point environment of a step, in place of the caller's: rounding to nearest, subnormals kept, no traps.
// Afterwards the caller's environment is restored, with its sticky flags.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace instep {

class FloatEnvironment {
public:
#if defined(__x86_64__) || defined(_M_X64)
    FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatEnvironment() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
    FloatEnvironment() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("mrs %0, fpsr" : "=r"(status_));
        __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
    }
    ~FloatEnvironment() {
        __asm__ volatile("msr fpcr, %0" : : "r"(saved_));
        __asm__ volatile("msr fpsr, %0" : : "r"(status_));
    }
#else
    FloatEnvironment() {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~FloatEnvironment() { std::fesetenv(&saved_); }
#endif
    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;
    FloatEnvironment(FloatEnvironment&&) = delete;
    FloatEnvironment& operator=(FloatEnvironment&&) = delete;

private:
#if defined(__x86_64__) || defined(_M_X64)
    unsigned saved_;
#elif defined(__aarch64__)
    std::uint64_t saved_;
    std::uint64_t status_;
#else
    std::fenv_t saved_;
#endif
};

}  // namespace instep
