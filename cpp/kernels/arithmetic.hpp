// The elementary operations that the rules use, besides + - * /.
//
// Everything that is compiled for a level is in an unnamed namespace inside the level's namespace: it has internal
// linkage, so that two levels can never share a symbol. For the same reason, no inline functions of the standard
// library are used.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/inlining.hpp"

#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off)  // like -ffp-contract=off; without it, older versions round a*b+c once
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

#if defined(__GNUC__)
INSTEP_INLINE float magnitude(float x) { return __builtin_fabsf(x); }
INSTEP_INLINE double magnitude(double x) { return __builtin_fabs(x); }
#else
INSTEP_INLINE float magnitude(float x) { return fabsf(x); }
INSTEP_INLINE double magnitude(double x) { return fabs(x); }
#endif

// NaN if either is NaN, like np.maximum.
template <class T>
INSTEP_INLINE T maximum(T x, T y) {
    return (x >= y || x != x) ? x : y;
}

// min(max(x, low), high) for limits that are not NaN. They need no check, so the compiler makes two vector
// instructions.
template <class T>
INSTEP_INLINE T clamp(T x, T low, T high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

template <class T>
INSTEP_INLINE T clamp(T x, T limit) {
    return clamp(x, -limit, limit);
}

// a where the condition holds, else b. GCC vectorises this also where it leaves several `?:` in a loop as branches.
template <class T>
INSTEP_INLINE T where(bool condition, T a, T b) {
    using Bits = decltype(as_bits(T()));
    const Bits mask = -static_cast<Bits>(condition);
    return from_bits((as_bits(a) & mask) | (as_bits(b) & ~mask));
}

// Chooses between two numbers by a condition that is the same for all elements. GCC moves a `?:` with such a condition
// out of the loop, and doesn't vectorise one of the two loops that result.
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

// Like np.sign: +0 for either zero, NaN for NaN.
template <class T>
INSTEP_INLINE T sign(T x) {
    return x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x;
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
