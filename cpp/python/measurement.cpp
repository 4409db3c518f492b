#include "python/measurement.hpp"

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "python/buffers.hpp"
#include "python/gil.hpp"
#include "runtime/memory_limit.hpp"

namespace instep {

namespace py = pybind11;

void measure_memory_limit(const py::list& arrays, int written, int threads, std::int64_t chunk) {
    const auto count = static_cast<int>(arrays.size());
    if (count < 1 || count > max_streams)
        throw py::value_error("arrays has " + std::to_string(count) + " arrays; 1 to " + std::to_string(max_streams) +
                              " are wanted");
    if (written < 0 || written > count)
        throw py::value_error("written is " + std::to_string(written) + "; 0 to the number of arrays is wanted");
    if (threads < 1) throw py::value_error("threads is " + std::to_string(threads) + "; at least 1 is wanted");
    if (chunk < 1) throw py::value_error("chunk is " + std::to_string(chunk) + "; at least 1 is wanted");
    std::vector<py::array> held;
    std::vector<char*> streams;
    for (const py::handle item : arrays) {
        const std::string who = "array " + std::to_string(held.size());
        if (!py::isinstance<py::array>(item)) throw py::type_error(who + " is no NumPy array; one is wanted");
        auto array = py::reinterpret_borrow<py::array>(item);
        if ((array.flags() & py::array::c_style) == 0)
            throw py::value_error(who + " is not C-contiguous; an array without gaps is wanted");
        if (reinterpret_cast<std::uintptr_t>(array.data()) % sizeof(std::uint64_t) != 0)
            throw py::value_error(who + " is misaligned; an array that begins on a multiple of 8 bytes is wanted");
        if (static_cast<int>(held.size()) < written && !array.writeable())
            throw py::value_error(who + " is read-only; the first " + std::to_string(written) + " are to be written");
        if (!held.empty() && array.nbytes() != held.front().nbytes())
            throw py::value_error(who + " has " + std::to_string(array.nbytes()) + " bytes; the first one's " +
                                  std::to_string(held.front().nbytes()) + " are wanted");
        for (const py::array& other : held)
            if (share_memory(array, other)) throw py::value_error(who + " shares memory with another one");
        streams.push_back(ArrayFields(array.ptr()).data);
        held.push_back(array);
    }
    const std::int64_t bytes = held.front().nbytes();
    const GilReleased released;
    memory_limit(streams, written, bytes, threads, chunk);
}

}  // namespace instep
