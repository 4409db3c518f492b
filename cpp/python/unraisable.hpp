// Errors that nobody can catch.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace instep {

// Runs an action whose errors nobody can catch: an error is printed.
template <class Action>
void unraisable(Action action) {
    const pybind11::error_scope before;  // of the call that ends here
    try {
        action();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
        PyErr_WriteUnraisable(nullptr);
    }
}

}  // namespace instep
