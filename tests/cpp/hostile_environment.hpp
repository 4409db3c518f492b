// A caller's floating-point environment at its worst: rounding upwards and, where the machine can, subnormals flushed.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace instep::digests {

class HostileEnvironment {
public:
    explicit HostileEnvironment(bool hostile) : saved_(read()) {
        if (!hostile) return;
#if defined(__x86_64__) || defined(_M_X64)
        _mm_setcsr(saved_ | 0x8000 | 0x4000 | 0x0040);  // FTZ, up, DAZ
#elif defined(__aarch64__)
        write(saved_ | 1U << 24 | 1U << 22);  // FZ, up
#else
        std::fesetround(FE_UPWARD);
#endif
        set_ = read();
    }
    ~HostileEnvironment() { write(saved_); }
    HostileEnvironment(const HostileEnvironment&) = delete;
    HostileEnvironment& operator=(const HostileEnvironment&) = delete;
    HostileEnvironment(HostileEnvironment&&) = delete;
    HostileEnvironment& operator=(HostileEnvironment&&) = delete;

    bool intact() const { return read() == set_; }

private:
#if defined(__x86_64__) || defined(_M_X64)
    using Word = unsigned;
    static Word read() { return _mm_getcsr(); }
    static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
    using Word = std::uint64_t;
    static Word read() {
        Word word = 0;
        __asm__ volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    static void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
    using Word = int;
    static Word read() { return std::fegetround(); }
    static void write(Word word) { std::fesetround(word); }
#endif

    Word saved_;
    Word set_ = saved_;
};

}  // namespace instep::digests
