// Memory for arrays of the optimizer's own, and the hold that a step has on everybody's.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep {

namespace py = pybind11;

// What arrays of a Room have for a base: no array, so that nothing that is done to one of them frees the memory or
// moves it.
struct Memory {
    py::array bytes;
};

// Memory of zeros for new arrays, one after the other, each on a cache line's boundary: side by side, those of many
// small parameters make one long stream, on large pages where the system has some. Arrays that a step goes through
// together are of rooms at places of their own in their pages, counted from 1: the caller's arrays are at 0.
class Room {
public:
    Room(std::int64_t bytes, int place);

    // What an array of so many bytes takes.
    static std::int64_t rounded(std::int64_t bytes) { return (bytes + line - 1) / line * line; }
    // The next array: of that shape, laid out without gaps in the given order.
    py::array take(const Extents& shape, const Axes& order, Format format);

private:
    static constexpr std::int64_t line = 64;

    py::object memory_;
    char* next_;
};

// The object whose life is an array's memory: the array itself, or what it is a view of in the end.
py::object owner_of(const py::handle& array);

// Keeps memory of arrays from being given back while other Python threads run, whatever these do to the arrays: what
// replaces an array's memory (`__setstate__`, `data`, `resize`) frees it only where the array says that it is its own.
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
        char* data;  // null: it is no array that owns its memory
    };
    std::vector<Pinned> pinned_;
};

}  // namespace instep
