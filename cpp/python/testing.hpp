// The module instep._core.testing: what nothing but tests and measurements uses.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void define_testing(pybind11::module_& m);

}  // namespace instep
