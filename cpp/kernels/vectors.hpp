// Vectors of floats and of integers of 32 bits, and how narrower elements become such vectors and are made of them
// again. Compilers widen and narrow in more steps than necessary. The arithmetic is that of the scalar code beside each
// use, which says why.
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"
#include "kernels/intrinsics.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

#if defined(__AVX2__)
// Of eight unsigned integers.
INSTEP_INLINE std::uint32_t largest_of_half(__m256i x) {
    __m128i quarter = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    quarter = _mm_max_epu32(quarter, _mm_shuffle_epi32(quarter, 0x4e));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(quarter, _mm_shuffle_epi32(quarter, 0xb1))));
}
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define INSTEP_HAS_VECTORS

struct Vector {
    static constexpr std::int64_t lanes = 16;
    using Floats = __m512;
    using Ints = __m512i;

    INSTEP_INLINE static Floats load(const float* from) { return _mm512_loadu_ps(from); }
    INSTEP_INLINE static Ints load(const std::uint32_t* from) { return _mm512_loadu_si512(from); }
    INSTEP_INLINE static void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
    INSTEP_INLINE static Floats all(float x) { return _mm512_set1_ps(x); }
    INSTEP_INLINE static Ints all(std::int32_t x) { return bits(all(INSTEP_LEVEL::from_bits(x))); }
    INSTEP_INLINE static Ints bits(Floats x) { return _mm512_castps_si512(x); }
    INSTEP_INLINE static Floats from_bits(Ints x) { return _mm512_castsi512_ps(x); }
    INSTEP_INLINE static Ints both(Ints x, Ints y) { return _mm512_and_si512(x, y); }
    INSTEP_INLINE static Ints either(Ints x, Ints y) { return _mm512_or_si512(x, y); }
    template <int Shift>
    INSTEP_INLINE static Ints moved(Ints x) {
        if constexpr (Shift < 0) return _mm512_srli_epi32(x, static_cast<unsigned>(-Shift));
        return _mm512_slli_epi32(x, static_cast<unsigned>(Shift < 0 ? 0 : Shift));
    }
    INSTEP_INLINE static Floats product(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
    INSTEP_INLINE static Floats sum(Floats x, Floats y) { return _mm512_add_ps(x, y); }
    INSTEP_INLINE static Floats difference(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
    INSTEP_INLINE static Ints larger(Ints x, Ints y) { return _mm512_max_epu32(x, y); }
    INSTEP_INLINE static Ints smaller(Ints x, Ints y) { return _mm512_min_epi32(x, y); }
    INSTEP_INLINE static Ints cut(Floats x) { return _mm512_cvttps_epi32(x); }
    INSTEP_INLINE static std::uint32_t largest(Ints x) {
        return largest_of_half(_mm256_max_epu32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)));
    }

    INSTEP_INLINE static Floats widened(const std::int8_t* codes) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))));
    }
    INSTEP_INLINE static Floats widened(const std::uint8_t* codes) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))));
    }

    INSTEP_INLINE static Ints widened_bits(const std::uint16_t* from) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    INSTEP_INLINE static Ints widened_bits(const std::int16_t* from) {
        return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    INSTEP_INLINE static Ints widened_bits(const std::int8_t* from) {
        return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    INSTEP_INLINE static Ints sum(Ints x, Ints y) { return _mm512_add_epi32(x, y); }
    INSTEP_INLINE static Ints difference(Ints x, Ints y) { return _mm512_sub_epi32(x, y); }
    // The second where the number is not NaN.
    INSTEP_INLINE static Ints unless_nan(Floats x, Ints nan, Ints other) {
        return _mm512_mask_mov_epi32(other, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
    }

    // Packing works within each quarter of a vector.
    INSTEP_INLINE static void narrow(std::uint16_t* to, Ints first, Ints second) {
        write16(to, _mm512_packus_epi32(first, second));
    }
    INSTEP_INLINE static void narrow(std::int16_t* to, Ints first, Ints second) {
        write16(to, _mm512_packs_epi32(first, second));
    }
    INSTEP_INLINE static void narrow(std::int8_t* codes, const Ints* x) {
        write(codes, _mm512_packs_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])));
    }
    INSTEP_INLINE static void narrow(std::uint8_t* codes, const Ints* x) {
        write(codes, _mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])));
    }

private:
    INSTEP_INLINE static void write16(void* to, Ints packed) {
        _mm512_storeu_si512(to, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed));
    }
    INSTEP_INLINE static void write(void* codes, Ints packed) {
        const Ints order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_storeu_si512(codes, _mm512_permutexvar_epi32(order, packed));
    }
};

#elif defined(__AVX2__)
#define INSTEP_HAS_VECTORS

struct Vector {
    static constexpr std::int64_t lanes = 8;
    using Floats = __m256;
    using Ints = __m256i;

    INSTEP_INLINE static Floats load(const float* from) { return _mm256_loadu_ps(from); }
    INSTEP_INLINE static Ints load(const std::uint32_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    INSTEP_INLINE static void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
    INSTEP_INLINE static Floats all(float x) { return _mm256_set1_ps(x); }
    INSTEP_INLINE static Ints all(std::int32_t x) { return bits(all(INSTEP_LEVEL::from_bits(x))); }
    INSTEP_INLINE static Ints bits(Floats x) { return _mm256_castps_si256(x); }
    INSTEP_INLINE static Floats from_bits(Ints x) { return _mm256_castsi256_ps(x); }
    INSTEP_INLINE static Ints both(Ints x, Ints y) { return _mm256_and_si256(x, y); }
    INSTEP_INLINE static Ints either(Ints x, Ints y) { return _mm256_or_si256(x, y); }
    template <int Shift>
    INSTEP_INLINE static Ints moved(Ints x) {
        if constexpr (Shift < 0) return _mm256_srli_epi32(x, -Shift);
        return _mm256_slli_epi32(x, Shift < 0 ? 0 : Shift);
    }
    INSTEP_INLINE static Floats product(Floats x, Floats y) { return _mm256_mul_ps(x, y); }
    INSTEP_INLINE static Floats sum(Floats x, Floats y) { return _mm256_add_ps(x, y); }
    INSTEP_INLINE static Floats difference(Floats x, Floats y) { return _mm256_sub_ps(x, y); }
    INSTEP_INLINE static Ints larger(Ints x, Ints y) { return _mm256_max_epu32(x, y); }
    INSTEP_INLINE static Ints smaller(Ints x, Ints y) { return _mm256_min_epi32(x, y); }
    INSTEP_INLINE static Ints cut(Floats x) { return _mm256_cvttps_epi32(x); }
    INSTEP_INLINE static std::uint32_t largest(Ints x) { return largest_of_half(x); }

    INSTEP_INLINE static Floats widened(const std::int8_t* codes) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))));
    }
    INSTEP_INLINE static Floats widened(const std::uint8_t* codes) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))));
    }

    INSTEP_INLINE static Ints widened_bits(const std::uint16_t* from) {
        return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    INSTEP_INLINE static Ints widened_bits(const std::int16_t* from) {
        return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    INSTEP_INLINE static Ints widened_bits(const std::int8_t* from) {
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    }
    INSTEP_INLINE static Ints sum(Ints x, Ints y) { return _mm256_add_epi32(x, y); }
    INSTEP_INLINE static Ints difference(Ints x, Ints y) { return _mm256_sub_epi32(x, y); }
    // The second where the number is not NaN.
    INSTEP_INLINE static Ints unless_nan(Floats x, Ints nan, Ints other) {
        return _mm256_blendv_epi8(other, nan, bits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
    }

    // Packing works within each half of a vector.
    INSTEP_INLINE static void narrow(std::uint16_t* to, Ints first, Ints second) {
        write16(to, _mm256_packus_epi32(first, second));
    }
    INSTEP_INLINE static void narrow(std::int16_t* to, Ints first, Ints second) {
        write16(to, _mm256_packs_epi32(first, second));
    }
    INSTEP_INLINE static void narrow(std::int8_t* codes, const Ints* x) {
        write(codes, _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3])));
    }
    INSTEP_INLINE static void narrow(std::uint8_t* codes, const Ints* x) {
        write(codes, _mm256_packus_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3])));
    }

private:
    INSTEP_INLINE static void write16(void* to, Ints packed) {
        constexpr int in_order = 0xd8;
        _mm256_storeu_si256(static_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, in_order));
    }
    INSTEP_INLINE static void write(void* codes, Ints packed) {
        const Ints order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(static_cast<__m256i*>(codes), _mm256_permutevar8x32_epi32(packed, order));
    }
};
#endif

// Writes the first words as elements of 16 bits, which they fit, and returns how many.
INSTEP_INLINE std::int64_t narrow_words([[maybe_unused]] const std::uint32_t* words,
                                        [[maybe_unused]] std::int64_t count, [[maybe_unused]] std::uint16_t* to) {
    std::int64_t i = 0;
#if defined(INSTEP_HAS_VECTORS)
    for (; i + 2 * Vector::lanes <= count; i += 2 * Vector::lanes)
        Vector::narrow(to + i, Vector::load(words + i), Vector::load(words + i + Vector::lanes));
#endif
    return i;
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
