// The numbers of a step, as Python passes them.
#pragma once

#include <pybind11/pybind11.h>

#include <limits>
#include <string>
#include <utility>
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

    // numbers: for each group a sequence of the rule's hyperparameters, then clip_value, weight decay, L1
    // factor, maximize, whether L1 is decoupled, and whether the weight decay comes after the rule. extras: a sequence
    // of clip_norm, decay of the averages, and the action for gradients that are not finite.
    void take(const py::sequence& numbers, const py::sequence& extras);

    // The work of a step besides its rules, for this grad_scale.
    Extras extras(double grad_scale) const {
        return {clip_norm, grad_scale, average_rate, not_finite != NotFinite::propagate};
    }
};

// The hyperparameters in force, which Python holds, and when their numbers must be asked for again.
class CurrentNumbers {
public:
    // The attribute `now` of `current` holds all hyperparameters; it is replaced by another object when they change.
    explicit CurrentNumbers(py::object current) : current_(std::move(current)) {}

    // Puts the numbers of a step into `into`. If `now` is another object than at the last step, or the step that the
    // last answer named is reached, it calls the owner's `_hyperparameters_at(completed steps)`. This returns (numbers,
    // extras, step): for the first two see Hyperparameters::take; `step` is the number of completed steps from which it
    // must be called again, even if `now` is the same.
    void settle(py::handle owner, std::int64_t completed, Hyperparameters& into);

    py::object now() const;
    void replace(const py::object& now);
    int traverse(visitproc visit, void* arg) const;

private:
    py::object current_;
    py::object taken_ = py::none();  // the `now` whose numbers the steps have
    std::int64_t ask_from_ = 0;      // completed steps
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
