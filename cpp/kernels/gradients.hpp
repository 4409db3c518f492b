// What is asked of gradients before or between steps: the sum of squares behind clip_norm, in an order that depends on
// the element's place alone; whether all are finite; their sum over micro-batches.
#pragma once

#include "kernels/blocks.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Element i is added to lane i % norm_lanes, whatever the width of the vectors.
template <class T>
INSTEP_NOINLINE void add_squares(const T* __restrict g, std::int64_t count, double* __restrict lanes) {
    double sums[norm_lanes];
    for (int lane = 0; lane < norm_lanes; ++lane) sums[lane] = lanes[lane];
    std::int64_t i = 0;
    for (; i + norm_lanes <= count; i += norm_lanes) {
        for (int lane = 0; lane < norm_lanes; ++lane) {
            const double x = static_cast<double>(g[i + lane]);
            sums[lane] = sums[lane] + x * x;
        }
    }
    for (int lane = 0; i < count; ++i, ++lane) {
        const double x = static_cast<double>(g[i]);
        sums[lane] = sums[lane] + x * x;
    }
    for (int lane = 0; lane < norm_lanes; ++lane) lanes[lane] = sums[lane];
}

template <class T>
double sum_of_squares(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count) {
    static_assert(block_elements<T> % norm_lanes == 0, "a block must leave off where the first lane goes on");
    double lanes[norm_lanes] = {};
    if (lies_in<Native<T>>(grad) && accumulated.data == nullptr) {
        add_squares(in_place<T>(grad, begin), count, lanes);
    } else {
        GradientBlock<T> block(accumulated, grad);
        for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
            add_squares(block.load(first, length), length, lanes);
        });
    }
    for (int width = norm_lanes / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; ++lane) lanes[lane] = lanes[lane + lane] + lanes[lane + lane + 1];
    return lanes[0];
}

template <class T>
bool all_finite(const Operand& accumulated, const Operand& grad, std::int64_t begin, std::int64_t count) {
    GradientBlock<T> block(accumulated, grad);
    bool finite = true;
    for_each_block<T>(begin, count, [&](std::int64_t first, std::int64_t length) {
        const T* g = block.load(first, length);
        for (std::int64_t i = 0; i < length; ++i) finite = finite && g[i] - g[i] == T(0);  // NaN for both otherwise
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
