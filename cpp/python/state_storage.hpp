// States in files: what the core takes from instep/optimizers/state_storage.py, and how it writes there.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>

#include "python/room.hpp"
#include "runtime/windows.hpp"

namespace instep {

namespace py = pybind11;

// Makes FileError an OSError with its number and path.
void translate_file_errors();

// Of a StateFolder, whose lock it holds from now on.
std::unique_ptr<Windows> windows_over(const py::object& storage);

// A room in a new file of zeros. Runs Python's code.
Room room_in_file(const py::object& storage, const std::string& name, std::int64_t bytes, Windows& windows);

// Copies all elements of an operand into an operand of the same format that lies in a file.
void load_into_file(Windows& windows, const Operand& from, const Operand& into, std::int64_t count);

}  // namespace instep
