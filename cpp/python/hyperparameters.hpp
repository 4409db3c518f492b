// The numbers of a step, as Python passes them.
#pragma once

#include <pybind11/pybind11.h>

#include <limits>
#include <string>
#include <vector>

#include "runtime/step.hpp"

namespace instep {

namespace py = pybind11;

enum class NotFinite { propagate, skip, raise };

struct Hyperparameters {
    std::vector<Group> groups;
    double clip_norm = std::numeric_limits<double>::quiet_NaN();  // none
    double average_rate = 0;
    NotFinite not_finite = NotFinite::propagate;

    // numbers: for each group a sequence of the rule's hyperparameters, then clip_value, L2 factor, L1 factor,
    // maximize and whether L1 is decoupled. extras: a sequence of clip_norm, decay of the averages, and the action for
    // gradients that are not finite.
    void take(const py::sequence& numbers, const py::sequence& extras);
};

// The names of the options of a rule whose bits are set.
std::vector<std::string> option_names(const RuleFamily& family, unsigned options);

// A group of this rule and these options, its numbers still unknown. Throws ValueError if there is no such rule or
// option.
Group make_group(const std::string& rule, const py::sequence& options);

// Calls a Python function in the floating-point environment of a step, and returns its result.
py::object in_default_environment(const py::object& function, const py::args& arguments);

// The variant of the rule that steps a group's tensors.
const Variant& variant_of(const Group& group);

}  // namespace instep
