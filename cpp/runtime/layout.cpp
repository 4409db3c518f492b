#include "runtime/layout.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace instep {

Axes logical_order(int ndim) {
    Axes order(static_cast<std::size_t>(ndim));
    std::iota(order.begin(), order.end(), 0);
    return order;
}

Axes memory_order(const Extents& shape, const Extents& strides) {
    Axes order = logical_order(static_cast<int>(shape.size()));
    // If there are no elements, strides mean nothing and may be any numbers.
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return order;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        const auto i = static_cast<std::size_t>(a);
        const auto j = static_cast<std::size_t>(b);
        if (shape[i] == 1 || shape[j] == 1) return shape[i] == 1 && shape[j] != 1;  // their strides mean nothing
        return std::llabs(strides[i]) > std::llabs(strides[j]);
    });
    return order;
}

Extents dense_strides(const Extents& shape, const Axes& order, std::int64_t item_size) {
    Extents strides(shape.size());
    std::int64_t stride = item_size;
    for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
        strides[static_cast<std::size_t>(*axis)] = stride;
        stride *= shape[static_cast<std::size_t>(*axis)];
    }
    return strides;
}

bool same_strides(const std::int64_t* shape, const std::int64_t* strides, const std::int64_t* dense, int ndim,
                  std::int64_t item_size) {
    bool same = true;
    for (int axis = 0; axis < ndim; ++axis) {
        if (shape[axis] == 0) return true;  // strides between no elements mean nothing
        same = same && (shape[axis] == 1 || strides[axis] == dense[axis] * item_size);
    }
    return same;
}

void StridedLayout::assign(const std::int64_t* shape, const std::int64_t* strides, const Axes& order) {
    shape_.clear();
    strides_.clear();
    for (const int axis : order) {
        const std::int64_t length = shape[axis];
        if (length == 1) continue;
        if (length == 0) {
            shape_.assign(1, 0);
            strides_.assign(1, 0);
            break;
        }
        const std::int64_t stride = strides[axis];
        if (!shape_.empty() && strides_.back() / length == stride && strides_.back() % length == 0) {
            shape_.back() *= length;
            strides_.back() = stride;
        } else {
            shape_.push_back(length);
            strides_.push_back(stride);
        }
    }
    view_ = {static_cast<int>(shape_.size()), shape_.data(), strides_.data()};
}

}  // namespace instep
