// The elementary operations the rules are written in, beyond + - * /.
//
// Everything the levels compile lives in an unnamed namespace inside the level's own: internal linkage, so that no
// two levels can ever share a symbol. The library's inline functions are left out for the same reason.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/inlining.hpp"

#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off)  // its -ffp-contract=off; without, older versions round a*b+c once
#endif

namespace instep::INSTEP_LEVEL {
namespace {

#if defined(__GNUC__)
INSTEP_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
INSTEP_INLINE double square_root(double x) { return __builtin_sqrt(x); }
#else
INSTEP_INLINE float square_root(float x) { return sqrtf(x); }
INSTEP_INLINE double square_root(double x) { return sqrt(x); }
#endif

// The same bits as another type of the same size.
template <class To, class From>
INSTEP_INLINE To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

INSTEP_INLINE float from_bits(int32_t bits) { return same_bits<float>(bits); }
INSTEP_INLINE double from_bits(int64_t bits) { return same_bits<double>(bits); }
INSTEP_INLINE int32_t as_bits(float value) { return same_bits<int32_t>(value); }
INSTEP_INLINE int64_t as_bits(double value) { return same_bits<int64_t>(value); }

// NaN where either is NaN, as np.maximum.
template <class T>
INSTEP_INLINE T maximum(T x, T y) {
    return (x >= y || x != x) ? x : y;
}

// min(max(x, -limit), limit) for a limit that is a number: with no NaN to look for on its side, the compiler turns it
// into two vector instructions.
template <class T>
INSTEP_INLINE T clamp(T x, T limit) {
    x = x < -limit ? -limit : x;
    return x > limit ? limit : x;
}

// Chooses between two numbers by a condition that is the same for all elements. A `?:` of it GCC takes out of the loop,
// and of the two loops that makes it leaves one unvectorised.
template <class T>
class Choice {
public:
    Choice() = default;
    explicit Choice(bool first) : mask_(first ? -1 : 0) {}

    INSTEP_INLINE T operator()(T first, T second) const {
        return from_bits((as_bits(first) & mask_) | (as_bits(second) & ~mask_));
    }

private:
    decltype(as_bits(T())) mask_;
};

// As np.sign: +0 for either zero, NaN for NaN.
template <class T>
INSTEP_INLINE T sign(T x) {
    return x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x;
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
