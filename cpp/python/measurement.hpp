// What only measurements call.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace instep {

// Runs memory_limit (runtime/memory_limit.hpp) over NumPy arrays; copy may be None. Throws TypeError or ValueError
// unless they are dense, of one size (the copy: of half of it), apart from each other, and those to be written
// writeable.
void measure_memory_limit(const pybind11::list& arrays, int written, int threads, std::int64_t chunk,
                          const pybind11::object& copy);

}  // namespace instep
