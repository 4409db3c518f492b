#include "python/containers.hpp"

#include "python/arrays.hpp"

namespace instep {

namespace {

bool is_sequence(py::handle object) { return PyList_Check(object.ptr()) || PyTuple_Check(object.ptr()); }

std::string quoted(py::handle object) { return py::cast<std::string>(py::repr(object)); }

// A few names, and the number of further names: a model may have thousands.
class Names {
public:
    void add(py::handle name) {
        if (count_++ < most_) text_ += (text_.empty() ? "" : ", ") + quoted(name);
    }
    bool empty() const { return count_ == 0; }
    std::string text() const {
        return count_ <= most_ ? text_ : text_ + " and " + std::to_string(count_ - most_) + " more";
    }

private:
    static constexpr std::size_t most_ = 3;
    std::size_t count_ = 0;
    std::string text_;
};

[[noreturn]] void refuse_keys(const Container& container, py::handle gradients) {
    py::set keys;
    Names missing;
    for (const py::str& key : container.keys) {
        keys.add(key);
        if (PyDict_Contains(gradients.ptr(), key.ptr()) == 0) missing.add(key);
    }
    Names unknown;
    // A separate list: hashing or showing a key may run code that removes it from the dict.
    const auto found = py::reinterpret_steal<py::list>(PyDict_Keys(gradients.ptr()));
    if (!found) throw py::error_already_set();
    for (const py::handle key : found)
        if (!keys.contains(key)) unknown.add(key);
    std::string text = container.called + " must have the parameters' keys";
    if (!missing.empty()) text += "; missing: " + missing.text() + " (None leaves a parameter alone)";
    if (!unknown.empty()) text += "; unknown: " + unknown.text();
    throw py::value_error(text);
}

void collect_sequence(const Container& container, py::handle gradients, std::vector<py::object>& out) {
    if (!is_sequence(gradients))
        throw py::type_error(container.called + " came as " + kind_of(gradients) + "; a list or tuple of " +
                             std::to_string(container.count) + " is wanted, as the parameters came");
    const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(gradients.ptr()));
    if (count != container.count)
        throw py::value_error(container.called + " have " + std::to_string(count) + " entries; " +
                              std::to_string(container.count) +
                              " are wanted, one for each parameter (None leaves one alone)");
    PyObject** items = PySequence_Fast_ITEMS(gradients.ptr());
    for (std::size_t i = 0; i < count; ++i) out.push_back(py::reinterpret_borrow<py::object>(items[i]));
}

void collect_mapping(const Container& container, py::handle given, std::vector<py::object>& out) {
    auto gradients = py::reinterpret_borrow<py::object>(given);
    if (!PyDict_Check(given.ptr())) {
        if (!py::hasattr(given, "keys"))
            throw py::type_error(container.called + " came as " + kind_of(given) +
                                 "; a dict is wanted, as the parameters came");
        gradients = py::dict(gradients);
    }
    if (static_cast<std::size_t>(PyDict_Size(gradients.ptr())) != container.count) refuse_keys(container, gradients);
    for (const py::str& key : container.keys) {
        PyObject* item = PyDict_GetItemWithError(gradients.ptr(), key.ptr());
        if (item == nullptr) {
            if (PyErr_Occurred() != nullptr) throw py::error_already_set();
            refuse_keys(container, gradients);
        }
        out.push_back(py::reinterpret_borrow<py::object>(item));
    }
}

}  // namespace

void GradientCollector::collect(py::handle gradients, std::vector<py::object>& out) const {
    out.clear();
    if (!grouped_) return collect_from(containers_[0], gradients, out);
    if (!is_sequence(gradients))
        throw py::type_error("the gradients came as " + kind_of(gradients) +
                             "; a list with an entry for each parameter group is wanted");
    const auto groups = py::reinterpret_borrow<py::sequence>(gradients);
    if (groups.size() != containers_.size())
        throw py::value_error("the gradients have " + std::to_string(groups.size()) + " entries; one for each of the " +
                              std::to_string(containers_.size()) + " parameter groups is wanted");
    for (std::size_t k = 0; k < containers_.size(); ++k) collect_from(containers_[k], py::object(groups[k]), out);
}

void GradientCollector::collect_from(const Container& container, py::handle gradients, std::vector<py::object>& out) {
    switch (container.kind) {
        case ContainerKind::array: out.push_back(py::reinterpret_borrow<py::object>(gradients)); return;
        case ContainerKind::sequence: collect_sequence(container, gradients, out); return;
        case ContainerKind::mapping: collect_mapping(container, gradients, out); return;
    }
}

}  // namespace instep
