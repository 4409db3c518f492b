// The class _core.Steps: names, docstrings, and checks of places and counts.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void bind_steps(pybind11::module_& m);

}  // namespace instep
