// The sum of squares behind clip_norm, in an order that depends on the element's place alone.
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
double sum_of_squares(const Operand& grad, std::int64_t begin, std::int64_t count) {
    static_assert(block_elements<T> % norm_lanes == 0, "a block must leave off where the first lane goes on");
    double lanes[norm_lanes] = {};
    if (lies_ready<T>(grad)) {
        add_squares(in_place<T>(grad, begin), count, lanes);
    } else {
        alignas(64) T buffer[block_elements<T>];
        for (std::int64_t done = 0; done < count; done += block_elements<T>) {
            const std::int64_t rest = count - done;
            const std::int64_t block = rest < block_elements<T> ? rest : block_elements<T>;
            load_block(grad, begin + done, block, buffer);
            add_squares(buffer, block, lanes);
        }
    }
    for (int width = norm_lanes / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; ++lane) lanes[lane] = lanes[lane + lane] + lanes[lane + lane + 1];
    return lanes[0];
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
