// The containers parameters and gradients come in: one array, a list or tuple, a dict, or a list of groups of these.
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
    std::string called;  // what errors call its gradients
};

// Takes the gradients out of the container that mirrors the parameters', in their order; new references.
// Throws TypeError or ValueError where it doesn't mirror it.
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
