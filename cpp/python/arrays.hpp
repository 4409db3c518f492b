// NumPy arrays as views on which the core works: every check of an array, and every error that refuses it. Nothing here
// runs Python code unless a comment says so, so an array that was looked at stays as it was.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "kernels/interface.hpp"
#include "python/dlpack.hpp"
#include "runtime/layout.hpp"
#include "runtime/tensor_view.hpp"

namespace instep {

namespace py = pybind11;

// The fields of an array, read without a copy; valid while the array is held and not reshaped.
struct ArrayFields {
    char* data;
    int ndim;
    const std::int64_t* shape;
    const std::int64_t* strides;
    PyObject* descr;
    int flags;

    explicit ArrayFields(PyObject* array) {
        const auto* proxy = py::detail::array_proxy(array);
        data = proxy->data;
        ndim = proxy->nd;
        shape = reinterpret_cast<const std::int64_t*>(proxy->dimensions);
        strides = reinterpret_cast<const std::int64_t*>(proxy->strides);
        descr = proxy->descr;
        flags = proxy->flags;
    }
    bool aligned() const { return (flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }
    bool writeable() const { return (flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0; }
    TensorView view(Format format) const { return {data, ndim, shape, strides, format, writeable()}; }
};

// Arrays of floating-point numbers alone, or also of integers that are codes, or remainders of parameters.
enum class Elements : char { numbers, also_codes, remainders };

// An array or a tensor, looked at once: the fields that a step needs, whichever library made it.
class Look {
public:
    // Throws TypeError or ValueError if it is neither, or doesn't hold numbers with which the core can compute.
    Look(PyObject* object, const std::string& who, bool takes_tensors = false, Elements elements = Elements::numbers);
    Look(const Look&) = delete;  // the view points into it
    Look& operator=(const Look&) = delete;
    Look(Look&&) = delete;
    Look& operator=(Look&&) = delete;
    ~Look() = default;

    const TensorView& view() const { return view_; }
    PyObject* descr() const { return descr_; }  // of an array; null for a tensor

private:
    TensorFields tensor_;
    TensorView view_{};
    PyObject* descr_ = nullptr;
};

const char* format_name(Format format);
// The dtype of a format. For bfloat16, this is the dtype of the arrays seen so far, or that of ml_dtypes.
py::dtype dtype_of(Format format);

// The format of a dtype; throws a TypeError that calls it `who` ("state_dtype").
Format format_of_dtype(const py::dtype& dtype, const std::string& who);
// The form of an error: "WHO must EXPECTED, got FOUND".
std::string refusal(const std::string& who, const std::string& expected, const std::string& found);
// Names with a text between each two, for errors.
std::string joined(const std::vector<std::string>& names, const char* between = ", ");
// Its type with an article, for errors: "a list", "an ndarray", "None".
std::string kind_of(py::handle object);
// A shape as Python writes it, for errors.
std::string text_of_shape(const std::int64_t* shape, int ndim);

enum class ReadOnly : bool { refused, taken };

// Throws TypeError or ValueError unless the array can be updated in place or, if read-only arrays are taken, could be
// if it were writeable. `mend` is added to the error.
void require_parameter(const TensorView& view, const std::string& who, ReadOnly read_only = ReadOnly::refused,
                       const char* mend = "");

// How to mend a parameter that can't be updated in place.
constexpr const char* use_a_copy = "; pass array.copy(), and use this copy in the model, too";

// Throws TypeError or ValueError unless the array can hold a parameter in a narrower format.
void require_copy(const TensorView& view, const std::string& who, const TensorView& parameter, ReadOnly read_only);

// Throws ValueError unless the array has the parameter's shape.
void require_shape(const TensorView& view, const std::string& who, const std::int64_t* shape, int ndim);

// Throws TypeError if an array is of a subclass of ndarray with masks. Runs Python code of that class.
void require_unmasked(PyObject* array, const std::string& who);

// Whether the object has the attribute. Runs code of its class; lets every error but AttributeError through, such as
// KeyboardInterrupt.
bool has_attribute(PyObject* object, const char* name);

// Whether the object is an ndarray; and whether it is exactly an ndarray, not of a subclass.
inline bool is_array(PyObject* object) { return py::detail::npy_api::get().PyArray_Check_(object); }
inline bool is_plain_array(PyObject* object) { return Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_; }

// Whether a dtype object stays for the life of the process, so that its address identifies the dtype.
bool is_known_dtype(PyObject* descr);

// Whether arrays of two dtype objects hold the same kind of elements.
bool same_dtype(PyObject* a, PyObject* b);

std::string gradient_of(const std::string& name);
std::string state_of(const std::string& name, const std::string& state);

}  // namespace instep
