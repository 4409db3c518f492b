// The class _core.Steps: names and docstrings.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void bind_steps(pybind11::module_& m);

}  // namespace instep
