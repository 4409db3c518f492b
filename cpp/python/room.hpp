// Memory for the optimizer's own arrays, and the hold of a step on the memory of all arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep {

namespace py = pybind11;

// The base of the arrays of a Room. It is not an array, so nothing that is done to these arrays can free or move the
// memory.
struct Memory {
    py::array bytes;
};

// Memory of zeros for new arrays, one after the other, each on the boundary of a cache line. Side by side, the arrays
// of many small parameters make one long stream, on large pages if the system has some. Arrays that a step goes through
// together come from different rooms. Each room begins at another offset within its page, numbered from 1; number 0 is
// the offset of the caller's arrays.
class Room {
public:
    Room(std::int64_t bytes, int place);
    // The same in memory that is there: a file's map, which can only be read.
    explicit Room(const py::array& map);

    // The bytes that an array of this size takes.
    static std::int64_t rounded(std::int64_t bytes) { return (bytes + line - 1) / line * line; }
    // The next array, of this shape, laid out without gaps in the given order of axes.
    py::array take(const Extents& shape, const Axes& order, Format format);

private:
    static constexpr std::int64_t line = 64;

    py::object memory_;
    char* next_;
};

// The object that owns an array's memory: the array itself, or the object of which it is a view in the end.
py::object owner_of(const py::handle& array);

// Keeps the memory of arrays from being freed while other Python threads run, whatever these threads do to the arrays.
// The operations that replace an array's memory (`__setstate__`, `data`, `resize`) free the old memory only if the
// array's flags say that the array owns it.
class Pins {
public:
    Pins() = default;
    ~Pins() { release(); }
    Pins(const Pins&) = delete;
    Pins& operator=(const Pins&) = delete;
    Pins(Pins&&) = delete;
    Pins& operator=(Pins&&) = delete;

    void pin(const py::handle& array);
    void release();

private:
    struct Pinned {
        py::object owner;
        char* data;  // null: the object is not an array that owns its memory
    };
    std::vector<Pinned> pinned_;
};

}  // namespace instep
