// The element formats: reading into the compute type and rounding back. There are no branches, so that the compiler
// vectorises it at every level.
#pragma once

#include <cstdint>

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Rounds x to nearest even with Digits significant bits and least exponent MinExponent, in double: a conversion through
// float would round twice. Adding 1.5 * 2^k removes the bits below the last kept bit from the sum.
template <int Digits, int MinExponent>
INSTEP_INLINE double round_to(double x) {
    constexpr std::int64_t exponent_mask = 0x7ff0000000000000;
    constexpr std::int64_t lowest = std::int64_t{MinExponent + 1023} << 52;
    constexpr std::int64_t highest = std::int64_t{128 + 1023} << 52;  // beyond the infinity of every such format
    constexpr std::int64_t sign_mask = INT64_MIN;
    const std::int64_t bits = as_bits(x);
    std::int64_t exponent = bits & exponent_mask;
    exponent = exponent < lowest ? lowest : exponent;
    exponent = exponent > highest ? highest : exponent;
    const double shifter = from_bits((exponent + (std::int64_t{53 - Digits} << 52)) | 0x0008000000000000);
    const double rounded = (x + shifter) - shifter;
    return from_bits((as_bits(rounded) & ~sign_mask) | (bits & sign_mask));  // the sum loses the sign of a zero
}

struct Float64 {
    static constexpr Format format = Format::float64;
    using Stored = double;
    INSTEP_INLINE static double load(double x) { return x; }
    template <class T>
    INSTEP_INLINE static double store(T x) {
        return x;
    }
};

struct Float32 {
    static constexpr Format format = Format::float32;
    using Stored = float;
    INSTEP_INLINE static float load(float x) { return x; }
    template <class T>
    INSTEP_INLINE static float store(T x) {
        return static_cast<float>(x);
    }
};

struct Float16 {
    static constexpr Format format = Format::float16;
    using Stored = std::uint16_t;

    INSTEP_INLINE static float load(std::uint16_t stored) {
        const std::int32_t sign = (stored & 0x8000) << 16;
        const std::int32_t magnitude = (stored & 0x7fff) << 13;  // float's place, the exponent bias still 15
        constexpr std::int32_t rebias = (127 - 15) << 23;
        const float subnormal = from_bits(magnitude + rebias + (1 << 23)) - from_bits(rebias + (1 << 23));
        std::int32_t bits = magnitude + rebias;
        bits = magnitude < (1 << 23) ? as_bits(subnormal) : bits;
        bits = magnitude >= (31 << 23) ? bits + rebias : bits;                // infinity and NaN
        bits = magnitude > (31 << 23) ? bits | std::int32_t{1} << 22 : bits;  // a quiet NaN
        return from_bits(bits | static_cast<std::int32_t>(sign));
    }

    INSTEP_INLINE static std::uint16_t store(float x) {
        const std::int32_t sign = (as_bits(x) >> 16) & 0x8000;
        const std::int32_t magnitude = as_bits(x) & 0x7fffffff;
        constexpr std::int32_t rebias = (127 - 15) << 23;
        constexpr std::int32_t one_half = 126 << 23;  // its last place equals that of the format's subnormals
        // Below the overflow, the carry of the rounding goes on into the exponent, as it should.
        const std::int32_t normal = (magnitude - rebias + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        const std::int32_t subnormal = as_bits(from_bits(magnitude) + from_bits(one_half)) - one_half;
        std::int32_t bits = magnitude < rebias + (1 << 23) ? subnormal : normal;
        bits = magnitude >= (127 + 16) << 23 ? 0x7c00 : bits;
        bits = magnitude > 255 << 23 ? 0x7e00 : bits;
        return static_cast<std::uint16_t>(sign | bits);
    }

    INSTEP_INLINE static std::uint16_t store(double x) { return store(static_cast<float>(round_to<11, -14>(x))); }

    // Up with the probability that 16 random bits give, as an integer. Numbers of the format and infinities stay.
    template <class T>
    INSTEP_INLINE static std::uint32_t word_at_random(T value, std::uint32_t random) {
        const auto x = static_cast<float>(value);
        constexpr float to_last_places = 0x1p40F;  // of subnormals, with 16 bits after the point
        const std::int32_t sign = (as_bits(x) >> 16) & 0x8000;
        const std::int32_t magnitude = as_bits(x) & 0x7fffffff;
        const bool is_subnormal = magnitude < 0x38800000;
        const auto subnormal = static_cast<std::int32_t>((is_subnormal ? from_bits(magnitude) : 0.0F) * to_last_places);
        const std::int32_t normal = (magnitude < 0x47800000 ? magnitude - 0x38000000 : 0) * 8;
        std::int32_t bits = ((is_subnormal ? subnormal : normal) + static_cast<std::int32_t>(random)) >> 16;
        bits = magnitude >= 0x47800000 ? 0x7c00 : bits;
        bits = magnitude > 255 << 23 ? 0x7e00 : bits;
        return static_cast<std::uint32_t>(sign | bits);
    }
};

// The square root of a number that is never negative, in float16. The square is exact in float.
struct Root16 {
    static constexpr Format format = Format::root16;
    using Stored = std::uint16_t;

    INSTEP_INLINE static float load(std::uint16_t stored) {
        const float root = Float16::load(stored);
        return root * root;
    }

    template <class T>
    INSTEP_INLINE static std::uint16_t store(T x) {
        return Float16::store(square_root(x));
    }

    template <class T>
    INSTEP_INLINE static std::uint32_t word_at_random(T x, std::uint32_t random) {
        return Float16::word_at_random(square_root(x), random);
    }
};

struct BFloat16 {
    static constexpr Format format = Format::bfloat16;
    using Stored = std::uint16_t;

    INSTEP_INLINE static float load(std::uint16_t stored) {
        return from_bits(static_cast<std::int32_t>(std::uint32_t{stored} << 16));
    }

    INSTEP_INLINE static std::uint16_t store(float x) {
        const std::uint32_t bits = static_cast<std::uint32_t>(as_bits(x));
        const std::uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
        // All NaNs become the same NaN: keeping the payload costs the loop another shuffle of two vectors.
        return static_cast<std::uint16_t>((x != x ? 0x7fc00000 : rounded) >> 16);
    }

    INSTEP_INLINE static std::uint16_t store(double x) { return store(static_cast<float>(round_to<8, -126>(x))); }

    template <class T>
    INSTEP_INLINE static std::uint32_t word_at_random(T value, std::uint32_t random) {
        const auto x = static_cast<float>(value);
        const std::uint32_t sum = static_cast<std::uint32_t>(as_bits(x)) + random;
        return (x != x ? 0x7fc00000 : sum) >> 16;
    }
};

// The format that is the compute type itself.
template <class T>
struct NativeFormat {
    using Type = Float32;
};
template <>
struct NativeFormat<double> {
    using Type = Float64;
};
template <class T>
using Native = typename NativeFormat<T>::Type;

}  // namespace
}  // namespace instep::INSTEP_LEVEL
