// The functions about threads, and the teams of other libraries, as Python sees them.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void bind_threads(pybind11::module_& m);

}  // namespace instep
