#include "python/snapshot.hpp"

#include <memory>
#include <utility>

#include "python/arrays.hpp"
#include "python/garbage.hpp"

namespace instep {

using namespace pybind11::literals;

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

// Whether an object is the same text: the keys of a dict from a file are other objects than those in a program.
bool is_text(PyObject* item, PyObject* text) {
    return item == text || (PyUnicode_CheckExact(item) && PyUnicode_GetLength(item) == PyUnicode_GetLength(text) &&
                            PyUnicode_Compare(item, text) == 0);
}

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

bool Snapshot::follow(const py::str& key, const py::args& containers) {
    std::size_t next = 0;
    std::size_t next_length = 0;
    bool is_named = false;
    std::vector<std::pair<std::size_t, PyObject*>> others;
    const auto object = [&](PyObject* item) {
        if (next == seen_.size()) return false;
        PyObject* const seen = seen_[next++].ptr();
        const bool may_differ = is_named && PyFloat_CheckExact(seen) && PyFloat_CheckExact(item);
        is_named = is_text(item, key.ptr());
        if (seen == item) return true;
        if (may_differ) others.emplace_back(next - 1, item);
        return may_differ;
    };
    const auto length = [&](Py_ssize_t count) {
        return next_length != lengths_.size() && lengths_[next_length++] == count;
    };
    for (const py::handle container : containers)
        if (!walk(container.ptr(), 0, object, length)) return false;
    if (next != seen_.size()) return false;
    for (const auto& [place, item] : others) seen_[place] = py::reinterpret_borrow<py::object>(item);
    return true;
}

int Snapshot::traverse(visitproc visit, void* arg) const {
    for (const py::object& item : seen_) Py_VISIT(item.ptr());
    return 0;
}

py::object read_all(const py::object& descriptor, const py::list& objects, const py::type& type,
                    const py::object& is_special) {
    const descrgetfunc get = Py_TYPE(descriptor.ptr())->tp_descr_get;
    if (get == nullptr) throw py::type_error(refusal("descriptor", "be a descriptor", kind_of(descriptor)));
    py::list values;
    py::list there;
    for (std::size_t i = 0; i < objects.size(); ++i) {  // reading an attribute may run code
        const py::object object = objects[i];
        const auto value = py::reinterpret_steal<py::object>(
            get(descriptor.ptr(), object.ptr(), reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))));
        if (!value) throw py::error_already_set();
        values.append(value);
        if (value.is_none()) continue;
        if (reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())) != type.ptr()) return py::none();
        PyObject* const argument = value.ptr();
        const auto said =
            py::reinterpret_steal<py::object>(PyObject_Vectorcall(is_special.ptr(), &argument, 1, nullptr));
        if (!said) throw py::error_already_set();
        if (said.ptr() != Py_False) return py::none();
        there.append(object);
    }
    return py::make_tuple(values, there.size() == objects.size() ? objects : there);
}

void bind_snapshot(py::module_& m) {
    py::class_<Snapshot>(m, "Snapshot", py::is_final(), py::custom_type_setup(traversed<Snapshot>),
                         "What dicts and lists held at one moment; made by make_snapshot.")
        .def("follow", &Snapshot::follow, "The same, but for other floats under a key of dicts, which it takes over.")
        .def("matches", &Snapshot::matches, "Whether containers hold the same objects, in the same order.");
    m.def(
        "read_all", &read_all, "descriptor"_a, "objects"_a, "type"_a, "is_special"_a,
        "An attribute of each object, and the objects that have it; None if some value is of another type or special.");
    m.def(
        "make_snapshot", [](const py::args& containers) { return std::make_unique<Snapshot>(containers); },
        "What containers hold now.");
}

}  // namespace instep
