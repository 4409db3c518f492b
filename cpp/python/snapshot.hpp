// What containers held at one moment, by identity: tells whether a host has replaced an object in its dicts and lists.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <vector>

namespace instep {

namespace py = pybind11;

// The keys and values of dicts and the items of lists, with the dicts and lists in them, to a depth that is enough for
// a host's parameter groups and states. It keeps all these objects alive, so that no other object gets their addresses.
// Comparing runs no Python code.
class Snapshot {
public:
    explicit Snapshot(const py::args& containers);
    // Whether the containers and everything in them are the same objects, in the same order.
    bool matches(const py::args& containers) const;
    // The same, but for other floats under a key of dicts, which it then holds in place of the former.
    bool follow(const py::str& key, const py::args& containers);
    int traverse(visitproc visit, void* arg) const;

private:
    std::vector<py::object> seen_;
    std::vector<py::ssize_t> lengths_;  // of the containers among them, in their order
};

// Reads an attribute of each object through its descriptor. Returns a list of the values, and the objects themselves,
// or a list of those whose value is not None; or None, if some value is neither None nor of exactly this type, or if
// `is_special` says True of it.
py::object read_all(const py::object& descriptor, const py::list& objects, const py::type& type,
                    const py::object& is_special);

void bind_snapshot(py::module_& m);

}  // namespace instep
