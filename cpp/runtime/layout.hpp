// The layout of an array in memory, and the order in which a step goes over it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.hpp"

namespace instep {

using Axes = std::vector<int>;
using Extents = std::vector<std::int64_t>;

// The axes from the outermost in memory to the innermost, by stride. A step goes over a parameter in this order, so
// that a parameter without gaps is one run, whatever its layout.
Axes memory_order(const Extents& shape, const Extents& strides);

// The same order as if the array were C-contiguous: its logical order.
Axes logical_order(int ndim);

// The strides, by axis, of an array without gaps whose elements follow this order.
Extents dense_strides(const Extents& shape, const Axes& order, std::int64_t item_size);

// Whether strides mean the same as dense strides; strides of axes of length 1 don't matter.
bool same_strides(const std::int64_t* shape, const std::int64_t* strides, const std::int64_t* dense, int ndim,
                  std::int64_t item_size);

// Axes in the given order; neighbours are merged if one continues the other. At least one axis is longer than 1:
// without such an axis, any strides are dense.
class StridedLayout {
public:
    void assign(const std::int64_t* shape, const std::int64_t* strides, const Axes& order);
    const View& view() const { return view_; }

    StridedLayout() = default;
    StridedLayout(const StridedLayout&) = delete;  // view_ points into the vectors
    StridedLayout& operator=(const StridedLayout&) = delete;
    StridedLayout(StridedLayout&&) = delete;
    StridedLayout& operator=(StridedLayout&&) = delete;
    ~StridedLayout() = default;

private:
    Extents shape_;
    Extents strides_;
    View view_{};
};

}  // namespace instep
