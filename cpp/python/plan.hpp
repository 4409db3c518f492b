// What an optimizer is in the core: its places, the containers that parameters and gradients come in, its averages, and
// which of its hyperparameters a step has seen.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "python/averages.hpp"
#include "python/containers.hpp"
#include "python/steps.hpp"

namespace instep {

// Of the hyperparameters of an optimizer: raised before and after they change, with or without a lock. Whatever a step
// has read in between, the next one reads again.
class Version {
public:
    void raise() { number_.fetch_add(1); }
    std::uint64_t number() const { return number_.load(); }

private:
    std::atomic<std::uint64_t> number_{1};
};

class Plan {
public:
    // groups: one (rule, options, kind, keys, names, arrays, copies) each; see _core.pyi. Parameters that are read-only
    // are refused, or, where they are taken, by each step until they are writeable.
    Plan(const py::list& groups, bool grouped, const py::object& state_dtype, bool averaged,
         std::shared_ptr<Version> version, bool take_read_only);

    // Where the version is another than at the last step, or the step has come that was named then, the optimizer is
    // asked by `_hyperparameters_at(completed steps)`. That returns (settings, extras, step): see
    // Hyperparameters::take, and from how many completed steps on it has to be asked again, though the version is the
    // same.
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

    // Keeps steps on other threads waiting; for reading or writing arrays between.
    void acquire();
    void release();

    // Called between acquire and release. Goes on from other counts and arrays; for each parameter (steps, states by
    // name, average, accumulated gradient, weights), the last three None where there is none. Everything is checked and
    // what lies in memory of the optimizer itself is copied before the first is written.
    // In a new optimizer the arrays that are copied to have come with the parameters, and stay as they are.
    void restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters, bool is_new);
    // Rounds the parameters into their copies.
    void refresh_copies();

    // Puts the averages in the parameters' place, and the weights back; meanwhile steps are refused.
    void show_averages(const void* block);
    // Only the block that shows them hides them; null for whichever does. Where the lock is this very thread's, as in a
    // block that the garbage collector ends in the middle of a call, they are hidden as the lock is let go.
    void hide_averages(const void* block);
    bool shows_averages() const { return averages_.shown(); }

    // For Python's garbage collector: visits every array that is held. An array of a subclass can have attributes, and
    // so lead back to the optimizer. Any such cycle goes through these attributes, which the collector clears, so that
    // a Plan needs no clearing of its own and is never seen half empty.
    int traverse(visitproc visit, void* arg) const { return steps_.traverse(visit, arg); }

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
    class Load;

    void bind_all(const std::vector<Binding>& bindings, const py::object& state_dtype, bool averaged);
    void settle(py::handle optimizer);
    void hide_late() noexcept;

    Steps steps_;
    Averages averages_{steps_};
    std::unique_ptr<GradientCollector> collector_;
    std::shared_ptr<Version> version_;
    std::uint64_t taken_ = 0;    // the version whose numbers the steps have
    std::int64_t ask_from_ = 0;  // completed steps
    bool hide_later_ = false;
    std::unique_ptr<Hold> held_;  // between acquire and release
};

}  // namespace instep
