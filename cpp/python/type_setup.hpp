// What classes of the module have in common.
#pragma once

#include <Python.h>

namespace instep {

// What a class's __new__ makes without constructing it has methods that would read memory that was never written.
inline void forbid_new(PyHeapTypeObject* heap_type) {
    heap_type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
}

}  // namespace instep
