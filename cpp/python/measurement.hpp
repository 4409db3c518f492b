// What only measurements call.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace instep {

// Runs memory_limit (runtime/memory_limit.hpp) over lists of NumPy arrays, a list a piece, whose last array is the copy
// where there is one. Throws TypeError or ValueError unless the arrays of a piece are dense, of one size (the copy: of
// half of it), apart from each other, and those to be written writeable. Pieces aren't compared with each other.
int measure_memory_limit(const pybind11::list& pieces, int read, int written, int threads, std::int64_t chunk,
                         bool copied, std::uint8_t flip);

}  // namespace instep
