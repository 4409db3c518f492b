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
    switch (format) {
        case Format::float64: return 8;
        case Format::float32: return 4;
        case Format::signed8:
        case Format::unsigned8: return 1;
        default: return 2;
    }
}

// The format of the elements of an array, whatever they mean to a step.
constexpr Format array_format(Format format) {
    switch (format) {
        case Format::root16: return Format::float16;
        case Format::bfloat16_8:
        case Format::bfloat16_16: return Format::bfloat16;
        default: return format;
    }
}

constexpr bool is_coded(Format format) { return format == Format::signed8 || format == Format::unsigned8; }
constexpr bool has_remainder(Format format) { return format == Format::bfloat16_8 || format == Format::bfloat16_16; }

// The blocks of codes that so many elements have.
constexpr std::int64_t code_blocks(std::int64_t elements) { return (elements + code_block - 1) / code_block; }

// An operand's second array as an operand of its own.
inline Operand companion_of(const Operand& operand) {
    const Format format = is_coded(operand.format)               ? Format::float32
                          : operand.format == Format::bfloat16_8 ? Format::signed8
                                                                 : Format::rest16;
    return {operand.companion, format, operand.companion_view};
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
