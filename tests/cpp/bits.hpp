// Inputs and digests, by integer operations alone: what tests/helpers/bit_patterns.py has under the same names, word
// for word.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/interface.hpp"

namespace instep::digests {

struct Encoding {
    const char* name;
    int exponent_bits, fraction_bits;  // integers have no exponent

    constexpr std::int64_t size() const { return (1 + exponent_bits + fraction_bits) / 8; }
};

constexpr std::array<Encoding, format_count> encodings = {{{"float64", 11, 52},
                                                           {"float32", 8, 23},
                                                           {"float16", 5, 10},
                                                           {"bfloat16", 8, 7},
                                                           {"root16", 5, 10},
                                                           {"int8", 0, 7},
                                                           {"uint8", 0, 7},
                                                           {"bfloat16_8", 8, 7},
                                                           {"bfloat16_16", 8, 7},
                                                           {"int16", 0, 15}}};

constexpr const Encoding& encoding(Format format) { return encodings[static_cast<std::size_t>(format)]; }

// splitmix64's finaliser.
constexpr std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// Number i of splitmix64 started at that seed.
constexpr std::uint64_t word(std::uint64_t seed, std::uint64_t i) { return mix((i + 1) * 0x9e3779b97f4a7c15 + seed); }

constexpr std::uint64_t fold(std::uint64_t state, std::uint64_t value) { return mix(word(state, 0) ^ value); }

// The bits of element i of an array of numbers.
constexpr std::uint64_t number(Format format, bool special, std::uint64_t seed, std::uint64_t i) {
    const auto exponent_bits = static_cast<unsigned>(encoding(format).exponent_bits);
    const auto fraction_bits = static_cast<unsigned>(encoding(format).fraction_bits);
    const std::uint64_t largest = (std::uint64_t{1} << exponent_bits) - 1;
    const std::uint64_t r = word(seed, i);
    std::uint64_t fraction = r & ((std::uint64_t{1} << fraction_bits) - 1);
    std::uint64_t exponent = (r >> 52 & 7) + largest / 2 - 6;
    if (special) switch (r >> 55 & 15) {
            case 0: exponent = fraction = 0; break;
            case 1: exponent = 0; break;
            case 2: exponent = largest - 1; break;
            case 3:
                exponent = largest;
                if ((r >> 59 & 1) == 0) fraction = 0;
                break;
            default: break;
        }
    return ((r >> 63 << exponent_bits) | exponent) << fraction_bits | fraction;
}

constexpr bool is_nan(Format format, std::uint64_t bits) {
    const auto exponent_bits = static_cast<unsigned>(encoding(format).exponent_bits);
    const auto fraction_bits = static_cast<unsigned>(encoding(format).fraction_bits);
    if (exponent_bits == 0) return false;
    const std::uint64_t infinity = ((std::uint64_t{1} << exponent_bits) - 1) << fraction_bits;
    return (bits & ((std::uint64_t{1} << (exponent_bits + fraction_bits)) - 1)) > infinity;
}

// What an element's bits add to an array's digest: every NaN the same, for neither sign nor payload is promised.
constexpr std::uint64_t element(Format format, std::uint64_t bits, std::uint64_t i) {
    return mix(word(0, i) ^ (is_nan(format, bits) ? ~std::uint64_t{0} : bits));
}

}  // namespace instep::digests
