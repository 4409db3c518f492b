#include "python/snapshot.hpp"

#include <memory>

#include "python/garbage.hpp"

namespace instep {

namespace {

// NOLINTBEGIN(misc-no-recursion): as deep as this at most
constexpr int deepest = 4;

// Calls object(PyObject*) for each object, a container before what it holds, and length(Py_ssize_t) for each container;
// ends as soon as one of them returns false. Returns whether none did.
template <class Object, class Length>
bool walk(PyObject* item, int depth, const Object& object, const Length& length) {
    if (!object(item)) return false;
    if (depth == deepest) return true;
    if (PyDict_Check(item)) {
        if (!length(PyDict_Size(item))) return false;
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        for (Py_ssize_t place = 0; PyDict_Next(item, &place, &key, &value) != 0;)
            if (!object(key) || !walk(value, depth + 1, object, length)) return false;
    } else if (PyList_Check(item)) {
        if (!length(PyList_GET_SIZE(item))) return false;
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(item); ++i)
            if (!walk(PyList_GET_ITEM(item, i), depth + 1, object, length)) return false;
    }
    return true;
}

// NOLINTEND(misc-no-recursion)

}  // namespace

Snapshot::Snapshot(const py::args& containers) {
    const auto object = [this](PyObject* item) {
        seen_.push_back(py::reinterpret_borrow<py::object>(item));
        return true;
    };
    const auto length = [this](Py_ssize_t count) {
        lengths_.push_back(count);
        return true;
    };
    for (const py::handle container : containers) walk(container.ptr(), 0, object, length);
}

bool Snapshot::matches(const py::args& containers) const {
    auto next = seen_.begin();
    auto next_length = lengths_.begin();
    const auto object = [&](PyObject* item) { return next != seen_.end() && (next++)->ptr() == item; };
    const auto length = [&](Py_ssize_t count) { return next_length != lengths_.end() && *next_length++ == count; };
    for (const py::handle container : containers)
        if (!walk(container.ptr(), 0, object, length)) return false;
    return next == seen_.end();
}

int Snapshot::traverse(visitproc visit, void* arg) const {
    for (const py::object& item : seen_) Py_VISIT(item.ptr());
    return 0;
}

void bind_snapshot(py::module_& m) {
    py::class_<Snapshot>(m, "Snapshot", py::is_final(), py::custom_type_setup(traversed<Snapshot>),
                         "What dicts and lists held at one moment; made by make_snapshot.")
        .def("matches", &Snapshot::matches, "Whether containers hold the same objects, in the same order.");
    m.def(
        "make_snapshot", [](const py::args& containers) { return std::make_unique<Snapshot>(containers); },
        "What containers hold now.");
}

}  // namespace instep
