// Tensors of other libraries, by the C table that DLPack 1.2 defines for looking at a tensor without owning it.
//
// DLPack, "C exchange API": a type that takes part has `__dlpack_c_exchange_api__`, a capsule with a table of
// functions. The tensor that is looked at belongs to the library, and stays as it is while nothing else runs.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>

#include "kernels/interface.hpp"
#include "runtime/tensor_view.hpp"

namespace instep {

// DLPack's numbers of the types.
constexpr std::uint8_t dlpack_integer = 0, dlpack_unsigned = 1, dlpack_floating = 2, dlpack_brain_floating = 4;

constexpr std::uint8_t dlpack_code(Format format) {
    switch (format) {
        case Format::bfloat16: return dlpack_brain_floating;
        case Format::signed8:
        case Format::rest16: return dlpack_integer;
        case Format::unsigned8: return dlpack_unsigned;
        default: return dlpack_floating;
    }
}

inline bool is_type_of(Format format, std::uint8_t code, std::uint8_t bits) {
    return code == dlpack_code(format) && bits == 8 * item_size(format);
}

// What a tensor is to be like: in the CPU's memory, with strides in bytes.
struct TensorLayout {
    Format format;
    int ndim;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// A tensor as its library describes it. Strides are in bytes; a contiguous tensor may have none.
struct TensorFields {
    char* data = nullptr;
    int ndim = 0;
    const std::int64_t* shape = nullptr;
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): only those of its axes are read, of many tensors a step
    std::array<std::int64_t, 64> strides;
    std::uint8_t type_code = 0;  // with DLPack's numbers
    std::uint8_t bits = 0;
    bool on_cpu = false;

    bool is_aligned() const { return reinterpret_cast<std::uintptr_t>(data) % (bits / 8U) == 0; }
    bool is_of(Format format) const { return is_type_of(format, type_code, bits); }
};

// Whether the type of an object gives access to its tensors in this way. Looks up an attribute of the type when it sees
// the type for the first time, which runs no code of the object.
bool is_tensor(PyObject* object);

// Where the elements of a tensor begin, if it is of this layout; null if it is of another, or if its library refuses to
// describe it: then look_at_tensor says more. Every step asks it of many tensors.
char* memory_if_like(PyObject* object, const TensorLayout& layout);

// Throws the library's error if the tensor has no memory of the usual kind (sparse, quantised, ...).
TensorFields look_at_tensor(PyObject* object);

}  // namespace instep
