// An optimizer's parameters and states, bound once, and the step over them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "python/buffers.hpp"
#include "python/containers.hpp"
#include "python/step_lock.hpp"
#include "runtime/step.hpp"

namespace instep {

class Plan {
public:
    // groups: one (rule, options, kind, keys, names, arrays) each; see _core.pyi.
    Plan(const py::list& groups, bool grouped, const py::object& state_dtype);

    // settings: for each group a sequence of its rule's hyperparameters and then clip_value, L2 factor, L1 factor and
    // maximize; clip_norm: NaN for none.
    void set_hyperparameters(const py::sequence& settings, double clip_norm);

    void step(py::handle gradients, py::handle evaluate);

    std::int64_t step_count() const { return step_count_; }
    py::object grad_norm() const { return grad_norm_; }
    std::vector<std::int64_t> steps() const;
    py::dict states() const;

private:
    struct Bound {  // what Python holds of a tensor
        std::string name;
        py::array param;
        std::vector<py::object> weak;  // NumPy refuses to resize an array that has a weak reference
        Extents shape, strides;
        Axes order;
        Extents dense;  // strides, in elements, of a gapless array in the step's order
        Extents logical_dense;
        py::dict states;
    };
    struct Hyperparameters {
        std::vector<Group> groups;
        double clip_norm;
    };

    void bind(const std::string& name, const py::object& parameter, int group, const py::object& state_dtype);
    void check_overlaps();
    Hyperparameters parse(const py::sequence& settings, double clip_norm) const;
    void check_arrays();
    void check_parameter_unchanged(std::size_t i) const;
    void bind_gradient(std::size_t i);
    void take_scalar(py::object& gradient);
    void confirm_separate(std::size_t i, const char* low, const char* high);

    std::vector<Bound> bound_;
    std::unique_ptr<Stepper> stepper_;
    std::vector<std::unique_ptr<Tensor>> unplanned_;  // until the stepper takes them
    std::unique_ptr<GradientCollector> collector_;
    OwnedMemory owned_;

    Hyperparameters hyperparameters_;
    std::vector<py::object> collected_;
    std::vector<std::unique_ptr<Gradient>> gradients_;
    std::vector<const OwnedMemory::Owner*> neighbours_;
    struct Confirmed {  // these two were found not to share an element
        PyObject* gradient;
        const char* data;
        const OwnedMemory::Owner* owner;
    };
    std::vector<Confirmed> confirmed_;
    bool python_ran_ = false;  // during the checks, so what was checked may have been changed
    std::int64_t step_count_ = 0;
    py::object grad_norm_ = py::none();
    StepLock lock_;
};

}  // namespace instep
