// A step over all parameters of an optimizer: plain C++, everything already validated; nothing after prepare can fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep {

// A parameter and what goes with it, as they lie in memory. Operands without data are not there.
struct Tensor {
    Operand param;
    Operand states[max_states];
    Operand average;
    Operand copy;
    Operand accumulated;
    Operand accumulated_in_logical_order;
    bool pending = false;  // accumulated holds gradients that the next step takes
    StridedLayout copy_layout;
    StridedLayout accumulated_layout;
    StridedLayout layout;  // what param.view points to where the parameter has gaps
    std::int64_t size;
    std::int64_t work;  // bytes that a step over it moves, counted in the compute type
    Compute compute;
    int group;
    std::int64_t steps = 0;  // completed
};

struct Gradient {
    bool present = false;
    Operand in_step_order;
    Operand in_logical_order;
    Operand accumulated;  // what the tensor has accumulated, where that is added
    Operand accumulated_in_logical_order;
    StridedLayout step_layout;
    StridedLayout logical_layout;
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

    std::vector<std::unique_ptr<Tensor>>& tensors() { return tensors_; }
    const std::vector<std::unique_ptr<Tensor>>& tensors() const { return tensors_; }

    // Work of a step with these gradients: the bytes it would move if everything were stored in its compute type.
    std::int64_t most_work() const { return most_work_; }  // with all gradients present
    std::int64_t work(const std::vector<std::unique_ptr<Gradient>>& gradients) const;

    // Fills everything a step needs but its threads; may allocate, changes no parameter.
    void prepare(const Level& level, const std::vector<Group>& groups,
                 const std::vector<std::unique_ptr<Gradient>>& gradients, const Extras& extras);
    // Takes the prepared step and counts it for each parameter. Where it is guarded and a gradient is not finite it
    // changes nothing and returns the first tensor concerned, otherwise -1.
    std::ptrdiff_t take(int threads);
    // Norm of the gradients of the last step, where one was needed.
    double norm() const { return norm_; }

    // Adds the gradients to what each tensor has accumulated.
    void accumulate(const Level& level, const std::vector<std::unique_ptr<Gradient>>& gradients, int threads);
    // Makes averages and copies equal to the parameters.
    void start_followers(const Level& level);

private:
    struct Segment {  // at most one chunk of one tensor
        std::size_t tensor;
        std::int64_t begin, count;
    };
    struct alignas(16) Scalars {
        std::size_t group;
        Compute compute;
        std::int64_t t;
        const Variant* variant;
        alignas(16) unsigned char bytes[max_scalar_bytes];
    };

    std::size_t scalars_for(const Tensor& tensor);
    template <class Action, class Done>
    void for_each_segment(std::atomic<std::size_t>& next, Action action, Done done);
    void attempt(int threads);
    void run(int threads, void (Stepper::*part)());
    void work_on_step();
    void work_on_accumulation();
    void update(const Segment& segment, const Gradient& gradient) const;
    void finish_norm();
    std::ptrdiff_t find_not_finite() const;

    std::vector<std::unique_ptr<Tensor>> tensors_;
    std::int64_t most_work_ = 0;
    std::vector<Segment> segments_;
    std::vector<std::size_t> units_;  // first segment of each run that a thread takes at a time, and the end

    // Of the step under way.
    const Level* level_ = nullptr;
    const std::vector<Group>* groups_ = nullptr;
    const std::vector<std::unique_ptr<Gradient>>* gradients_ = nullptr;
    std::vector<Scalars> scalars_;
    std::vector<std::size_t> scalars_of_;  // by tensor
    bool parallel_ = false;
    void (Stepper::*part_)() = nullptr;
    Extras extras_{};
    double norm_ = 0;
    double scale_ = 1;
    bool blocked_ = false;
    std::vector<double> partial_sums_;  // by segment
    std::atomic<std::size_t> next_norm_unit_{0};
    std::atomic<std::size_t> norm_units_left_{0};
    std::atomic<std::size_t> next_unit_{0};
};

}  // namespace instep
