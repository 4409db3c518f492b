// A step over all parameters of an optimizer: plain C++, everything already validated; nothing after prepare can fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"
#include "runtime/pace.hpp"
#include "runtime/storage.hpp"

namespace instep {

// A parameter and what goes with it, as they lie in memory; what the step under way needs comes first. In logical order
// the norm goes over a gradient, so that its bits don't depend on how the parameter lies.
struct Tensor {
    Operands operands;  // parameter, states, average and copy are bound once, the gradient at each step
    Operand logical_grad, logical_accumulated;

    Operand accumulated;  // where micro-batches are added up; among the operands only where a step takes them
    Operand logical_order_of_accumulated;
    StridedLayout param_layout, copy_layout, accumulated_layout;  // of what has gaps
    StridedLayout grad_layout, logical_grad_layout;
    std::int64_t size;
    std::int64_t work;  // bytes that a step over it moves, counted in the compute type
    Compute compute;
    int group;
    Arrangement arrangement;  // the Stepper's
};

// Parameters that share a rule and hyperparameters.
struct Group {
    int family;
    unsigned options;
    double hyperparameters[max_hyperparameters];
    GradientTerms terms;
};

// What a step is asked to do besides its rules.
struct Extras {
    double clip_norm;  // NaN: none
    double grad_scale;
    double average_rate;  // 1 - decay
    bool guarded;         // change nothing where a gradient is not finite

    bool needs_norm() const { return guarded || clip_norm == clip_norm; }
};

class Stepper {
public:
    // The chunks are laid out here, once; tensors must keep their sizes from now on.
    explicit Stepper(std::vector<std::unique_ptr<Tensor>> tensors);

    std::size_t count() const { return tensors_.size(); }
    Tensor& tensor(std::size_t i) { return *tensors_[i]; }

    // Completed steps of a tensor.
    std::int64_t steps(std::size_t i) const { return turns_[i].steps; }
    void set_steps(std::size_t i, std::int64_t steps) { turns_[i].steps = steps; }
    // Whether the tensor has accumulated gradients that the next step takes.
    bool pending(std::size_t i) const { return turns_[i].pending; }
    void set_pending(std::size_t i, bool pending) { turns_[i].pending = pending; }
    bool any_pending() const;
    void clear_pending();
    // Whether there is a gradient for the tensor in the step that is being prepared.
    void set_present(std::size_t i, bool present) {
        Turn& turn = turns_[i];
        work_ += (static_cast<int>(present) - static_cast<int>(turn.present)) * turn.work;
        turn.present = present;
    }

    // Work of a step: the bytes it would move if everything were stored in its compute type.
    std::int64_t most_work() const { return most_work_; }  // with all gradients present
    std::int64_t work() const { return work_; }            // with those that are

    // Fills everything a step needs but its threads; may allocate, changes no parameter.
    void prepare(const Level& level, const std::vector<Group>& groups, const Extras& extras);
    // Takes the prepared step, on so many threads or fewer. Where it is guarded and a gradient is not finite it changes
    // nothing and returns the first tensor concerned, otherwise -1. It may run without the GIL, count_step after it
    // not: counts are read by whoever holds that.
    std::ptrdiff_t take(int most_threads);
    // Counts the step that was taken for each parameter; what was accumulated is used up.
    void count_step();
    // Norm of the gradients of the last step, where one was needed.
    double norm() const { return norm_; }

    // Adds the gradients to what each tensor has accumulated.
    void accumulate(const Level& level, int most_threads);
    // Notes, with the GIL again, that each of these tensors has accumulated gradients now.
    void count_accumulation();
    // Rounds the parameters into their averages, or into their copies.
    void set_to_parameters(const Level& level, Operand Operands::* follower) const;

private:
    struct Segment {  // at most one chunk of one tensor
        std::size_t tensor;
        std::int64_t begin, count;
    };
    // What every step looks at of every tensor, side by side in memory.
    struct Turn {
        std::int64_t steps = 0;
        std::int64_t work = 0;
        std::uint32_t settings = 0;  // which of settings_
        std::uint32_t kind = 0;      // tensors of a kind share group, compute type and arrangement
        bool present = false;
        bool pending = false;
    };
    struct Prepared {
        std::uint32_t kind;
        std::int64_t t;
        void (*sweep)(const Operands&, const Settings&, std::int64_t begin, std::int64_t count);
        Settings settings;
    };

    std::uint32_t make_settings(std::size_t i, std::int64_t t, const std::vector<Group>& groups);
    template <class Action>
    void for_each_unit(std::atomic<std::size_t>& next, Action action);
    template <class Action>
    void for_each_stretch(std::size_t first, std::size_t last, Action action);
    template <class Body>
    void keep_pace(Pace& pace, int most_threads, Body body) const;
    void attempt(int threads);
    void set_scale(double scale);
    void run(int threads, void (Stepper::*part)());
    void work_on_step();
    void work_on_accumulation();
    void finish_norm();
    std::ptrdiff_t find_not_finite() const;

    std::vector<std::unique_ptr<Tensor>> tensors_;
    std::vector<Turn> turns_;  // by tensor
    std::int64_t most_work_ = 0;
    std::int64_t work_ = 0;
    std::vector<Segment> segments_;
    std::vector<std::size_t> units_;  // first segment of each run that a thread takes at a time, and the end

    // Of the step under way.
    const Level* level_ = nullptr;
    std::vector<Prepared> settings_;
    Pace step_pace_, accumulate_pace_;
    bool parallel_ = false;
    void (Stepper::*part_)() = nullptr;
    Extras extras_{};
    double norm_ = 0;
    bool blocked_ = false;
    std::vector<double> partial_sums_;  // by segment
    std::atomic<std::size_t> next_norm_unit_{0};
    std::atomic<std::size_t> norm_units_left_{0};
    std::atomic<std::size_t> next_unit_{0};
};

}  // namespace instep
