// The passes of a step over its units: sums, their conclusions, and the sweep.
#include <algorithm>
#include <cmath>

#include "runtime/float_environment.hpp"
#include "runtime/step.hpp"

namespace instep {

const Pass Stepper::norm_pass{&Stepper::add_squares, &Stepper::conclude_here};
const Pass Stepper::sums_pass{&Stepper::add_rule_terms, &Stepper::complete_all};
const Pass Stepper::sweep_pass{&Stepper::sweep, nullptr};

void Stepper::run(int threads, std::initializer_list<Pass> passes) {
    stopped_ = false;
    parallel_ = threads > 1;
    pass_count_ = 0;
    for (const Pass& pass : passes)
        if (pass.work != nullptr) passes_[pass_count_++] = pass;
    for (std::size_t k = 0; k < pass_count_; ++k) {
        progress_[k].next.store(first_unit_, std::memory_order_relaxed);
        progress_[k].left.store(end_unit_ - first_unit_, std::memory_order_relaxed);
    }
    if (first_unit_ == end_unit_)  // no thread will be the last to finish
        for (std::size_t k = 0; k < pass_count_; ++k)
            if (passes_[k].finish != nullptr) (this->*passes_[k].finish)();
    team_->run(
        threads, work_,
        [](void* context, bool idle) {
            const FloatEnvironment environment;
            static_cast<Stepper*>(context)->work_on_passes(idle);
        },
        this);
}

// The work of each thread. A thread that becomes free takes the next unit, so a thread that wakes late costs little.
void Stepper::work_on_passes(bool idle) {
    const std::size_t end = end_unit_;
    for (std::size_t k = 0; k < pass_count_; ++k) {
        const Pass& pass = passes_[k];
        std::atomic<std::size_t>& next = progress_[k].next;
        const auto take = [&] { return idle ? end : next.fetch_add(1, std::memory_order_relaxed); };
        for (std::size_t unit = take(); unit < end; unit = take()) {
            (this->*pass.work)(units_[unit], units_[unit + 1]);
            if (pass.finish != nullptr && progress_[k].left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                (this->*pass.finish)();
        }
        if (pass.finish == nullptr) continue;
        if (parallel_) team_->barrier();
        if (stopped_) return;
    }
}

// Calls action(segment, count) for each stretch of a tensor with a gradient among these segments: with the first
// segment of the stretch, and the number of elements in all its segments.
template <class Action>
void Stepper::for_each_stretch(std::size_t first, std::size_t last, Action action) {
    while (first < last) {
        const std::size_t begin = first;
        const Segment& segment = segments_[begin];
        std::int64_t count = 0;
        for (; first < last && segments_[first].tensor == segment.tensor; ++first) count += segments_[first].count;
        if (turns_[segment.tensor].present) action(begin, count);
    }
}

void Stepper::add_squares(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Tensor& tensor = *tensors_[i];
        level_->sums_of_squares[static_cast<int>(tensor.compute)](tensor.logical_accumulated, tensor.logical_grad,
                                                                  begin, count, &sums_[segment]);
    });
}

void Stepper::add_scaled_squares(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Tensor& tensor = *tensors_[i];
        level_->sums_of_scaled_squares[static_cast<int>(tensor.compute)](
            tensor.logical_accumulated, tensor.logical_grad, begin, count, exponent_, &sums_[segment]);
    });
}

void Stepper::find_largest(std::size_t first, std::size_t last) {
    for (std::size_t k = first; k < last; ++k) {
        const auto& [i, begin, count] = segments_[k];
        if (!turns_[i].present) continue;
        const Tensor& tensor = *tensors_[i];
        sums_[k] = level_->largest[static_cast<int>(tensor.compute)](tensor.logical_accumulated, tensor.logical_grad,
                                                                     begin, count);
    }
}

void Stepper::add_rule_terms(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Prepared& prepared = recipes_[turns_[i].recipe];
        if (prepared.recipe.sum_count == 0) return;
        const Tensor& tensor = *tensors_[i];
        Operands operands = *tensor.logical;
        operands.grad = tensor.logical_grad;
        operands.accumulated = tensor.logical_accumulated;
        if (windows_ != nullptr) windows_->place(i, operands);
        level_->rule_sums[static_cast<int>(tensor.compute)](operands, prepared.recipe, begin, count,
                                                            &rule_sums_[segment * max_sums]);
    });
}

void Stepper::sweep(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Prepared& prepared = recipes_[turns_[i].recipe];
        prepared.sweep(tensors_[i]->operands, prepared.recipe, begin, count);
    });
}

void Stepper::sweep_in_window(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Prepared& prepared = recipes_[turns_[i].recipe];
        Operands operands = tensors_[i]->operands;
        windows_->place(i, operands);
        prepared.sweep(operands, prepared.recipe, begin, count);
    });
}

void Stepper::add_to_accumulated(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Tensor& tensor = *tensors_[i];
        level_->accumulate[static_cast<int>(tensor.compute)](tensor.operands.accumulated, tensor.operands.grad,
                                                             tensor.accumulated, begin, count);
    });
}

}  // namespace instep
