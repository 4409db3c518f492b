// Support of Python's garbage collector for classes that hold Python objects in C++.
#pragma once

#include <pybind11/pybind11.h>

namespace instep {

// An object that __new__ makes without constructing it has methods that would read memory that was never written.
inline void forbid_new(PyHeapTypeObject* heap_type) {
    heap_type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
}

// Sets up a class whose objects take part in garbage collection by a method traverse(visit, arg), and are made only by
// functions.
template <class T>
void traversed(PyHeapTypeObject* heap_type) {
    forbid_new(heap_type);
    heap_type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    heap_type->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        if (!reinterpret_cast<pybind11::detail::instance*>(self)->get_value_and_holder().holder_constructed())
            return 0;  // it is still being made
        return pybind11::cast<const T&>(pybind11::handle(self)).traverse(visit, arg);
    };
}

}  // namespace instep
