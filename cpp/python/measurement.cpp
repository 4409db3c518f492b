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

namespace {

// Arrays of one call, each checked as it is added.
class Streams {
public:
    // The array's first element; `writeable`, where it has to be, says so in the words of the error.
    char* add(py::handle item, const std::string& who, const char* writeable) {
        if (!py::isinstance<py::array>(item)) throw py::type_error(who + " is no NumPy array; one is wanted");
        auto array = py::reinterpret_borrow<py::array>(item);
        if ((array.flags() & py::array::c_style) == 0)
            throw py::value_error(who + " is not C-contiguous; an array without gaps is wanted");
        if (reinterpret_cast<std::uintptr_t>(array.data()) % sizeof(std::uint64_t) != 0)
            throw py::value_error(who + " is misaligned; an array that begins on a multiple of 8 bytes is wanted");
        if (writeable != nullptr && !array.writeable()) throw py::value_error(who + " is read-only; " + writeable);
        for (const py::array& other : held_)
            if (share_memory(array, other)) throw py::value_error(who + " shares memory with another one");
        held_.push_back(array);
        return ArrayFields(array.ptr()).data;
    }
    std::int64_t bytes(std::size_t k) const { return held_[k].nbytes(); }

private:
    std::vector<py::array> held_;
};

}  // namespace

void measure_memory_limit(const py::list& arrays, int written, int threads, std::int64_t chunk,
                          const py::object& copy) {
    const auto count = static_cast<int>(arrays.size());
    if (count < 1 || count > max_streams)
        throw py::value_error("arrays has " + std::to_string(count) + " arrays; 1 to " + std::to_string(max_streams) +
                              " are wanted");
    if (written < 0 || written > count)
        throw py::value_error("written is " + std::to_string(written) + "; 0 to the number of arrays is wanted");
    if (threads < 1) throw py::value_error("threads is " + std::to_string(threads) + "; at least 1 is wanted");
    if (chunk < 1) throw py::value_error("chunk is " + std::to_string(chunk) + "; at least 1 is wanted");
    const std::string to_write = "the first " + std::to_string(written) + " are to be written";
    Streams held;
    std::vector<char*> streams;
    for (const py::handle item : arrays) {
        const std::size_t k = streams.size();
        const std::string who = "array " + std::to_string(k);
        streams.push_back(held.add(item, who, static_cast<int>(k) < written ? to_write.c_str() : nullptr));
        if (held.bytes(k) != held.bytes(0))
            throw py::value_error(who + " has " + std::to_string(held.bytes(k)) + " bytes; the first one's " +
                                  std::to_string(held.bytes(0)) + " are wanted");
    }
    const std::int64_t bytes = held.bytes(0);
    char* to = nullptr;
    if (!copy.is_none()) {
        to = held.add(copy, "copy", "it is to be written");
        if (held.bytes(streams.size()) != bytes / 2)
            throw py::value_error("copy has " + std::to_string(held.bytes(streams.size())) +
                                  " bytes; half of an array's " + std::to_string(bytes) + " are wanted");
    }
    const GilReleased released;
    memory_limit(streams, written, bytes, to, threads, chunk);
}

}  // namespace instep
