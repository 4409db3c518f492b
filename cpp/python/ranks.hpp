// A step that several processes take together, each with stretches of the parameters.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "python/blocks_of_plans.hpp"
#include "python/plan.hpp"

namespace instep {

// The Plans of the optimizers that step as one, whose parameters are this process's stretches: arrays in which the
// elements lie side by side, perhaps empty ones. What the processes tell each other is the caller's business. The
// caller holds the locks of all Plans during the calls of a step, which come in this order: prepare, set_prepared where
// another process has other numbers, sum_up as often as sums come, take.
class Ranks {
public:
    explicit Ranks(Plans plans) : plans_(std::move(plans)) {}

    // The most threads of this process's part of a step, since other processes may step on the same cores; 0: as many
    // as any step.
    void set_most_threads(int count) { most_threads_ = count; }
    // `numbers` has for each Plan what Hyperparameters::take takes; `limits` are the extras that hold for all together;
    // `present` has for each Plan a byte a place, 0 if no process has a gradient. Returns the numbers computed from
    // them.
    py::bytes prepare(const py::sequence& numbers, const py::sequence& limits, const std::vector<std::string>& present,
                      double grad_scale);
    void set_prepared(const std::string& bytes);
    // Each contribution: (number of the Plan, place, first element, count, arrays of one axis: the gradients of these
    // elements, in the order in which they are added).
    void sum_up(const py::sequence& contributions);
    // Takes the step. `exchange` is called as exchange(what, included, width, values), for each method of Exchange, and
    // returns an array of the values of all processes; None: no other process takes part. Returns None, or, if the
    // gradients are guarded and not finite and nothing has changed, (number of the Plan, place).
    py::object take(const py::object& exchange);
    // The norm of the gradients of the last step, if it was needed; otherwise None.
    const py::object& grad_norm() const { return grad_norm_; }
    // Counts a step of a single optimizer that changed nothing, and throws FloatingPointError for it.
    void count_skipped() { steps(0).count_skipped(); }
    [[noreturn]] void refuse_not_finite(std::size_t k, std::size_t place) const;

    int traverse(visitproc visit, void* arg) const;

private:
    Steps& steps(std::size_t k) const { return plans_[k].cast<Plan&>().places(); }
    bool are_long() const;
    int limited(int threads) const { return most_threads_ > 0 ? std::min(threads, most_threads_) : threads; }

    Plans plans_;
    Hyperparameters limits_;
    std::vector<Participant> participants_;
    bool matrices_ = false;
    int most_threads_ = 0;
    py::object grad_norm_ = py::none();
};

void bind_ranks(py::module_& m);

}  // namespace instep
