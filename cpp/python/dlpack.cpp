#include "python/dlpack.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

namespace instep {

namespace py = pybind11;

namespace {

constexpr std::uint32_t major_version = 1;
constexpr std::int32_t cpu = 1;
constexpr const char* capsule_name = "dlpack_exchange_api";

// The layout of DLPack's structures, version 1. Nothing before `look` is used.
struct Tensor {
    void* data;
    struct {
        std::int32_t type, id;
    } device;
    std::int32_t ndim;
    struct {
        std::uint8_t code, bits;
        std::uint16_t lanes;
    } type;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements
    std::uint64_t byte_offset;
};

struct Table {
    struct Header {
        std::uint32_t major, minor;
        Header* older;
    } header;
    void* allocate;
    void* from_object;
    void* to_object;
    int (*look)(void* object, Tensor* tensor);  // may be null
};

// The table of version 1; a table of a later version leads to it.
const Table* table_of(PyTypeObject* type) {
    const auto found = py::reinterpret_steal<py::object>(
        PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__"));
    if (!found || PyCapsule_IsValid(found.ptr(), capsule_name) == 0) {
        PyErr_Clear();
        return nullptr;
    }
    auto* header = static_cast<Table::Header*>(PyCapsule_GetPointer(found.ptr(), capsule_name));
    while (header != nullptr && header->major != major_version) header = header->older;
    const auto* table = reinterpret_cast<const Table*>(header);
    return table == nullptr || table->look == nullptr ? nullptr : table;
}

struct OfType {
    PyTypeObject* type;
    const Table* table;
};

// The types of the last tensors: parameters and states take turns.
OfType last{nullptr, nullptr}, last_but_one{nullptr, nullptr};

// By type. Types are kept alive, since another type may be made at the same address, for which the table is wrong.
const Table* find_table_of(PyTypeObject* type) {
    static auto* const tables = std::make_unique<std::unordered_map<PyTypeObject*, const Table*>>().release();
    auto found = tables->find(type);
    if (found == tables->end()) {
        const Table* const table = table_of(type);
        if (table == nullptr) return nullptr;  // not noted, since a process may make any number of types
        Py_INCREF(type);
        found = tables->emplace(type, table).first;
    }
    last_but_one = last;
    last = {type, found->second};
    return last.table;
}

inline const Table* known_table_of(PyObject* object) {
    PyTypeObject* const type = Py_TYPE(object);
    if (type == last.type) return last.table;
    if (type == last_but_one.type) return last_but_one.table;
    return find_table_of(type);
}

}  // namespace

bool is_tensor(PyObject* object) { return known_table_of(object) != nullptr; }

char* memory_if_like(PyObject* object, const TensorLayout& layout) {
    const Table* const table = known_table_of(object);  // none if the object has been given another class
    Tensor tensor{};
    if (table == nullptr || table->look(object, &tensor) != 0) {
        PyErr_Clear();
        return nullptr;
    }
    if (tensor.ndim != layout.ndim || tensor.device.type != cpu || tensor.type.lanes != 1 ||
        !is_type_of(layout.format, tensor.type.code, tensor.type.bits))
        return nullptr;
    const std::int64_t item = tensor.type.bits / 8;
    for (int axis = 0; axis < layout.ndim; ++axis)
        if (tensor.strides == nullptr || tensor.shape[axis] != layout.shape[axis] ||
            tensor.strides[axis] * item != layout.strides[axis])
            return nullptr;
    return static_cast<char*>(tensor.data) + tensor.byte_offset;
}

TensorFields look_at_tensor(PyObject* object) {
    const Table* const table = known_table_of(object);
    Tensor tensor{};
    if (table == nullptr || table->look(object, &tensor) != 0) {
        if (PyErr_Occurred() == nullptr)
            PyErr_SetString(PyExc_ValueError, "a tensor must describe its memory, got an error without a text");
        throw py::error_already_set();
    }
    TensorFields fields;
    if (tensor.ndim > static_cast<std::int32_t>(fields.strides.size()))
        throw py::value_error("a tensor must have at most 64 axes, got " + std::to_string(tensor.ndim));
    fields.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    fields.ndim = tensor.ndim;
    fields.shape = tensor.shape;
    fields.type_code = tensor.type.code;
    fields.bits = tensor.type.lanes == 1 ? tensor.type.bits : std::uint8_t{0};
    fields.on_cpu = tensor.device.type == cpu;
    std::int64_t stride = tensor.type.bits / 8;
    const bool is_empty = std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim;
    for (int axis = fields.ndim; axis-- > 0;) {
        const auto k = static_cast<std::size_t>(axis);
        fields.strides[k] = tensor.strides != nullptr ? tensor.strides[axis] * (tensor.type.bits / 8) : stride;
        if (!is_empty) stride *= tensor.shape[axis];  // if one axis has length 0, the others may have any length
    }
    return fields;
}

}  // namespace instep
