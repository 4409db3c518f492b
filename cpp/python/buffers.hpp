// NumPy arrays as the core sees them: every check of an array, and every error it is refused with.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep {

namespace py = pybind11;

// What an array says of itself, read without a copy; valid while the array is held and not reshaped.
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
    std::int64_t size() const;
    bool aligned() const { return (flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }
    bool writeable() const { return (flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0; }
};

std::int64_t item_size(Format format);
const char* format_name(Format format);

// The format a dtype names; throws TypeError in the words of `who` ("parameter 'w'").
Format format_of_dtype(const py::dtype& dtype, const std::string& who);
// Its type with an article, for errors: "a list", "an int", "None".
std::string kind_of(py::handle object);

// Throws TypeError or ValueError unless the array can be updated in place. Returns its format.
Format check_parameter(const py::object& parameter, const std::string& who);

// Throws TypeError or ValueError unless the array can hold a parameter of that shape and format in a narrower one.
// Returns its format.
Format check_copy(const py::object& copy, const std::string& who, const Extents& shape, Format parameter);

// Throws TypeError where a gradient is of a subclass of ndarray with masks. Runs Python code of that class.
void check_subclass(PyObject* gradient, const std::string& name);

// Throws TypeError or ValueError unless the gradient can be read and has the parameter's shape. Returns its format.
Format check_gradient(PyObject* gradient, const std::string& name, const Extents& shape);

// Whether the object is an ndarray itself and no subclass.
inline bool is_plain_array(PyObject* object) { return Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_; }

// Whether a dtype object stays for the life of the process, so that its address tells what it is.
bool is_known_dtype(PyObject* descr);

// Whether arrays of two dtype objects hold the same kind of elements.
bool same_dtype(PyObject* a, PyObject* b);

// Whether two arrays share an element's bytes, decided exactly. May run other Python threads meanwhile.
bool share_memory(py::handle a, py::handle b);

// Memory of zeros for new arrays, one after the other, each on a cache line's boundary: side by side, those of many
// small parameters make one long stream, on large pages where the system has some. Arrays that a step goes through
// together are of rooms at places of their own, counted from 1: the caller's arrays are at 0.
class Room {
public:
    Room(std::int64_t bytes, int place);

    // What keeps it from being resized.
    py::object weak_reference() const { return py::weakref(static_cast<const py::handle&>(memory_)); }

    // What an array of so many bytes takes.
    static std::int64_t rounded(std::int64_t bytes) { return (bytes + line - 1) / line * line; }
    // The next array: of that shape, laid out without gaps in the given order.
    py::array take(const Extents& shape, const Axes& order, const py::dtype& dtype);

private:
    static constexpr std::int64_t line = 64;

    py::array memory_;
    std::int64_t begin_;
};

// Memory that belongs to an optimizer, to find gradients that share it.
class OwnedMemory {
public:
    void add(const py::array& array, const std::string& what);
    void finish();  // after the last add

    struct Owner {
        const char *low, *high;
        py::array array;
        std::string what;  // "parameter 'w'"
    };

    const std::vector<Owner>& owners() const { return owners_; }

    // Owners whose byte range meets [low, high).
    void find(const char* low, const char* high, std::vector<const Owner*>& found) const;

    // The free memory around a range that meets no owner and ends there.
    struct Gap {
        const char *low, *high;
    };
    Gap gap_around(const char* end) const;

private:
    std::vector<Owner>::const_iterator first_from(const char* address) const;

    std::vector<Owner> owners_;         // by low
    std::vector<const char*> reaches_;  // highest end among the owners up to this one
};

}  // namespace instep
