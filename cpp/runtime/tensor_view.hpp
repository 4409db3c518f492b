// An array in the form that the core uses below the binding; it may come from NumPy or, by DLPack, from another
// library.
#pragma once

#include <cstdint>

#include "kernels/interface.hpp"

namespace instep {

struct TensorView {
    char* data;  // of element (0, 0, ...)
    int ndim;
    const std::int64_t* shape;    // borrowed, like the strides
    const std::int64_t* strides;  // in bytes, of either sign
    Format format;
    bool writeable;

    std::int64_t size() const {
        std::int64_t count = 1;
        for (int axis = 0; axis < ndim; ++axis) count *= shape[axis];
        return count;
    }
};

constexpr std::int64_t item_size(Format format) {
    return format == Format::float64 ? 8 : format == Format::float32 ? 4 : 2;
}

// The bytes from the lowest to one past the highest that the array reaches.
struct ByteRange {
    const char *low, *high;
    bool empty() const { return low == high; }
    bool meets(const ByteRange& other) const { return low < other.high && other.low < high; }
};
ByteRange byte_range(const TensorView& view);

// Whether the array stays within the address space: strides may be arbitrary numbers, and adding them may overflow.
bool is_within_memory(const TensorView& view);

}  // namespace instep
