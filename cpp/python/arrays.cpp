#include "python/arrays.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "runtime/overlap.hpp"

namespace instep {

namespace {

constexpr const char* dtypes = "float64, float32, float16 or bfloat16 (ml_dtypes)";

constexpr const char* aligned = "have elements that lie on their own boundaries";

std::string text_of(py::handle object) { return py::cast<std::string>(py::str(object)); }

// The dtype objects that NumPy shares among nearly all arrays of a dtype, so that a comparison of pointers nearly
// always gives the answer. They are held for the life of the process.
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

// The element types that NumPy itself defines have numbers below this; those of packages have numbers from here on.
constexpr int first_registered_type = 256;

// bfloat16 is a type of two bytes that a package has registered under this name. ml_dtypes does so, also for JAX and
// TensorFlow; none of them need be imported here. Python code can't register a type, and this check runs no Python
// code.
bool is_bfloat16(const py::dtype& dtype) {
    if (dtype.num() < first_registered_type || dtype.itemsize() != 2 || dtype.alignment() != 2) return false;
    const PyObject* type = py::detail::array_descriptor_proxy(dtype.ptr())->typeobj;
    const char* name = reinterpret_cast<const PyTypeObject*>(type)->tp_name;
    const char* last = std::strrchr(name, '.');
    return std::strcmp(last == nullptr ? name : last + 1, "bfloat16") == 0;
}

// The formats of arrays of integers, by the kind of their dtype and the bytes of an element.
struct OfIntegers {
    char kind;
    std::int64_t bytes;
    Format format;
};
constexpr std::array<OfIntegers, 3> integers = {
    {{'i', 1, Format::signed8}, {'u', 1, Format::unsigned8}, {'i', 2, Format::rest16}}};

std::optional<Format> format_of_integers(const py::dtype& dtype) {
    const bool swapped = dtype.byteorder() != '=' && dtype.byteorder() != '|';
    for (const OfIntegers& known : integers)
        if (dtype.kind() == known.kind && dtype.itemsize() == known.bytes && !swapped) return known.format;
    return std::nullopt;
}

std::string dtype_among(Elements elements) {
    if (elements == Elements::remainders) return "have dtype int8 or int16";
    const std::string numbers = std::string("have dtype ") + dtypes;
    return elements == Elements::also_codes ? numbers + ", or int8 or uint8 for codes" : numbers;
}

Format find_format(PyObject* descr, const std::string& who, const std::string& expected) {
    if (const KnownDtype* known = find_known(descr)) return known->format;
    const auto dtype = py::reinterpret_borrow<py::dtype>(descr);
    const char byteorder = dtype.byteorder();
    const bool swapped = byteorder != '=' && byteorder != '|';
    Format format = Format::float64;
    const bool is_float = dtype.kind() == 'f' && dtype.num() < first_registered_type;
    if (is_float && dtype.itemsize() == 8)
        format = Format::float64;
    else if (is_float && dtype.itemsize() == 4)
        format = Format::float32;
    else if (is_float && dtype.itemsize() == 2)
        format = Format::float16;
    else if (is_bfloat16(dtype))
        format = Format::bfloat16;
    else
        throw py::type_error(refusal(who, expected, text_of(dtype)));
    if (swapped)
        throw py::type_error(refusal(who, "be in the machine's byte order", text_of(dtype)) +
                             "; pass array.astype(array.dtype.newbyteorder('='))");
    // Only the shared object of bfloat16 is added, whichever object the array has: unpickling an array makes another
    // object.
    const bool is_new = std::none_of(known_dtypes().begin(), known_dtypes().end(),
                                     [format](const KnownDtype& known) { return known.format == format; });
    if (is_new) known_dtypes().push_back({py::dtype(dtype.num()).release().ptr(), format});
    return format;
}

Format format_of_array(PyObject* descr, const std::string& who, Elements elements) {
    if (elements != Elements::numbers && find_known(descr) == nullptr) {
        const std::optional<Format> found = format_of_integers(py::reinterpret_borrow<py::dtype>(descr));
        if (found) return *found;
    }
    return find_format(descr, who, dtype_among(elements));
}

Format format_of_tensor(const TensorFields& tensor, const std::string& who, Elements elements) {
    for (const OfIntegers& known : integers)
        if (elements != Elements::numbers && tensor.is_of(known.format)) return known.format;
    for (const Format format : {Format::float64, Format::float32, Format::float16, Format::bfloat16})
        if (tensor.is_of(format)) return format;
    throw py::type_error(refusal(who, dtype_among(elements), "a tensor of another dtype"));
}

}  // namespace

const char* format_name(Format format) {
    constexpr std::array<const char*, format_count> names = {"float64", "float32", "float16",  "bfloat16", "float16",
                                                             "int8",    "uint8",   "bfloat16", "bfloat16", "int16"};
    return names[static_cast<std::size_t>(format)];
}

py::dtype dtype_of(Format format) {
    for (const KnownDtype& known : known_dtypes())
        if (known.format == array_format(format)) return py::reinterpret_borrow<py::dtype>(known.descr);
    for (const OfIntegers& known : integers)
        if (known.format == format) return py::dtype(format_name(format));
    return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
}

Format format_of_dtype(const py::dtype& dtype, const std::string& who) {
    return find_format(dtype.ptr(), who, std::string("be ") + dtypes);
}

std::string refusal(const std::string& who, const std::string& expected, const std::string& found) {
    return who + " must " + expected + ", got " + found;
}

std::string joined(const std::vector<std::string>& names, const char* between) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : between) + name;
    return text;
}

std::string kind_of(py::handle object) {
    if (object.is_none()) return "None";
    const std::string path = Py_TYPE(object.ptr())->tp_name;
    const std::string name = path.substr(path.rfind('.') + 1);
    const bool vowel = std::string("aeioAEIO").find(name[0]) != std::string::npos || name == "ndarray";
    return (vowel ? "an " : "a ") + name;
}

std::string text_of_shape(const std::int64_t* shape, int ndim) {
    std::string text = "(";
    for (int axis = 0; axis < ndim; ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
    return text + (ndim == 1 ? ",)" : ")");
}

std::string gradient_of(const std::string& name) { return "the gradient of '" + name + "'"; }

std::string state_of(const std::string& name, const std::string& state) {
    std::string text = "state '";
    return text.append(state).append("' of '").append(name).append("'");
}

bool has_attribute(PyObject* object, const char* name) {
    const auto found = py::reinterpret_steal<py::object>(PyObject_GetAttrString(object, name));
    if (found) return true;
    if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) throw py::error_already_set();
    PyErr_Clear();
    return false;
}

// An update of a masked array's data would ignore its mask.
void require_unmasked(PyObject* array, const std::string& who) {
    if (!is_plain_array(array) && is_array(array) && has_attribute(array, "mask"))
        throw py::type_error(refusal(who, "be a plain NumPy array", kind_of(array)));
}

Look::Look(PyObject* object, const std::string& who, bool takes_tensors, Elements elements) {
    if (is_array(object)) {
        const ArrayFields fields(object);
        descr_ = fields.descr;
        view_ = fields.view(format_of_array(fields.descr, who, elements));
        if (!fields.aligned()) throw py::value_error(refusal(who, aligned, "an array that is misaligned"));
    } else if (takes_tensors && is_tensor(object)) {
        tensor_ = look_at_tensor(object);
        if (!tensor_.on_cpu)
            throw py::value_error(refusal(who, "be in the CPU's memory", "a tensor on another device"));
        const Format format = format_of_tensor(tensor_, who, elements);
        view_ = {tensor_.data, tensor_.ndim, tensor_.shape, tensor_.strides.data(), format, true};
        if (view_.data == nullptr && view_.size() != 0)
            throw py::value_error(refusal(who, "have memory for its elements", "a tensor without memory"));
        if (!tensor_.is_aligned()) throw py::value_error(refusal(who, aligned, "a tensor that is misaligned"));
    } else {
        const bool detaches = has_attribute(object, "detach");
        throw py::type_error(refusal(who, "be a NumPy array", kind_of(object)) +
                             (detaches ? "; pass tensor.detach().numpy(), which shares its memory" : ""));
    }
    if (!is_within_memory(view_))
        throw py::value_error(
            refusal(who, "have all its elements in memory", "strides that reach further than any memory"));
}

void require_parameter(const TensorView& view, const std::string& who, ReadOnly read_only, const char* mend) {
    if (read_only == ReadOnly::refused && !view.writeable)
        throw py::value_error(refusal(who, "be writeable, as it is updated in place", "an array that is read-only") +
                              mend);
    if (overlaps_itself(view))
        throw py::value_error(
            refusal(who, "have separate elements", "an array that overlaps itself (a broadcast or sliding view)") +
            mend);
}

void require_shape(const TensorView& view, const std::string& who, const std::int64_t* shape, int ndim) {
    if (ndim == view.ndim && std::equal(shape, shape + ndim, view.shape)) return;
    throw py::value_error(
        refusal(who, "have shape " + text_of_shape(shape, ndim), text_of_shape(view.shape, view.ndim)));
}

bool is_known_dtype(PyObject* descr) { return find_known(descr) != nullptr; }

bool same_dtype(PyObject* a, PyObject* b) { return py::detail::npy_api::get().PyArray_EquivTypes_(a, b); }

void require_copy(const TensorView& view, const std::string& who, const TensorView& parameter, ReadOnly read_only) {
    require_parameter(view, who, read_only);
    if (item_size(view.format) >= item_size(parameter.format))
        throw py::type_error(
            refusal(who, std::string("have a narrower dtype than its parameter's ") + format_name(parameter.format),
                    format_name(view.format)));
    require_shape(view, who, parameter.shape, parameter.ndim);
}

}  // namespace instep
