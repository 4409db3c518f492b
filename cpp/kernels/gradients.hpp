// Operations on gradients before a step or between steps: the sum of squares for clip_norm, in an order that depends
// only on the place of each element; whether all elements are finite; the sum over micro-batches.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/inlining.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// The squares of so many chunks are added up side by side, each chunk as a separate stream: with a single stream, a
// core reads at two thirds of the speed that it reaches with four, and nothing else is read meanwhile.
constexpr int chunks_together = 4;

template <bool Squared, class T>
INSTEP_INLINE double term_of(T value) {
    const double x = static_cast<double>(value);
    return Squared ? x * x : x;
}

// Element i, or its square, is added to lane i % norm_lanes, whatever the width of the vectors.
template <bool Squared, class T>
INSTEP_NOINLINE void add_to_lanes(const T* __restrict values, std::int64_t count, double* __restrict lanes) {
    double sums[norm_lanes];
    for (int lane = 0; lane < norm_lanes; ++lane) sums[lane] = lanes[lane];
    std::int64_t i = 0;
    for (; i + norm_lanes <= count; i += norm_lanes)
        for (int lane = 0; lane < norm_lanes; ++lane) sums[lane] = sums[lane] + term_of<Squared>(values[i + lane]);
    for (int lane = 0; i < count; ++i, ++lane) sums[lane] = sums[lane] + term_of<Squared>(values[i]);
    for (int lane = 0; lane < norm_lanes; ++lane) lanes[lane] = sums[lane];
}

// Neighbours are added, then neighbouring sums, and so on.
inline double sum_of_lanes(double* lanes) {
    for (int width = norm_lanes / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; ++lane) lanes[lane] = lanes[lane + lane] + lanes[lane + lane + 1];
    return lanes[0];
}

// The sums of the next chunks, which are whole and lie side by side in memory.
template <class T>
INSTEP_NOINLINE void sums_together(const T* __restrict g, double* __restrict sums) {
    static_assert(chunk_elements % norm_lanes == 0, "a whole chunk has no rest");
    double lanes[chunks_together][norm_lanes] = {};
    for (std::int64_t i = 0; i < chunk_elements; i += norm_lanes) {
        for (int chunk = 0; chunk < chunks_together; ++chunk) {
            for (int lane = 0; lane < norm_lanes; ++lane) {
                const double x = static_cast<double>(g[chunk * chunk_elements + i + lane]);
                lanes[chunk][lane] = lanes[chunk][lane] + x * x;
            }
        }
    }
    for (int chunk = 0; chunk < chunks_together; ++chunk) sums[chunk] = sum_of_lanes(lanes[chunk]);
}

// The sum of one chunk, which may be shorter at the end.
template <class T>
double sum_of_squares(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count) {
    static_assert(block_elements<T> % norm_lanes == 0, "a block must leave off where the first lane goes on");
    double lanes[norm_lanes] = {};
    if (lies_ready<T>(grad) && accumulated.data == nullptr) {
        add_to_lanes<true>(in_place<T>(grad, begin), count, lanes);
    } else {
        GradientBlock<T> block(accumulated, grad);
        for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
            add_to_lanes<true>(block.load(first, length), length, lanes);
        });
    }
    return sum_of_lanes(lanes);
}

template <class T>
void sums_of_squares(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count,
                     double* sums) {
    constexpr std::int64_t together = chunks_together * chunk_elements;
    if (lies_ready<T>(grad) && accumulated.data == nullptr)
        for (; count >= together; begin += together, count -= together, sums += chunks_together)
            sums_together(in_place<T>(grad, begin), sums);
    for (; count > 0; begin += chunk_elements, count -= chunk_elements)
        *sums++ = sum_of_squares<T>(accumulated, grad, begin, count < chunk_elements ? count : chunk_elements);
}

// Each element is multiplied by 2^exponent in two exact steps: both factors are finite numbers, even if 2^exponent
// itself is not. An element that becomes subnormal on the way has a square of zero anyway.
template <class T>
void sums_of_scaled_squares(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count,
                            int exponent, double* sums) {
    constexpr int most = 1000;
    const int half = exponent < -most ? -most : exponent > most ? most : exponent;
    const double first = ldexp(1.0, half);
    const double second = ldexp(1.0, exponent - half);
    GradientBlock<T> block(accumulated, grad);
    for (; count > 0; begin += chunk_elements, count -= chunk_elements) {
        double lanes[norm_lanes] = {};
        for_each_block<T>(begin, count < chunk_elements ? count : chunk_elements,
                          [&](std::int64_t from, std::int64_t length) {
                              const T* g = block.load(from, length);
                              double scaled[block_elements<T>];
                              for (std::int64_t i = 0; i < length; ++i)
                                  scaled[i] = static_cast<double>(g[i]) * first * second;
                              add_to_lanes<true>(scaled, length, lanes);
                          });
        *sums++ = sum_of_lanes(lanes);
    }
}

template <class T>
double largest(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count) {
    GradientBlock<T> block(accumulated, grad);
    T found = T(0);
    for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
        const T* g = block.load(first, length);
        for (std::int64_t i = 0; i < length; ++i) {
            const T magnitude = g[i] < T(0) ? -g[i] : g[i];
            found = magnitude > found ? magnitude : found;
        }
    });
    return static_cast<double>(found);
}

template <class T>
bool all_finite(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count) {
    GradientBlock<T> block(accumulated, grad);
    bool finite = true;
    for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
        const T* g = block.load(first, length);
        for (std::int64_t i = 0; i < length; ++i) finite = finite && g[i] - g[i] == T(0);  // infinity and NaN give NaN
    });
    return finite;
}

template <class T>
void accumulate(const Operand& accumulated, const Operand& grad, const Operand& into, std::int64_t begin,
                std::int64_t count) {
    GradientBlock<T> block(accumulated, grad);
    for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
        store_block(into, first, length, block.load_copy(first, length));
    });
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
