// Parameters in bfloat16 with a remainder: the next 8 or 16 bits of each number, in a second array.
#pragma once

#include "kernels/formats.hpp"
#include "kernels/runs.hpp"
#include "kernels/vectors.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// A float as bfloat16, rounded to nearest with halves away from zero, and the rest in a second array. With all 16 bits
// of the rest, this is exact; with 8, the number is rounded to 24 bits before it is split.
template <class RestType, int RestBits>
struct Split {
    using Rest = RestType;
    static constexpr int rest_bits = RestBits;
    static constexpr int cut_bits = 16 - rest_bits;  // those that neither array has
    static constexpr std::uint32_t standard_nan = 0x7fc00000;

    INSTEP_INLINE static float join(std::uint16_t high, Rest rest) {
        const std::uint32_t kept = (std::uint32_t{high} << rest_bits) + static_cast<std::uint32_t>(std::int32_t{rest});
        return from_bits(static_cast<std::int32_t>(kept << cut_bits));
    }
    INSTEP_INLINE static std::uint16_t high(float x) {
        const std::uint32_t bits = static_cast<std::uint32_t>(as_bits(x)) + 0x8000;
        return static_cast<std::uint16_t>((x != x ? standard_nan : bits) >> 16);
    }
    INSTEP_INLINE static Rest rest(float x, std::uint16_t high) {
        const std::uint32_t kept = static_cast<std::uint32_t>(as_bits(x)) >> cut_bits;
        return static_cast<Rest>(x != x ? 0 : kept - (std::uint32_t{high} << rest_bits));
    }
    INSTEP_INLINE static float rounded(float x) {
        const auto bits = static_cast<std::uint32_t>(as_bits(x));
        return cut(x, bits + 0x7f + ((bits >> 8) & 1));
    }
    INSTEP_INLINE static float rounded_at_random(float x, std::uint32_t random) {
        return cut(x, static_cast<std::uint32_t>(as_bits(x)) + (random & 0xff));
    }

private:
    INSTEP_INLINE static float cut(float x, std::uint32_t bits) {
        if constexpr (cut_bits == 0)
            return x;
        else
            return from_bits(static_cast<std::int32_t>(x != x ? standard_nan : bits & 0xffffff00));
    }
};
using Split24 = Split<std::int8_t, 8>;
using Split32 = Split<std::int16_t, 16>;

// Pieces of both arrays, so that either may have gaps.
template <class Split>
struct SplitArrays {
    using High = std::uint16_t;
    using Rest = typename Split::Rest;
    static constexpr std::int64_t piece = 64;

    static void load(const Operand& operand, std::int64_t begin, std::int64_t count, float* to) {
        const bool lies = operand.view == nullptr && operand.companion_view == nullptr;
        High high[piece];
        Rest rest[piece];
        for (; count > 0; begin += piece, to += piece, count -= piece) {
            const std::int64_t length = count < piece ? count : piece;
            const High* from = reinterpret_cast<const High*>(operand.data) + begin;
            const Rest* rest_from = reinterpret_cast<const Rest*>(operand.companion) + begin;
            if (!lies) {
                gather(operand.data, operand.view, begin, length, high);
                gather(operand.companion, operand.companion_view, begin, length, rest);
                from = high;
                rest_from = rest;
            }
            join(from, rest_from, length, to);
        }
    }

    static void store(const Operand& operand, std::int64_t begin, std::int64_t count, const float* from,
                      const std::uint32_t* numbers) {
        const bool lies = operand.view == nullptr && operand.companion_view == nullptr;
        High high[piece];
        Rest rest[piece];
        for (; count > 0; begin += piece, from += piece, count -= piece) {
            const std::int64_t length = count < piece ? count : piece;
            High* into = lies ? reinterpret_cast<High*>(operand.data) + begin : high;
            Rest* rest_into = lies ? reinterpret_cast<Rest*>(operand.companion) + begin : rest;
            split(from, numbers, length, into, rest_into);
            if (numbers != nullptr) numbers += length;
            if (lies) continue;
            scatter(operand.data, operand.view, begin, length, high);
            scatter(operand.companion, operand.companion_view, begin, length, rest);
        }
    }

private:
    INSTEP_INLINE static void join(const High* high, const Rest* rest, std::int64_t count, float* to) {
        std::int64_t i = 0;
#if defined(INSTEP_HAS_VECTORS)
        using V = Vector;
        for (; i + V::lanes <= count; i += V::lanes) {
            const auto sum = V::sum(V::moved<Split::rest_bits>(V::widened_bits(high + i)), V::widened_bits(rest + i));
            V::store(to + i, V::from_bits(V::moved<Split::cut_bits>(sum)));
        }
#endif
        for (; i < count; ++i) to[i] = Split::join(high[i], rest[i]);
    }

    INSTEP_INLINE static void split(const float* from, const std::uint32_t* numbers, std::int64_t count, High* high,
                                    Rest* rest) {
        std::int64_t i = 0;
#if defined(INSTEP_HAS_VECTORS)
        using V = Vector;
        for (; i + 4 * V::lanes <= count; i += 4 * V::lanes) {
            V::Ints highs[4];
            V::Ints rests[4];
            for (std::int64_t k = 0; k < 4; ++k) {
                const auto x = V::load(from + i + k * V::lanes);
                const auto random = numbers == nullptr ? V::all(0) : V::load(numbers + i + k * V::lanes);
                split_vector(x, random, numbers != nullptr, highs[k], rests[k]);
            }
            V::narrow(high + i, highs[0], highs[1]);
            V::narrow(high + i + 2 * V::lanes, highs[2], highs[3]);
            if constexpr (Split::rest_bits == 8) {
                V::narrow(rest + i, rests);
            } else {
                V::narrow(rest + i, rests[0], rests[1]);
                V::narrow(rest + i + 2 * V::lanes, rests[2], rests[3]);
            }
        }
#endif
        for (; i < count; ++i) {
            const float x =
                numbers == nullptr ? Split::rounded(from[i]) : Split::rounded_at_random(from[i], numbers[i]);
            high[i] = Split::high(x);
            rest[i] = Split::rest(x, high[i]);
        }
    }

#if defined(INSTEP_HAS_VECTORS)
    // With a NaN, the bits are those of the standard NaN, and its rest is 0.
    INSTEP_INLINE static void split_vector(Vector::Floats x, Vector::Ints random, bool at_random, Vector::Ints& high,
                                           Vector::Ints& rest) {
        using V = Vector;
        auto bits = V::unless_nan(x, V::all(0x7fc00000), V::bits(x));
        if constexpr (Split::rest_bits == 8) {
            const auto last = V::both(V::moved<-8>(bits), V::all(1));
            const auto more = at_random ? V::both(random, V::all(0xff)) : V::sum(V::all(0x7f), last);
            bits = V::sum(bits, more);
        }
        high = V::moved<-16>(V::sum(bits, V::all(0x8000)));
        rest = V::difference(V::moved<-Split::cut_bits>(bits), V::moved<Split::rest_bits>(high));
    }
#endif

    template <class Stored>
    static void gather(char* data, const View* view, std::int64_t begin, std::int64_t count, Stored* to) {
        for_each_part(data, view, sizeof(Stored), begin, count,
                      [&](const char* from, std::int64_t stride, std::int64_t done, std::int64_t run) {
                          for (std::int64_t i = 0; i < run; ++i)
                              to[done + i] = *reinterpret_cast<const Stored*>(from + i * stride);
                      });
    }
    template <class Stored>
    static void scatter(char* data, const View* view, std::int64_t begin, std::int64_t count, const Stored* from) {
        for_each_part(data, view, sizeof(Stored), begin, count,
                      [&](char* to, std::int64_t stride, std::int64_t done, std::int64_t run) {
                          for (std::int64_t i = 0; i < run; ++i)
                              *reinterpret_cast<Stored*>(to + i * stride) = from[done + i];
                      });
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
