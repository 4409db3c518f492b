// Random numbers that follow from a counter: from the seed, the parameter, its step and the element alone. So threads,
// blocks, levels and stretches change nothing (docs/semantics-storage.md).
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

struct Key {
    std::uint32_t low, high;
};

// The finalizer of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014.
inline std::uint64_t mix(std::uint64_t z) {
    z += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

// The keys of a tensor's streams at a step.
class Keys {
public:
    Keys(const Operands& of, const Recipe& recipe)
        : base_(mix(mix(mix(recipe.seed) ^ of.number) ^ static_cast<std::uint64_t>(recipe.t))) {}

    Key of(int stream, std::uint64_t counter) const {
        const std::uint64_t key = mix(base_ ^ (4 * (counter >> 32) + static_cast<std::uint64_t>(stream)));
        return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
    }

private:
    std::uint64_t base_;
};

// Three rounds of a hash of 32 bits, whose multipliers are those of C. Wellons' triple32, the key between the first
// two.
INSTEP_INLINE std::uint32_t random_number(std::uint32_t counter, Key key) {
    std::uint32_t x = counter ^ key.low;
    x ^= x >> 16;
    x *= 0x21f0aaad;
    x ^= x >> 15;
    x += key.high;
    x *= 0xd35a2d97;
    x ^= x >> 15;
    x *= 0x31848bab;
    x ^= x >> 14;
    return x;
}

// The numbers of `count` counters. Each 2^32 of them have a key.
inline void fill_random(std::uint32_t* to, std::uint64_t counter, std::int64_t count, const Keys& keys, int stream) {
    while (count > 0) {
        const Key key = keys.of(stream, counter);
        const auto first = static_cast<std::uint32_t>(counter);
        const auto left = static_cast<std::int64_t>((std::uint64_t{1} << 32) - first);
        const std::int64_t length = count < left ? count : left;
        for (std::int64_t i = 0; i < length; ++i) to[i] = random_number(first + static_cast<std::uint32_t>(i), key);
        to += length;
        counter += static_cast<std::uint64_t>(length);
        count -= length;
    }
}

// The 16 random bits of an operand.
INSTEP_INLINE std::uint32_t half_of(std::uint32_t number, int part) { return (number >> (16 * part)) & 0xffff; }

// Two elements of a block of codes share a number: element j of the first half and element j of the second.
constexpr std::int64_t code_pairs = code_block / 2;
inline std::uint64_t pair_counter(std::int64_t element) {
    return static_cast<std::uint64_t>(element / code_block * code_pairs);
}

// A byte of a random number as a number in (0, 1): (byte + 0.5) / 256. `shift` is the byte's place.
INSTEP_INLINE float fraction(std::uint32_t x, int shift) {
    const std::uint32_t byte = (x >> shift) & 0xff;
    return from_bits(static_cast<std::int32_t>(0x3f800000 | (byte << 15) | (1U << 14))) - 1.0F;
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
