// Reading and rounding by instructions of the CPU that compilers don't find themselves. The rules' loops need none of
// them, and a rule compiles in half the time without the header of the intrinsics.
#pragma once

#include "kernels/formats.hpp"
#include "kernels/intrinsics.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

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

INSTEP_INLINE std::int64_t load_vectors(Root16 /* format */, const std::uint16_t* from, float* to, std::int64_t count) {
    const std::int64_t done = load_vectors(Float16{}, from, to, count);
    for (std::int64_t i = 0; i < done; ++i) to[i] = to[i] * to[i];
    return done;
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

}  // namespace
}  // namespace instep::INSTEP_LEVEL
