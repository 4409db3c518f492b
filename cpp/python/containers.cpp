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

// NOLINTBEGIN(misc-no-recursion): containers are in containers, at most 200 deep (optimizers/tree.py)

// The path from a container's root to the present place, for errors.
struct Path {
    const Container& container;
    const Path* above;
    const Node* node;   // in which it is ...
    std::size_t child;  // ... so far along

    std::string text() const {
        if (above == nullptr) return "";
        const std::string rest = above->text();
        const std::string own = node->kind == Node::Kind::mapping ? py::cast<std::string>(py::str(node->keys[child]))
                                                                  : std::to_string(child);
        return rest.empty() ? own : rest + "." + own;
    }
    std::string called() const {
        const std::string path = text();
        return "the gradients" + container.group + (path.empty() ? "" : " at '" + path + "'");
    }
};

[[noreturn]] void refuse_keys(const Node& node, const Path& path, py::handle gradients) {
    py::set keys;
    Names missing;
    for (const py::object& key : node.keys) {
        keys.add(key);
        if (PyDict_Contains(gradients.ptr(), key.ptr()) == 0) missing.add(key);
    }
    Names unknown;
    // A separate list: hashing or showing a key may run code that removes it from the dict.
    const auto found = py::reinterpret_steal<py::list>(PyDict_Keys(gradients.ptr()));
    if (!found) throw py::error_already_set();
    for (const py::handle key : found)
        if (!keys.contains(key)) unknown.add(key);
    std::string text = path.called() + " must have the parameters' keys";
    if (!missing.empty()) text += "; missing: " + missing.text() + " (None leaves a parameter alone)";
    if (!unknown.empty()) text += "; unknown: " + unknown.text() + " (add_param_group adds parameters)";
    throw py::value_error(text);
}

[[noreturn]] void refuse_length(const Node& node, const Path& path, std::size_t count) {
    throw py::value_error(refusal(
        path.called(),
        "have " + std::to_string(node.children.size()) + " entries, one for each parameter (None leaves one alone)",
        std::to_string(count)));
}

void collect_from(const Node& node, const Path& path, py::handle gradients, std::vector<py::object>& out);

// Of a child: nearly always an array.
void collect_child(const Node& node, const Path& path, std::size_t i, PyObject* item, std::vector<py::object>& out) {
    const Node& child = node.children[i];
    auto held = py::reinterpret_borrow<py::object>(item);
    if (child.kind == Node::Kind::array)
        out.push_back(std::move(held));
    else if (held.is_none())
        out.resize(out.size() + child.size, py::none());
    else
        collect_from(child, {path.container, &path, &node, i}, held, out);
}

void collect_sequence(const Node& node, const Path& path, py::handle gradients, std::vector<py::object>& out) {
    if (!is_sequence(gradients))
        throw py::type_error(refusal(
            path.called(), "be a list or tuple of " + std::to_string(node.children.size()) + ", as the parameters are",
            kind_of(gradients)));
    // What is inside may run code, by a key's hash, that changes a list.
    for (std::size_t i = 0; i < node.children.size(); ++i) {
        const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(gradients.ptr()));
        if (count != node.children.size()) refuse_length(node, path, count);
        collect_child(node, path, i, PySequence_Fast_GET_ITEM(gradients.ptr(), static_cast<Py_ssize_t>(i)), out);
    }
    const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(gradients.ptr()));
    if (count != node.children.size()) refuse_length(node, path, count);
}

void collect_mapping(const Node& node, const Path& path, py::handle given, std::vector<py::object>& out) {
    auto gradients = py::reinterpret_borrow<py::object>(given);
    if (!PyDict_Check(given.ptr())) {
        if (!has_attribute(given.ptr(), "keys"))
            throw py::type_error(refusal(path.called(), "be a dict, as the parameters are", kind_of(given)));
        gradients = py::dict(gradients);
    }
    if (static_cast<std::size_t>(PyDict_Size(gradients.ptr())) != node.keys.size()) refuse_keys(node, path, gradients);
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
        PyObject* item = PyDict_GetItemWithError(gradients.ptr(), node.keys[i].ptr());
        if (item == nullptr) {
            if (PyErr_Occurred() != nullptr) throw py::error_already_set();
            refuse_keys(node, path, gradients);
        }
        collect_child(node, path, i, item, out);
    }
}

void collect_from(const Node& node, const Path& path, py::handle gradients, std::vector<py::object>& out) {
    if (node.kind == Node::Kind::array) {
        out.push_back(py::reinterpret_borrow<py::object>(gradients));
    } else if (node.kind == Node::Kind::sequence) {
        collect_sequence(node, path, gradients, out);
    } else if (node.kind == Node::Kind::mapping) {
        collect_mapping(node, path, gradients, out);
    } else {
        throw py::type_error(refusal(path.called(), "be None, as there is no parameter", kind_of(gradients)));
    }
}

}  // namespace

Node Node::from(py::handle encoded) {
    Node node;
    if (py::isinstance<py::str>(encoded)) {
        const bool is_array = encoded.cast<std::string>() == "array";
        node.kind = is_array ? Kind::array : Kind::nothing;
        node.size = is_array ? 1 : 0;
        return node;
    }
    const auto fields = encoded.cast<py::tuple>();
    node.kind = fields[0].cast<std::string>() == "dict" ? Kind::mapping : Kind::sequence;
    for (const py::handle key : fields[1].cast<py::tuple>())
        node.keys.push_back(py::reinterpret_borrow<py::object>(key));
    for (const py::handle child : fields[2].cast<py::tuple>()) {
        node.children.push_back(from(child));
        node.size += node.children.back().size;
    }
    return node;
}

// NOLINTEND(misc-no-recursion)

void GradientCollector::add(Node root, bool grouped) {
    if (grouped && !grouped_ && !containers_.empty()) containers_.front().group = " of group 0";
    const std::string number = std::to_string(containers_.size());
    containers_.push_back({std::move(root), grouped ? " of group " + number : ""});
    grouped_ = grouped;
}

void GradientCollector::cut(std::size_t count, bool grouped) {
    containers_.erase(containers_.begin() + static_cast<std::ptrdiff_t>(count), containers_.end());
    grouped_ = grouped;
    if (!grouped && !containers_.empty()) containers_.front().group.clear();
}

void GradientCollector::collect(py::handle gradients, std::vector<py::object>& out) const {
    out.clear();
    const auto collect_group = [&](std::size_t k, py::handle given) {
        const Container& container = containers_[k];
        collect_from(container.root, {container, nullptr, nullptr, 0}, given, out);
    };
    if (!grouped_) return collect_group(0, gradients);
    if (!is_sequence(gradients))
        throw py::type_error(
            refusal("the gradients", "be a list with an entry for each parameter group", kind_of(gradients)));
    const auto groups = py::reinterpret_borrow<py::sequence>(gradients);
    if (groups.size() != containers_.size())
        throw py::value_error(refusal(
            "the gradients", "have " + std::to_string(containers_.size()) + " entries, one for each parameter group",
            std::to_string(groups.size())));
    for (std::size_t k = 0; k < containers_.size(); ++k) {
        const py::object given = groups[k];
        if (given.is_none())
            out.resize(out.size() + containers_[k].root.size, py::none());
        else
            collect_group(k, given);
    }
}

}  // namespace instep
