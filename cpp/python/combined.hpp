// Several optimizers as one: a step with one norm, and everything of all checked before the first write.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "python/blocks_of_plans.hpp"
#include "python/plan.hpp"

namespace instep {

// Has no arrays of its own. A call takes the locks of all Plans, always in the order of their addresses, so that two
// threads never wait for each other; everything else goes in the order in which the Plans were given.
class Combined {
public:
    // One Plan for each optimizer. For `current` see CurrentNumbers; it has no groups.
    Combined(py::tuple optimizers, Plans plans, py::object current);

    // As for a Plan. Gradients come in a dict over the names of all parameters, or in a list or tuple with a container
    // for each Plan. `owner` is asked for clip_norm and nonfinite.
    void step(py::handle gradients, py::handle owner, double grad_scale);
    void step_accumulated(py::handle owner, double grad_scale);
    void accumulate(py::handle gradients);
    py::list checked(py::handle gradients);
    void discard_accumulated();
    void refresh_copies();
    // Throws ValueError if an array of one Plan shares memory with an array of another one.
    void check_memory();

    std::int64_t step_count() const { return step_count_; }
    std::int64_t skipped_steps() const { return skipped_steps_; }
    const py::object& grad_norm() const { return grad_norm_; }
    void set_counts(std::int64_t step_count, std::int64_t skipped_steps);

    void acquire();
    void release();
    const Plans& plans() const { return plans_; }
    const Plans& plans_to_lock() const { return in_order_of_locks_; }
    void refuse_averages(const char* what) const;

    // Called between acquire and release, as Plan::restore. `members` has for each Plan the first four arguments of
    // Plan::restore. Everything of all is checked before the first change.
    void restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& members,
                 const py::object& now);

    int traverse(visitproc visit, void* arg) const;

private:
    class Hold;
    class Readable;

    Plan& plan(std::size_t k) const { return plans_[k].cast<Plan&>(); }
    Steps& steps(std::size_t k) const { return plan(k).places(); }
    template <class Action>
    void for_each_steps(Action action) const;
    void settle(py::handle owner);
    void collect(py::handle gradients);
    void collect_by_name(py::handle gradients);
    void learn_names();
    void make_arrays(Steps::Use use);
    void check(Steps::Use use);
    void check_memory_if_changed();
    bool pin_if_long();
    void make_orthogonal();
    void take_step(Steps::Use use, double grad_scale);

    py::tuple optimizers_;
    Plans plans_, in_order_of_locks_;
    std::vector<Plan*> to_lock_;  // those of in_order_of_locks_
    CurrentNumbers numbers_;
    Hyperparameters hyperparameters_;
    std::int64_t step_count_ = 0;
    std::int64_t skipped_steps_ = 0;
    py::object grad_norm_ = py::none();

    GradientCollector by_name_;
    std::size_t names_ = 0;     // in by_name_
    std::string several_have_;  // a name that two parameters have; empty if each name is unique
    std::vector<py::object> gradients_;
    std::vector<std::int64_t> checked_;  // for each Plan the arrangement of its arrays whose memory was checked
    std::vector<Participant> participants_;
};

}  // namespace instep
