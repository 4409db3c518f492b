// The containers of parameters and gradients: one array, a list or tuple, a dict, or a list of groups of these.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

namespace instep {

namespace py = pybind11;

enum class ContainerKind { array, sequence, mapping };

struct Container {
    ContainerKind kind;
    std::vector<py::str> keys;  // of a mapping
    std::size_t count;
    std::string called;  // the name of its gradients in errors
};

// Takes the gradients out of a container like that of the parameters, in the order of the parameters, as new
// references. Throws TypeError or ValueError if the container doesn't match.
class GradientCollector {
public:
    GradientCollector(std::vector<Container> containers, bool grouped)
        : containers_(std::move(containers)), grouped_(grouped) {}

    void collect(py::handle gradients, std::vector<py::object>& out) const;

private:
    static void collect_from(const Container& container, py::handle gradients, std::vector<py::object>& out);

    std::vector<Container> containers_;
    bool grouped_;
};

}  // namespace instep
