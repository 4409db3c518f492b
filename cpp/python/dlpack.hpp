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

    // DLPack's numbers of the types.
    static constexpr std::uint8_t floating = 2, brain_floating = 4;

    bool is_aligned() const { return reinterpret_cast<std::uintptr_t>(data) % (bits / 8U) == 0; }
    bool is_of(Format format) const {
        return type_code == (format == Format::bfloat16 ? brain_floating : floating) && bits == 8 * item_size(format);
    }
};

// Whether the type of an object gives access to its tensors in this way. Looks up an attribute of the type when it sees
// the type for the first time, which runs no code of the object.
bool is_tensor(PyObject* object);

// Throws the library's error if the tensor has no memory of the usual kind (sparse, quantised, ...).
TensorFields look_at_tensor(PyObject* object);

}  // namespace instep
