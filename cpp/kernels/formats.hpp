// The element formats: reading into the compute type and rounding back. There are no branches, so that the compiler
// vectorises it at every level.
#pragma once

#include <cstdint>

#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

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
};

// Read and round the first elements by instructions of the CPU, if it has any for this, and return the number of these
// elements.
template <class F, class T>
INSTEP_INLINE std::int64_t load_vectors(F /* format */, const typename F::Stored* /* from */, T* /* to */,
                                        std::int64_t /* count */) {
    return 0;
}
template <class F, class T>
INSTEP_INLINE std::int64_t store_vectors(F /* format */, typename F::Stored* /* to */, const T* /* from */,
                                         std::int64_t /* count */) {
    return 0;
}

#if defined(__F16C__)
INSTEP_INLINE std::int64_t load_vectors(Float16 /* format */, const std::uint16_t* from, float* to,
                                        std::int64_t count) {
    constexpr std::int64_t wide = 8;
    std::int64_t i = 0;
    for (; i + wide <= count; i += wide)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    return i;
}

// The instruction rounds as Float16::store does, in any floating-point environment, but keeps some of a NaN's payload.
INSTEP_INLINE std::int64_t store_vectors(Float16 /* format */, std::uint16_t* to, const float* from,
                                         std::int64_t count) {
    constexpr std::int64_t wide = 8;
    const __m128i sign_mask = _mm_set1_epi16(INT16_MIN);
    const __m128i infinity = _mm_set1_epi16(0x7c00);
    const __m128i nan = _mm_set1_epi16(0x7e00);
    std::int64_t i = 0;
    for (; i + wide <= count; i += wide) {
        const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
        const __m128i sign = _mm_and_si128(half, sign_mask);
        const __m128i is_nan = _mm_cmpgt_epi16(_mm_andnot_si128(sign_mask, half), infinity);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm_blendv_epi8(half, _mm_or_si128(sign, nan), is_nan));
    }
    return i;
}
#endif

// AVX-512 has an instruction that packs, and GCC uses it without help.
#if defined(__AVX2__) && !defined(__AVX512F__)
INSTEP_INLINE std::int64_t load_vectors(BFloat16 /* format */, const std::uint16_t* from, float* to,
                                        std::int64_t count) {
    constexpr std::int64_t wide = 8;
    std::int64_t i = 0;
    for (; i + wide <= count; i += wide) {
        const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
        _mm256_storeu_ps(to + i, _mm256_castsi256_ps(_mm256_slli_epi32(low, 16)));
    }
    return i;
}

// BFloat16::store of eight numbers, as integers of 32 bits.
INSTEP_INLINE __m256i rounded_to_bfloat16(const float* from) {
    const __m256 x = _mm256_loadu_ps(from);
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), last);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0x7fc0), is_nan);
}

INSTEP_INLINE std::int64_t store_vectors(BFloat16 /* format */, std::uint16_t* to, const float* from,
                                         std::int64_t count) {
    constexpr std::int64_t wide = 16;
    constexpr int in_order = 0xd8;  // the packing takes the lower halves of both vectors first
    std::int64_t i = 0;
    for (; i + wide <= count; i += wide) {
        const __m256i packed = _mm256_packus_epi32(rounded_to_bfloat16(from + i), rounded_to_bfloat16(from + i + 8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_permute4x64_epi64(packed, in_order));
    }
    return i;
}
#endif

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
