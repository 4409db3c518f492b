// The module instep._core.testing: functions that only tests and measurements use.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

void define_testing(pybind11::module_& m);

}  // namespace instep
