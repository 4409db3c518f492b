// States in 8 bits: blocks of 64 codes with a unit. A code is the rounded square root of a number, with its sign, in
// units of the block. docs/semantics-storage.md has the arithmetic.
#pragma once

#include "kernels/random_numbers.hpp"
#include "kernels/vectors.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <bool Signed>
struct CodeOf {
    using Stored = std::int8_t;
    static constexpr float most = 127;
};
template <>
struct CodeOf<false> {
    using Stored = std::uint8_t;
    static constexpr float most = 255;
};

template <bool Signed>
INSTEP_INLINE float decoded(typename CodeOf<Signed>::Stored code, float unit) {
    const float t = static_cast<float>(code) * unit;
    return t * (Signed ? magnitude(t) : t);
}

// The square root of a number's magnitude, which the rule may have taken already.
template <bool Signed>
INSTEP_INLINE float root_of(float x) {
    return square_root(Signed ? magnitude(x) : x);
}

// What the codes of a block follow from: the largest root, which is the root of the largest number, since roots are
// rounded monotonically.
struct Scale {
    float unit, factor;  // factor: of roots
};

INSTEP_INLINE bool is_finite(std::uint32_t largest) { return largest < 0x7f800000; }

// Of `Count` states at once: a CPU divides vectors as fast as numbers.
template <std::size_t Count>
INSTEP_INLINE void find_scales(const std::uint32_t (&largest)[Count], const float (&most)[Count],
                               Scale (&scales)[Count]) {
    float above[2 * Count];
    float below[2 * Count];
    float found[2 * Count];
    for (std::size_t k = 0; k < Count; ++k) {
        const float root = from_bits(static_cast<std::int32_t>(largest[k]));
        above[2 * k] = below[2 * k + 1] = root;
        above[2 * k + 1] = below[2 * k] = most[k];
    }
    for (std::size_t k = 0; k < 2 * Count; ++k) found[k] = above[k] / below[k];
    for (std::size_t k = 0; k < Count; ++k) scales[k] = {found[2 * k], largest[k] == 0 ? 0.0F : found[2 * k + 1]};
}

// The code of a number with this root. The product may exceed `most` by a few last places, and the sum stays below
// most + 1 all the same, so that neither needs a limit.
template <bool Signed>
INSTEP_INLINE typename CodeOf<Signed>::Stored code_of(float value, float root, float factor, float random) {
    const float sum = root * factor + random;
    if constexpr (Signed) {
        const float with_sign = from_bits(as_bits(sum) | (as_bits(value) & INT32_MIN));
        return static_cast<std::int8_t>(static_cast<std::int32_t>(with_sign));
    } else {
        const auto code = static_cast<std::int32_t>(sum);
        // A number that vanished under one that did not would make a huge step.
        const std::int32_t least = as_bits(root) > 0 ? 1 : 0;
        return static_cast<std::uint8_t>(code > least ? code : least);
    }
}

// The numbers of a whole block, in float; and the block that they become, from their roots. With random numbers, each
// for element j of the first half and of the second, of which `part` says the bytes; null: to nearest.
#if defined(INSTEP_HAS_VECTORS)
template <bool Signed>
INSTEP_INLINE void decode_block(const typename CodeOf<Signed>::Stored* codes, float unit, float* to) {
    using V = Vector;
    const auto units = V::all(unit);
    for (std::int64_t j = 0; j < code_block; j += V::lanes) {
        const auto t = V::product(V::widened(codes + j), units);
        const auto factor = Signed ? V::from_bits(V::both(V::bits(t), V::all(INT32_MAX))) : t;
        V::store(to + j, V::product(t, factor));
    }
}

// As unsigned integers, in which any NaN is larger than infinity, whatever its sign.
INSTEP_INLINE std::uint32_t largest_root(const float* roots) {
    using V = Vector;
    auto found = V::bits(V::load(roots));
    for (std::int64_t j = V::lanes; j < code_block; j += V::lanes)
        found = V::larger(found, V::bits(V::load(roots + j)));
    return V::largest(found);
}

template <int Part>
INSTEP_INLINE Vector::Floats fractions(Vector::Ints numbers, std::int64_t j) {
    using V = Vector;
    const auto shifted = j < code_pairs ? V::moved<15 - 8 * Part>(numbers) : V::moved<-1 - 8 * Part>(numbers);
    const auto with_one = V::either(V::both(shifted, V::all(0xff << 15)), V::all(0x3f800000 | (1 << 14)));
    return V::difference(V::from_bits(with_one), V::all(1.0F));
}

// The codes of a vector of numbers, the first of which is element j of its block.
template <bool Signed, bool Random, int Part>
INSTEP_INLINE Vector::Ints codes_of(const float* values, const float* roots, std::int64_t j, Vector::Floats factor,
                                    const std::uint32_t* numbers) {
    using V = Vector;
    const auto root = V::load(roots + j);
    const auto y = V::product(root, factor);
    const auto sum = V::sum(y, Random ? fractions<Part>(V::load(numbers + j % code_pairs), j) : V::all(0.5F));
    if constexpr (Signed) {
        const auto sign = V::both(V::bits(V::load(values + j)), V::all(INT32_MIN));
        return V::cut(V::from_bits(V::either(V::bits(sum), sign)));
    } else {
        return V::larger(V::cut(sum), V::smaller(V::bits(root), V::all(std::int32_t{1})));
    }
}

template <class Stored>
INSTEP_INLINE void narrow_block(Stored* codes, const Vector::Ints (&found)[code_block / Vector::lanes]) {
    for (std::int64_t k = 0; k < code_block / Vector::lanes; k += 4)
        Vector::narrow(codes + k * Vector::lanes, found + k);
}

template <bool Signed, bool Random, int Part>
INSTEP_INLINE void encode_block_as(const float* values, const float* roots, float factor, const std::uint32_t* numbers,
                                   typename CodeOf<Signed>::Stored* codes) {
    Vector::Ints found[code_block / Vector::lanes];
    for (std::int64_t j = 0; j < code_block; j += Vector::lanes)
        found[j / Vector::lanes] = codes_of<Signed, Random, Part>(values, roots, j, Vector::all(factor), numbers);
    narrow_block(codes, found);
}

template <bool Signed>
INSTEP_INLINE void encode_block(const float* values, const float* roots, float factor, const std::uint32_t* numbers,
                                int part, typename CodeOf<Signed>::Stored* codes) {
    if (numbers == nullptr) return encode_block_as<Signed, false, 0>(values, roots, factor, numbers, codes);
    if (part == 0) return encode_block_as<Signed, true, 0>(values, roots, factor, numbers, codes);
    encode_block_as<Signed, true, 1>(values, roots, factor, numbers, codes);
}
#else
template <bool Signed>
INSTEP_INLINE void decode_block(const typename CodeOf<Signed>::Stored* codes, float unit, float* to) {
    for (std::int64_t j = 0; j < code_block; ++j) to[j] = decoded<Signed>(codes[j], unit);
}

INSTEP_INLINE std::uint32_t largest_root(const float* roots) {
    std::uint32_t largest = 0;
    for (std::int64_t j = 0; j < code_block; ++j) {
        const auto bits = static_cast<std::uint32_t>(as_bits(roots[j]));
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

template <bool Signed>
INSTEP_INLINE void encode_block(const float* values, const float* roots, float factor, const std::uint32_t* numbers,
                                int part, typename CodeOf<Signed>::Stored* codes) {
    if (numbers == nullptr) {
        for (std::int64_t j = 0; j < code_block; ++j) codes[j] = code_of<Signed>(values[j], roots[j], factor, 0.5F);
        return;
    }
    for (std::int64_t first = 0; first < code_block; first += code_pairs) {
        float random[code_pairs];
        const int shift = 8 * part + (first == 0 ? 0 : 16);
        for (std::int64_t j = 0; j < code_pairs; ++j) random[j] = fraction(numbers[j], shift);
        for (std::int64_t j = 0; j < code_pairs; ++j)
            codes[first + j] = code_of<Signed>(values[first + j], roots[first + j], factor, random[j]);
    }
}
#endif

// If a number is not finite, the whole block becomes NaN.
template <class Stored>
INSTEP_INLINE void spoil(Stored* codes, float* unit) {
    *unit = from_bits(std::int32_t{0x7fc00000});
    memset(codes, 0, code_block);
}

// The block's unit and codes.
template <bool Signed>
INSTEP_INLINE void store_codes(const float* values, const float* roots, std::uint32_t largest, Scale scale,
                               const std::uint32_t* numbers, int part, typename CodeOf<Signed>::Stored* codes,
                               float* unit) {
    if (!is_finite(largest)) return spoil(codes, unit);
    *unit = scale.unit;
    encode_block<Signed>(values, roots, scale.factor, numbers, part, codes);
}

// The same for a block that may be shorter, as the last of a parameter is.
template <bool Signed>
INSTEP_INLINE void store_last(const float* values, const float* roots, std::int64_t count, std::uint32_t largest,
                              Scale scale, const std::uint32_t* numbers, int part,
                              typename CodeOf<Signed>::Stored* codes, float* unit) {
    if (count == code_block) return store_codes<Signed>(values, roots, largest, scale, numbers, part, codes, unit);
    alignas(64) typename CodeOf<Signed>::Stored last[code_block];
    store_codes<Signed>(values, roots, largest, scale, numbers, part, last, unit);
    memcpy(codes, last, static_cast<std::size_t>(count));
}

template <bool Signed>
INSTEP_INLINE void load_last(const typename CodeOf<Signed>::Stored* codes, std::int64_t count, float unit, float* to) {
    if (count == code_block) return decode_block<Signed>(codes, unit, to);
    for (std::int64_t j = 0; j < count; ++j) to[j] = decoded<Signed>(codes[j], unit);
}

// Reads and writes blocks of codes one after another.
template <bool Signed>
struct CodeBlocks {
    using Stored = typename CodeOf<Signed>::Stored;

    static void load(const Operand& operand, std::int64_t begin, std::int64_t count, float* to) {
        const Stored* codes = reinterpret_cast<const Stored*>(operand.data) + begin;
        const float* unit = reinterpret_cast<const float*>(operand.companion) + begin / code_block;
        for (; count > 0; codes += code_block, to += code_block, count -= code_block, ++unit)
            load_last<Signed>(codes, count < code_block ? count : code_block, *unit, to);
    }

    static void store(const Operand& operand, std::int64_t begin, std::int64_t count, const float* from,
                      const std::uint32_t* numbers) {
        auto* codes = reinterpret_cast<Stored*>(operand.data) + begin;
        float* unit = reinterpret_cast<float*>(operand.companion) + begin / code_block;
        alignas(64) float roots[code_block];
        alignas(64) float last[code_block];
        for (; count > 0; codes += code_block, from += code_block, count -= code_block, ++unit) {
            const std::int64_t length = count < code_block ? count : code_block;
            const float* values = from;
            if (length < code_block) {
                for (std::int64_t j = 0; j < code_block; ++j) last[j] = j < length ? from[j] : 0.0F;
                values = last;
            }
            for (std::int64_t j = 0; j < code_block; ++j) roots[j] = root_of<Signed>(values[j]);
            const std::uint32_t largest[1] = {largest_root(roots)};
            Scale scale[1];
            find_scales<1>(largest, {CodeOf<Signed>::most}, scale);
            store_last<Signed>(values, roots, length, largest[0], scale[0], numbers, operand.part, codes, unit);
            if (numbers != nullptr) numbers += code_pairs;
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
