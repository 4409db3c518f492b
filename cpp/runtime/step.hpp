// A step over all parameters of an optimizer: plain C++, everything already validated, nothing here can fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep {

// A parameter and its states, as they lie in memory.
struct Tensor {
    Operand param;
    Operand states[max_states];
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
    Operand in_logical_order;  // set where a norm is wanted
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
                 const std::vector<std::unique_ptr<Gradient>>& gradients, bool with_norm, double clip_norm);
    // Takes the prepared step and counts it for each parameter. Returns the norm, 0 if none was wanted.
    double take(int threads);

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
    void work_on_chunks();
    void update(const Segment& segment, const Gradient& gradient) const;
    void finish_norm();

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
    bool with_norm_ = false;
    double clip_norm_ = 0;
    double norm_ = 0;
    double scale_ = 1;
    bool scaled_ = false;
    std::vector<double> partial_sums_;  // by segment
    std::atomic<std::size_t> next_norm_unit_{0};
    std::atomic<std::size_t> norm_units_left_{0};
    std::atomic<std::size_t> next_unit_{0};
};

}  // namespace instep
