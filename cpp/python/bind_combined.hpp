// Combined, as Python sees it.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void bind_combined(pybind11::module_& m);

}  // namespace instep
