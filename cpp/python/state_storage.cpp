#include "python/state_storage.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "python/arrays.hpp"
#include "runtime/copying.hpp"

namespace instep {

void translate_file_errors() {
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(std::move(thrown));
        } catch (const FileError& error) {
            const auto path = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.path().c_str()));
            const py::tuple arguments = py::make_tuple(error.number(), error.what(), path);
            PyErr_SetObject(PyExc_OSError, arguments.ptr());
        }
    });
}

std::unique_ptr<Windows> windows_over(const py::object& storage) {
    const auto text = [&storage](const char* name) { return storage.attr(name).cast<std::string>(); };
    std::string folder = text("shown");
    std::string lock_path = text("lock_path");
    Descriptor lock(storage.attr("take_lock")().cast<int>());
    return std::make_unique<Windows>(
        std::make_unique<StateFiles>(std::move(folder), std::move(lock_path), std::move(lock)));
}

Room room_in_file(const py::object& storage, const std::string& name, std::int64_t bytes, Windows& windows) {
    bytes += cache_line;  // so that the address of an array without elements, at the end, is of this file, too
    const auto made = storage.attr("make")(name, bytes).cast<py::tuple>();
    Descriptor descriptor(made[1].cast<int>());
    const auto map = made[2].cast<py::array>();
    windows.files().add(made[0].cast<std::string>(), std::move(descriptor), ArrayFields(map.ptr()).data, bytes);
    return Room(map);
}

void load_into_file(Windows& windows, const Operand& from, const Operand& into, std::int64_t count) {
    constexpr std::int64_t most = 8 * chunk_elements;
    for (std::int64_t begin = 0; begin < count; begin += most) {
        const std::int64_t part = std::min(most, count - begin);
        windows.replace(into, begin, part, [&](char* memory) { copy_part(from, begin, part, memory); });
    }
}

}  // namespace instep
