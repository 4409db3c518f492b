#include "python/buffers.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace instep {

namespace {

using py::detail::npy_api;

constexpr const char* wanted_dtypes = "float64, float32, float16 or bfloat16 (ml_dtypes)";

std::string text_of(py::handle object) { return py::cast<std::string>(py::str(object)); }

// The dtype objects that NumPy shares among nearly all arrays of a dtype, so that comparing pointers nearly always
// answers. Held for the life of the process.
struct KnownDtype {
    PyObject* descr;
    Format format;
};

std::vector<KnownDtype>& known_dtypes() {
    static auto* known = new std::vector<KnownDtype>{
        {py::dtype("float64").release().ptr(), Format::float64},
        {py::dtype("float32").release().ptr(), Format::float32},
        {py::dtype("float16").release().ptr(), Format::float16},
    };
    return *known;
}

const KnownDtype* find_known(PyObject* descr) {
    for (const KnownDtype& known : known_dtypes())
        if (known.descr == descr) return &known;
    return nullptr;
}

// bfloat16 is known by its name: ml_dtypes defines it, JAX and TensorFlow hand it on, none need be imported here.
bool is_bfloat16(const py::dtype& dtype) {
    return dtype.itemsize() == 2 && text_of(dtype.attr("type").attr("__name__")) == "bfloat16";
}

// has_dtype: " has dtype ", or " is " where who is a dtype itself.
Format find_format(PyObject* descr, const std::string& who, const std::string& has_dtype = " has dtype ") {
    if (const KnownDtype* known = find_known(descr)) return known->format;
    const auto dtype = py::reinterpret_borrow<py::dtype>(descr);
    const char byteorder = dtype.byteorder();
    const bool swapped = byteorder != '=' && byteorder != '|';
    Format format = Format::float64;
    if (dtype.kind() == 'f' && dtype.itemsize() == 8)
        format = Format::float64;
    else if (dtype.kind() == 'f' && dtype.itemsize() == 4)
        format = Format::float32;
    else if (dtype.kind() == 'f' && dtype.itemsize() == 2)
        format = Format::float16;
    else if (is_bfloat16(dtype))
        format = Format::bfloat16;
    else
        throw py::type_error(who + has_dtype + text_of(dtype) + "; " + wanted_dtypes + " is wanted");
    if (swapped)
        throw py::type_error(who + has_dtype + text_of(dtype) +
                             ", byte-swapped; one in the machine's byte order is wanted "
                             "(array.astype(array.dtype.newbyteorder('=')))");
    // Only bfloat16's shared object joins: others are made anew all the time, by unpickling an array for one.
    const bool is_new = std::none_of(known_dtypes().begin(), known_dtypes().end(),
                                     [format](const KnownDtype& known) { return known.format == format; });
    if (is_new) known_dtypes().push_back({dtype.inc_ref().ptr(), format});
    return format;
}

void require_array(PyObject* object, const std::string& who) {
    if (!npy_api::get().PyArray_Check_(object))
        throw py::type_error(who + " is " + kind_of(object) + "; a NumPy array is wanted");
}

// An update of a masked array's data would pass over its mask.
void require_unmasked(PyObject* array, const std::string& who) {
    if (py::hasattr(array, "mask"))
        throw py::type_error(who + " is " + kind_of(array) + "; a plain NumPy array is wanted");
}

std::string gradient_of(const std::string& name) { return "gradient of '" + name + "'"; }

void require_aligned(const ArrayFields& fields, const std::string& who) {
    if (!fields.aligned())
        throw py::value_error(who + " is misaligned; an array whose elements lie on their own boundaries is wanted");
}

std::string text_of_shape(const std::int64_t* shape, std::size_t ndim) {
    std::string text = "(";
    for (std::size_t axis = 0; axis < ndim; ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
    return text + (ndim == 1 ? ",)" : ")");
}

// who() puts together who is spoken of, which costs more than the check.
template <class Who>
void require_shape(const ArrayFields& fields, const Extents& shape, Who who) {
    const auto ndim = static_cast<std::size_t>(fields.ndim);
    if (ndim == shape.size() && std::equal(shape.begin(), shape.end(), fields.shape)) return;
    throw py::value_error(who() + " has shape " + text_of_shape(fields.shape, ndim) + "; the parameter's, " +
                          text_of_shape(shape.data(), shape.size()) + ", is wanted");
}

}  // namespace

std::int64_t ArrayFields::size() const {
    std::int64_t count = 1;
    for (int axis = 0; axis < ndim; ++axis) count *= shape[axis];
    return count;
}

std::int64_t item_size(Format format) {
    constexpr std::array<std::int64_t, format_count> sizes = {8, 4, 2, 2};
    return sizes[static_cast<std::size_t>(format)];
}

const char* format_name(Format format) {
    constexpr std::array<const char*, format_count> names = {"float64", "float32", "float16", "bfloat16"};
    return names[static_cast<std::size_t>(format)];
}

Format format_of_dtype(const py::dtype& dtype, const std::string& who) { return find_format(dtype.ptr(), who, " is "); }

std::string kind_of(py::handle object) {
    if (object.is_none()) return "None";
    const std::string name = Py_TYPE(object.ptr())->tp_name;
    return (std::string("aeioAEIO").find(name[0]) == std::string::npos ? "a " : "an ") + name;
}

Format check_parameter(const py::object& parameter, const std::string& who) {
    require_array(parameter.ptr(), who);
    if (!is_plain_array(parameter.ptr())) require_unmasked(parameter.ptr(), who);
    const ArrayFields fields(parameter.ptr());
    const Format format = find_format(fields.descr, who);
    if (!fields.writeable())
        throw py::value_error(who + " is read-only; a writeable array is wanted, for it is updated in place");
    require_aligned(fields, who);
    if (overlaps_itself(Extents(fields.shape, fields.shape + fields.ndim),
                        Extents(fields.strides, fields.strides + fields.ndim), item_size(format)))
        throw py::value_error(
            who +
            " overlaps itself: several of its elements share memory (a broadcast or sliding view); an "
            "array of separate elements is wanted");
    return format;
}

void check_subclass(PyObject* gradient, const std::string& name) {
    if (npy_api::get().PyArray_Check_(gradient)) require_unmasked(gradient, gradient_of(name));
}

Format check_gradient(PyObject* gradient, const std::string& name, const Extents& shape) {
    const auto who = [&name] { return gradient_of(name); };
    if (!is_plain_array(gradient)) require_array(gradient, who());
    const ArrayFields fields(gradient);
    const KnownDtype* known = find_known(fields.descr);
    const Format format = known != nullptr ? known->format : find_format(fields.descr, who());
    if (!fields.aligned()) require_aligned(fields, who());
    require_shape(fields, shape, who);
    return format;
}

bool is_known_dtype(PyObject* descr) { return find_known(descr) != nullptr; }

bool same_dtype(PyObject* a, PyObject* b) { return npy_api::get().PyArray_EquivTypes_(a, b); }

Format check_copy(const py::object& copy, const std::string& who, const Extents& shape, Format parameter) {
    const Format format = check_parameter(copy, who);
    if (item_size(format) >= item_size(parameter))
        throw py::type_error(who + " has dtype " + format_name(format) + "; one narrower than the parameter's " +
                             format_name(parameter) + " is wanted");
    require_shape(ArrayFields(copy.ptr()), shape, [&who] { return who; });
    return format;
}

bool share_memory(py::handle a, py::handle b) {
    return py::module_::import("numpy").attr("shares_memory")(a, b).cast<bool>();
}

Room::Room(std::int64_t bytes, int place) {
    constexpr std::int64_t page = 4096;
    // Large arrays of NumPy's all begin at the same place in their page, where a core takes the loads of one for what
    // it has just stored to another and waits: these each begin elsewhere.
    const bool spans_pages = bytes >= 4 * page;
    const std::int64_t period = spans_pages ? page : line;
    const std::int64_t start = spans_pages ? line + place % 4 * (page / 4) + place / 4 * (page / 16) : 0;
    // numpy.zeros takes pages that are zero already, untouched until the first step writes them.
    memory_ = py::module_::import("numpy").attr("zeros")(bytes + period, "uint8");
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory_.data()) % page);
    begin_ = (start + page - address) % period;
}

py::array Room::take(const Extents& shape, const Axes& order, const py::dtype& dtype) {
    std::int64_t bytes = dtype.itemsize();
    for (const std::int64_t length : shape) bytes *= length;
    const py::object flat = memory_[py::slice(begin_, begin_ + bytes, 1)].attr("view")(dtype);
    begin_ += rounded(bytes);
    py::tuple lengths(order.size());
    py::tuple axes(order.size());
    for (std::size_t k = 0; k < order.size(); ++k) {
        lengths[k] = shape[static_cast<std::size_t>(order[k])];
        axes[static_cast<std::size_t>(order[k])] = k;
    }
    return flat.attr("reshape")(lengths).attr("transpose")(axes);
}

void OwnedMemory::add(const py::array& array, const std::string& what) {
    const ArrayFields fields(array.ptr());
    const ByteRange range = byte_range(fields.shape, fields.strides, fields.ndim, array.itemsize());
    if (range.low != range.high) owners_.push_back({fields.data + range.low, fields.data + range.high, array, what});
}

void OwnedMemory::finish() {
    std::sort(owners_.begin(), owners_.end(), [](const Owner& a, const Owner& b) { return a.low < b.low; });
    const char* reach = nullptr;
    reaches_.clear();
    for (const Owner& owner : owners_) reaches_.push_back(reach = std::max(reach, owner.high));
}

std::vector<OwnedMemory::Owner>::const_iterator OwnedMemory::first_from(const char* address) const {
    return std::lower_bound(owners_.begin(), owners_.end(), address,
                            [](const Owner& owner, const char* low) { return owner.low < low; });
}

void OwnedMemory::find(const char* low, const char* high, std::vector<const Owner*>& found) const {
    // Owners that begin below the range's end, backwards, while one of those before may still reach into it.
    const auto end = first_from(high);
    for (auto i = static_cast<std::size_t>(end - owners_.begin()); i-- > 0 && reaches_[i] > low;)
        if (owners_[i].high > low) found.push_back(&owners_[i]);
}

OwnedMemory::Gap OwnedMemory::gap_around(const char* end) const {
    const auto next = first_from(end);
    const auto below = static_cast<std::size_t>(next - owners_.begin());
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a bound to compare with, never read
    const auto* const top = reinterpret_cast<const char*>(std::numeric_limits<std::uintptr_t>::max());
    return {below == 0 ? nullptr : reaches_[below - 1], next == owners_.end() ? top : next->low};
}

}  // namespace instep
