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

// Arrays of one piece, each checked as it is added.
class Arrays {
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
        char* const begin = ArrayFields(array.ptr()).data;
        for (const py::array& other : held_) {  // dense: they share what their ranges do
            const char* const its = ArrayFields(other.ptr()).data;
            if (begin < its + other.nbytes() && its < begin + array.nbytes())
                throw py::value_error(who + " shares memory with another one");
        }
        held_.push_back(array);
        return begin;
    }
    std::int64_t last_bytes() const { return held_.back().nbytes(); }

private:
    std::vector<py::array> held_;
};

struct Wanted {
    int read, written;
    bool copied;
    std::string to_write;
};

// Adds the arrays of one piece to those that are held for the call.
Streams streams_of(py::handle item, const Wanted& wanted, const std::string& piece, std::vector<Arrays>& held) {
    if (!py::isinstance<py::list>(item)) throw py::type_error(piece + " is no list; one of arrays is wanted");
    const auto arrays = py::reinterpret_borrow<py::list>(item);
    const auto least = static_cast<std::size_t>(wanted.read) + (wanted.copied ? 1 : 0);
    if (arrays.size() < least)
        throw py::value_error(piece + " has " + std::to_string(arrays.size()) + " arrays; at least " +
                              std::to_string(least) + " are wanted");
    Streams streams;
    Arrays& kept = held.emplace_back();
    for (int k = 0; k < wanted.read; ++k) {
        const auto place = static_cast<std::size_t>(k);
        const std::string who = "array " + std::to_string(k) + " of " + piece;
        streams.data[place] = kept.add(arrays[place], who, k < wanted.written ? wanted.to_write.c_str() : nullptr);
        if (k == 0) streams.bytes = kept.last_bytes();
        if (kept.last_bytes() != streams.bytes)
            throw py::value_error(who + " has " + std::to_string(kept.last_bytes()) + " bytes; the first one's " +
                                  std::to_string(streams.bytes) + " are wanted");
    }
    if (!wanted.copied) return streams;
    const std::string who = "the copy of " + piece;
    streams.copy = kept.add(arrays[arrays.size() - 1], who, "it is to be written");
    if (kept.last_bytes() != streams.bytes / 2)
        throw py::value_error(who + " has " + std::to_string(kept.last_bytes()) + " bytes; half of an array's " +
                              std::to_string(streams.bytes) + " are wanted");
    return streams;
}

}  // namespace

int measure_memory_limit(const py::list& pieces, int read, int written, int threads, std::int64_t chunk, bool copied,
                         std::uint8_t flip) {
    if (read < 1 || read > max_streams)
        throw py::value_error("read is " + std::to_string(read) + "; 1 to " + std::to_string(max_streams) +
                              " is wanted");
    if (written < 0 || written > read)
        throw py::value_error("written is " + std::to_string(written) + "; 0 to what is read is wanted");
    if (threads < 1) throw py::value_error("threads is " + std::to_string(threads) + "; at least 1 is wanted");
    if (chunk < 1) throw py::value_error("chunk is " + std::to_string(chunk) + "; at least 1 is wanted");
    const Wanted wanted{read, written, copied, "the first " + std::to_string(written) + " are to be written"};
    std::vector<Arrays> held;  // for as long as the pass takes, whatever becomes of the lists
    std::vector<Streams> streams;
    for (const py::handle piece : pieces)
        streams.push_back(streams_of(piece, wanted, "piece " + std::to_string(streams.size()), held));
    const GilReleased released;
    return memory_limit(streams, read, written, flip, threads, chunk);
}

}  // namespace instep
