#include "python/measurement.hpp"

#include <algorithm>
#include <string>

#include "python/arrays.hpp"
#include "python/gil.hpp"

namespace instep {

namespace py = pybind11;

namespace {

constexpr const char* gradient = "gradient";
constexpr const char* copy = "copy";

// The name of an array: its piece and its place there, or a word. It becomes text only if there is an error.
struct Name {
    std::size_t piece;
    std::size_t place;
    const char* word = nullptr;

    std::string operator()() const {
        const std::string what = word != nullptr ? std::string("the ") + word : "array " + std::to_string(place);
        return what + " of piece " + std::to_string(piece);
    }
};

py::array dense(py::handle item, const Name& name) {
    if (!py::isinstance<py::array>(item)) throw py::type_error(refusal(name(), "be a NumPy array", kind_of(item)));
    auto array = py::reinterpret_borrow<py::array>(item);
    if ((array.flags() & py::array::c_style) == 0)
        throw py::value_error(refusal(name(), "be C-contiguous", "an array with gaps"));
    if (reinterpret_cast<std::uintptr_t>(array.data()) % sizeof(std::uint64_t) != 0)
        throw py::value_error(refusal(name(), "begin on a multiple of 8 bytes", "an array that is misaligned"));
    return array;
}

char* begin_of(const py::array& array) { return ArrayFields(array.ptr()).data; }

// Throws if the array shares memory with one of the others. Since all are dense, they share memory if their ranges
// overlap.
template <class Iterator>
void check_apart(const py::array& array, Iterator others, Iterator end, const Name& name) {
    const char* const begin = begin_of(array);
    for (; others != end; ++others) {
        const char* const its = begin_of(*others);
        if (begin < its + others->nbytes() && its < begin + array.nbytes())
            throw py::value_error(
                refusal(name(), "have memory of its own", "an array that shares memory with another"));
    }
}

void check_bytes(const py::array& array, py::ssize_t expected, const char* of_what, const Name& name) {
    if (array.nbytes() != expected)
        throw py::value_error(
            refusal(name(), "have " + std::to_string(expected) + " bytes, " + of_what, std::to_string(array.nbytes())));
}

void check_writeable(const py::array& array, const Name& name) {
    if (!array.writeable()) throw py::value_error(refusal(name(), "be writeable", "an array that is read-only"));
}

// The arrays of a piece; the first `written` of them are to be written.
std::vector<py::array> checked_piece(py::handle item, std::size_t piece, std::size_t streams, std::size_t written,
                                     bool copied) {
    const std::string who = "piece " + std::to_string(piece);
    if (!py::isinstance<py::list>(item)) throw py::type_error(refusal(who, "be a list of arrays", kind_of(item)));
    const auto items = py::reinterpret_borrow<py::list>(item);
    const std::size_t expected = streams + (copied ? 1 : 0);
    if (items.size() != expected)
        throw py::value_error(
            refusal(who, "have " + std::to_string(expected) + " arrays", std::to_string(items.size())));
    std::vector<py::array> arrays;
    for (std::size_t place = 0; place < items.size(); ++place) {
        const bool is_copy = place == streams;
        const Name name{piece, place, is_copy ? copy : nullptr};
        py::array array = dense(items[place], name);
        if (is_copy || place < written) check_writeable(array, name);
        check_apart(array, arrays.begin(), arrays.end(), name);
        if (is_copy)
            check_bytes(array, arrays[0].nbytes() / 2, "half of an array's", name);
        else if (place > 0)
            check_bytes(array, arrays[0].nbytes(), "as the first array has", name);
        arrays.push_back(std::move(array));
    }
    return arrays;
}

void check_pass(const std::pair<int, int>& pass, std::size_t number) {
    const auto [read, written] = pass;
    const std::string who = " of pass " + std::to_string(number);
    if (read < 1 || read > max_streams)
        throw py::value_error(
            refusal("read" + who, "be from 1 to " + std::to_string(max_streams), std::to_string(read)));
    if (written < 0 || written > read)
        throw py::value_error(
            refusal("written" + who, "be from 0 to " + std::to_string(read), std::to_string(written)));
}

}  // namespace

MemoryTraffic::MemoryTraffic(const py::list& pieces, std::vector<std::pair<int, int>> passes, bool copied)
    : passes_(std::move(passes)), copied_(copied) {
    if (passes_.empty()) throw py::value_error("passes must have at least one pass, got none");
    for (std::size_t k = 0; k < passes_.size(); ++k) {
        check_pass(passes_[k], k);
        streams_ = std::max(streams_, static_cast<std::size_t>(passes_[k].first));
        written_ = std::max(written_, static_cast<std::size_t>(passes_[k].second));
    }
    for (const py::handle piece : pieces)
        pieces_.push_back(checked_piece(piece, pieces_.size(), streams_, written_, copied));
}

std::vector<py::array> MemoryTraffic::checked_gradients(const py::object& gradients) const {
    if (!py::isinstance<py::list>(gradients))
        throw py::type_error(refusal("the gradients", "be a list", kind_of(gradients)));
    const auto items = py::reinterpret_borrow<py::list>(gradients);
    if (items.size() != pieces_.size())
        throw py::value_error(refusal("the gradients",
                                      "have " + std::to_string(pieces_.size()) + " arrays, one for each piece",
                                      std::to_string(items.size())));
    std::vector<py::array> found;
    for (std::size_t k = 0; k < pieces_.size(); ++k) {
        const std::vector<py::array>& arrays = pieces_[k];
        const Name name{k, streams_ - 1, gradient};
        py::array array = dense(items[k], name);
        if (written_ == streams_) check_writeable(array, name);
        check_bytes(array, arrays[0].nbytes(), "as the other arrays have", name);
        const auto place = arrays.begin() + static_cast<std::ptrdiff_t>(streams_) - 1;  // the array that it replaces
        check_apart(array, arrays.begin(), place, name);
        check_apart(array, place + 1, arrays.end(), name);
        found.push_back(std::move(array));
    }
    return found;
}

std::vector<Streams> MemoryTraffic::streams_of(std::size_t pass, const std::vector<py::array>& gradients) const {
    const auto read = static_cast<std::size_t>(passes_[pass].first);
    const auto written = static_cast<std::size_t>(passes_[pass].second);
    const bool last_pass = pass + 1 == passes_.size();
    std::vector<Streams> found(pieces_.size());
    for (std::size_t k = 0; k < pieces_.size(); ++k) {
        found[k].bytes = pieces_[k][0].nbytes();
        for (std::size_t r = 0; r < read; ++r) {
            const std::size_t place = r < written ? r : streams_ - read + r;
            const bool replaced = place + 1 == streams_ && !gradients.empty();
            found[k].data[r] = begin_of(replaced ? gradients[k] : pieces_[k][place]);
        }
        if (last_pass && copied_) found[k].copy = begin_of(pieces_[k].back());
    }
    return found;
}

int MemoryTraffic::move(int threads, std::int64_t chunk, const py::object& gradients, std::uint8_t flip) const {
    if (threads < 1) throw py::value_error(refusal("threads", "be at least 1", std::to_string(threads)));
    if (chunk < 1) throw py::value_error(refusal("chunk", "be at least 1", std::to_string(chunk)));
    std::vector<py::array> held;  // held during this call, whatever happens to the list
    if (!gradients.is_none()) held = checked_gradients(gradients);
    std::vector<std::vector<Streams>> streams;
    for (std::size_t pass = 0; pass < passes_.size(); ++pass) streams.push_back(streams_of(pass, held));
    const GilReleased released;
    unsigned sum = 0;
    for (std::size_t pass = 0; pass < passes_.size(); ++pass)
        sum += memory_limit(streams[pass], passes_[pass].first, passes_[pass].second, flip, threads, chunk);
    return static_cast<int>(sum % 256);
}

}  // namespace instep
