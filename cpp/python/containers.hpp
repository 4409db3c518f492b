// The containers parameters and gradients come in: arrays in any nesting of dicts, lists and tuples, or groups of
// these.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

namespace instep {

namespace py = pybind11;

// One container in a container, or a leaf: an array, or nothing at all.
struct Node {
    enum class Kind { array, nothing, sequence, mapping };
    Kind kind = Kind::array;
    std::size_t size = 0;          // arrays in it
    std::vector<py::object> keys;  // of a mapping
    std::vector<Node> children;

    // As optimizers/tree.py encodes it.
    static Node from(py::handle encoded);
};

struct Container {
    Node root;
    std::string group;  // " of group 0" if there are groups, for errors
};

// Takes the gradients out of a container like that of the parameters, in the order of the parameters, as new
// references. Throws TypeError or ValueError if the container doesn't match.
class GradientCollector {
public:
    // grouped: whether gradients come in a list with an entry for each container, even if there is one.
    void add(Node root, bool grouped);
    bool grouped() const { return grouped_; }
    // Removes the containers from this number on.
    void cut(std::size_t count, bool grouped);

    void collect(py::handle gradients, std::vector<py::object>& out) const;

private:
    std::vector<Container> containers_;
    bool grouped_ = false;
};

}  // namespace instep
