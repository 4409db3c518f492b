#include "python/room.hpp"

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "python/arrays.hpp"
#include "runtime/tensor_view.hpp"

namespace instep {

namespace {

using namespace pybind11::literals;
using py::detail::npy_api;

int& flags_of(const py::handle& array) { return py::detail::array_proxy(array.ptr())->flags; }

// The number of holders, by array and memory: steps of several optimizers may read one gradient at the same time. Read
// and changed with the GIL held. Old entries are kept, so that a step allocates no memory.
class Holders {
public:
    using Memory = std::pair<PyObject*, char*>;

    bool has(const Memory& memory) const { return counts_.count(memory) != 0; }
    void add(const Memory& memory) {
        const auto found = counts_.find(memory);
        if (found != counts_.end()) {
            ++found->second;
        } else if (spare_.empty()) {
            counts_.emplace(memory, 1);
            const std::size_t most = counts_.size();
            if (spare_.capacity() < most) spare_.reserve(2 * most);  // so that remove can't fail
        } else {
            spare_.back().key() = memory;
            spare_.back().mapped() = 1;
            counts_.insert(std::move(spare_.back()));
            spare_.pop_back();
        }
    }
    // Returns whether nobody holds the memory any more.
    bool remove(const Memory& memory) {
        const auto found = counts_.find(memory);
        if (--found->second != 0) return false;
        spare_.push_back(counts_.extract(found));
        return true;
    }

private:
    using Counts = std::map<Memory, std::size_t>;
    Counts counts_;
    std::vector<Counts::node_type> spare_;
};

Holders& holders() {
    static auto* const all = std::make_unique<Holders>().release();
    return *all;
}

}  // namespace

Room::Room(std::int64_t bytes, int place) {
    constexpr std::int64_t page = 4096;
    // NumPy's large arrays all begin at the same offset within their page. Then a core takes a load from one array for
    // a number that it has just stored to another, and waits. So each of these arrays begins at another offset.
    const bool spans_pages = bytes >= 4 * page;
    const std::int64_t period = spans_pages ? page : line;
    const std::int64_t start = spans_pages ? line + place % 4 * (page / 4) + place / 4 * (page / 16) : 0;
    // numpy.zeros uses pages that are zero already; they stay untouched until the first step writes them.
    const py::array zeros = py::module_::import("numpy").attr("zeros")(bytes + period, "uint8");
    char* const data = ArrayFields(zeros.ptr()).data;
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data) % page);
    next_ = data + (start + page - address) % period;
    memory_ = py::cast(Memory{zeros});
}

Room::Room(const py::array& map) : memory_(py::cast(Memory{map})), next_(ArrayFields(map.ptr()).data) {}

py::array Room::take(const Extents& shape, const Axes& order, Format format) {
    const Extents strides = dense_strides(shape, order, item_size(format));
    std::int64_t bytes = item_size(format);
    for (const std::int64_t length : shape) bytes *= length;
    py::array array(dtype_of(format), py::array::ShapeContainer(shape.begin(), shape.end()),
                    py::array::StridesContainer(strides.begin(), strides.end()), next_, memory_);
    next_ += rounded(bytes);
    if (!memory_.cast<const Memory&>().bytes.writeable()) array.attr("setflags")("write"_a = false);
    return array;
}

py::object owner_of(const py::handle& array) {
    py::handle owner = array;
    while (is_array(owner.ptr())) {
        PyObject* const base = py::detail::array_proxy(owner.ptr())->base;
        if (base == nullptr) break;
        owner = base;
    }
    return py::reinterpret_borrow<py::object>(owner);
}

void Pins::pin(const py::handle& array) {
    Pinned& pinned = pinned_.emplace_back(Pinned{owner_of(array), nullptr});
    if (!is_array(pinned.owner.ptr())) return;
    int& flags = flags_of(pinned.owner);
    const Holders::Memory memory(pinned.owner.ptr(), ArrayFields(pinned.owner.ptr()).data);
    if ((flags & npy_api::NPY_ARRAY_OWNDATA_) == 0 && !holders().has(memory)) return;
    holders().add(memory);
    pinned.data = memory.second;
    flags &= ~npy_api::NPY_ARRAY_OWNDATA_;
}

void Pins::release() {
    for (const Pinned& pinned : pinned_) {
        if (pinned.data == nullptr || !holders().remove({pinned.owner.ptr(), pinned.data})) continue;
        // If the array was given other memory meanwhile, its old memory is never freed, which is better than freed too
        // early.
        if (ArrayFields(pinned.owner.ptr()).data == pinned.data) flags_of(pinned.owner) |= npy_api::NPY_ARRAY_OWNDATA_;
    }
    pinned_.clear();
}

}  // namespace instep
