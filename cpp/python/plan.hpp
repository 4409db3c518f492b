// What an optimizer is in the core: its places, the containers that parameters and gradients come in, its averages, and
// which of its hyperparameters a step has seen.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "python/averages.hpp"
#include "python/containers.hpp"
#include "python/steps.hpp"

namespace instep {

class Plan {
public:
    // groups: one (rule, options, kind, keys, names, arrays, copies) each; see _core.pyi. Parameters that are read-only
    // are refused, or, where they are taken, by each step until they are writeable.
    //
    // The attribute `now` of `current` is all that the optimizer's hyperparameters are: an object that is replaced
    // where they change.
    Plan(const py::list& groups, bool grouped, const py::object& state_dtype, bool averaged, py::object current,
         bool take_read_only);

    // Where `now` is another object than at the last step, or the step has come that was named then, the optimizer is
    // asked by `_hyperparameters_at(completed steps)`. That returns (numbers, extras, step): see
    // Hyperparameters::take, and from how many completed steps on it has to be asked again, though `now` is the same.
    void step(py::handle gradients, py::handle optimizer, double grad_scale);
    // A step with the accumulated gradients alone.
    void step_accumulated(py::handle optimizer, double grad_scale);
    void accumulate(py::handle gradients);
    void discard_accumulated();

    std::int64_t step_count() const { return steps_.step_count(); }
    std::int64_t skipped_steps() const { return steps_.skipped_steps(); }
    py::object grad_norm() const { return steps_.grad_norm(); }
    std::vector<std::int64_t> steps() const;
    py::dict states() const;
    py::dict averages() const;
    py::dict accumulated() const;
    std::int64_t pending_changes() const { return steps_.stepper().pending_changes(); }
    std::int64_t looked_up() const { return steps_.stepper().looked_up(); }

    // Keeps steps on other threads waiting; for reading or writing arrays between.
    void acquire();
    void release();

    // Called between acquire and release. Goes on from other counts and arrays; for each parameter (steps, states by
    // name, average, accumulated gradient, weights), the last three None where there is none. Everything is checked and
    // what lies in memory of the optimizer itself is copied before the first is written.
    // `now`, where it is not None, takes the place of the present one. In a new optimizer the arrays that are copied to
    // have come with the parameters, and stay as they are.
    void restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters,
                 const py::object& now, bool is_new);
    // Rounds the parameters into their copies.
    void refresh_copies();

    // Puts the averages in the parameters' place, and the weights back; meanwhile steps are refused.
    void show_averages(const void* block);
    // Only the block that shows them hides them; null for whichever does. Where the lock is this very thread's, as in a
    // block that the garbage collector ends in the middle of a call, they are hidden as the lock is let go; and where
    // another thread has it, unless that is to be waited for.
    void hide_averages(const void* block, bool wait = true);
    bool shows_averages() const { return averages_.shown(); }

    // For Python's garbage collector: visits every array that is held. An array of a subclass can have attributes, and
    // so lead back to the optimizer. Any such cycle goes through these attributes, which the collector clears, so that
    // a Plan needs no clearing of its own and is never seen half empty.
    int traverse(visitproc visit, void* arg) const;

private:
    // The lock for a scope. At its end gradients are let go, and averages hidden that could not be meanwhile.
    class Hold {
    public:
        explicit Hold(Plan& plan) : plan_(plan), guard_(plan.steps_.lock()) {}
        ~Hold() {
            plan_.steps_.let_go();
            plan_.hide_late();
        }
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        Hold(Hold&&) = delete;
        Hold& operator=(Hold&&) = delete;

    private:
        Plan& plan_;
        StepLock::Guard guard_;
    };
    // Weights and states to come, checked, and where they go.
    struct Incoming {
        Operand from;
        Operand into;
        std::int64_t size;
    };
    using Wanted = std::function<Operand&(Tensor&)>;
    class Load;

    void refuse_averages(const char* what) const;
    void bind_all(const std::vector<Binding>& bindings, const py::object& state_dtype, bool averaged);
    void settle(py::handle optimizer);
    void hide_late() noexcept;

    Steps steps_;
    Averages averages_{steps_};
    std::unique_ptr<GradientCollector> collector_;
    py::object current_;
    py::object taken_ = py::none();  // the `now` whose numbers the steps have
    std::int64_t ask_from_ = 0;      // completed steps
    bool hide_later_ = false;
    std::unique_ptr<Hold> held_;  // between acquire and release
};

// A ``with`` block that shows averages. Entered and left by functions of C, within which no signal handler of Python's
// runs; one that is let go of unfinished hides them, too.
class AveragedBlock {
public:
    explicit AveragedBlock(py::object plan) : plan_(std::move(plan)) {}
    ~AveragedBlock();
    AveragedBlock(const AveragedBlock&) = delete;
    AveragedBlock& operator=(const AveragedBlock&) = delete;
    AveragedBlock(AveragedBlock&&) = delete;
    AveragedBlock& operator=(AveragedBlock&&) = delete;

    void show() { plan_.cast<Plan&>().show_averages(this); }
    void hide() { plan_.cast<Plan&>().hide_averages(this); }
    int traverse(visitproc visit, void* arg) const { return plan_ ? visit(plan_.ptr(), arg) : 0; }

private:
    py::object plan_;
};

}  // namespace instep
