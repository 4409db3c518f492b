// The passes of a step over its units: sums, their conclusions, and the sweep.
#include <algorithm>
#include <cmath>

#include "runtime/float_environment.hpp"
#include "runtime/step.hpp"

namespace instep {

namespace {

// Neighbours are added, then neighbouring sums, and so on: this order depends only on the count.
double pairwise_sum(std::vector<double>& values, std::size_t count) {
    if (count == 0) return 0.0;
    for (; count > 1; count = (count + 1) / 2) {
        for (std::size_t i = 0; i < count / 2; ++i) values[i] = values[2 * i] + values[2 * i + 1];
        if (count % 2 == 1) values[count / 2] = values[count - 1];
    }
    return values[0];
}

}  // namespace

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
        progress_[k].next.store(0, std::memory_order_relaxed);
        progress_[k].left.store(units_.size() - 1, std::memory_order_relaxed);
    }
    if (units_.size() == 1)  // no thread will be the last to finish
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
    const std::size_t unit_count = units_.size() - 1;
    for (std::size_t k = 0; k < pass_count_; ++k) {
        const Pass& pass = passes_[k];
        std::atomic<std::size_t>& next = progress_[k].next;
        const auto take = [&] { return idle ? unit_count : next.fetch_add(1, std::memory_order_relaxed); };
        for (std::size_t unit = take(); unit < unit_count; unit = take()) {
            (this->*pass.work)(units_[unit], units_[unit + 1]);
            if (pass.finish != nullptr && progress_[k].left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                (this->*pass.finish)();
        }
        if (pass.finish == nullptr) continue;
        if (parallel_) team_->barrier();
        if (stopped_) return;
    }
}

// Gradients that are absent leave no gap in the order.
std::size_t Stepper::gather_sums(std::vector<double>& into, std::size_t count) const {
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if (turns_[segments_[k].tensor].present) into[count++] = sums_[k];
    return count;
}

// The sum of the sums of all, in the first's own vector: none is written before it has been read.
double Stepper::total(Together all) {
    std::vector<double>& sums = all.first->stepper->sums_;
    std::size_t count = 0;
    for (const Participant& one : all) count = one.stepper->gather_sums(sums, count);
    return pairwise_sum(sums, count);
}

void Stepper::conclude_here() {
    const Participant alone{this, 0};
    stopped_ = !conclude({&alone, 1});
}

bool Stepper::conclude(Together all) {
    const FloatEnvironment environment;
    const double sum = total(all);
    bool wide = false;
    for (const Participant& one : all) wide = wide || one.stepper->wide_;
    for (const Participant& one : all) one.stepper->conclude_from(sum, wide);
    const Stepper& any = *all.first->stepper;
    return !any.needs_scaling_ && (!any.extras_.guarded || std::isfinite(any.norm_));
}

void Stepper::conclude_from(double sum, bool wide) {
    constexpr double vanishing = 0x1p-960;
    norm_ = extras_.grad_scale * std::sqrt(sum);
    if (norm_ > extras_.clip_norm) set_scale(extras_.grad_scale * (extras_.clip_norm / norm_));
    // Among finite gradients, only those in float64 have squares that overflow or vanish.
    needs_scaling_ = wide && (std::isinf(sum) || sum < vanishing);
}

Found Stepper::look_closer(Together all) {
    Found found{0, -1};
    for (const Participant& one : all) {
        found = {static_cast<std::size_t>(&one - all.first), one.stepper->find_not_finite()};
        if (found.tensor >= 0) break;
    }
    const Stepper& any = *all.first->stepper;
    if (found.tensor < 0 && any.needs_scaling_) measure_scaled(all);
    return any.extras_.guarded ? found : Found{0, -1};
}

// Computes the norm again, for gradients that are all finite, scaled such that the largest is between 1/2 and 1.
void Stepper::measure_scaled(Together all) {
    double most = 0;
    for (const Participant& one : all) most = std::max(most, one.stepper->largest(one.most_threads));
    if (most == 0) return;
    const FloatEnvironment environment;
    int exponent = 0;
    static_cast<void>(std::frexp(most, &exponent));
    for (const Participant& one : all) {
        one.stepper->exponent_ = -exponent;
        one.stepper->run(one.most_threads, {{&Stepper::add_scaled_squares, nullptr}});
    }
    const double sum = total(all);
    for (const Participant& one : all) one.stepper->conclude_from_scaled(sum, exponent);
}

double Stepper::largest(int threads) {
    run(threads, {{&Stepper::find_largest, nullptr}});
    double most = 0;
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if (turns_[segments_[k].tensor].present) most = std::max(most, sums_[k]);
    return most;
}

void Stepper::conclude_from_scaled(double sum, int exponent) {
    const double scaled_norm = extras_.grad_scale * std::sqrt(sum);
    norm_ = std::ldexp(scaled_norm, exponent);
    if (norm_ > extras_.clip_norm)
        set_scale(extras_.grad_scale * std::ldexp(extras_.clip_norm / scaled_norm, -exponent));
    else
        set_scale(extras_.grad_scale);
}

std::ptrdiff_t Stepper::find_not_finite() const {
    const FloatEnvironment environment;
    for (const Segment& segment : segments_) {
        if (!turns_[segment.tensor].present) continue;
        const Tensor& tensor = *tensors_[segment.tensor];
        if (!level_->all_finite[static_cast<int>(tensor.compute)](tensor.operands.accumulated, tensor.operands.grad,
                                                                  segment.begin, segment.count))
            return static_cast<std::ptrdiff_t>(segment.tensor);
    }
    return -1;
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
        level_->rule_sums[static_cast<int>(tensor.compute)](operands, prepared.recipe, begin, count,
                                                            &rule_sums_[segment * max_sums]);
    });
}

// The sums of each tensor from those of its chunks, and the scalars that follow from them.
void Stepper::complete_all() {
    const FloatEnvironment environment;
    std::vector<double>& chunks = sums_;  // the norm is known
    std::size_t segment = 0;
    bool any_joint = false;
    for (std::size_t i = 0; i < turns_.size(); ++i) {
        const std::size_t begin = segment;
        while (segment < segments_.size() && segments_[segment].tensor == i) ++segment;
        if (!turns_[i].present || !takes_part(i)) continue;
        if (variant_of(i).joint) {
            any_joint = true;
            continue;
        }
        double sums[max_sums] = {};
        for (int k = 0; k < max_sums; ++k) {
            for (std::size_t j = begin; j < segment; ++j)
                chunks[j - begin] = rule_sums_[j * max_sums + static_cast<std::size_t>(k)];
            sums[k] = pairwise_sum(chunks, segment - begin);
        }
        complete(i, sums);
    }
    if (any_joint) complete_jointly();
}

// The same from the sums over all tensors that take part.
void Stepper::complete_jointly() {
    const auto takes_part_jointly = [this](std::size_t i) {
        return turns_[i].present && takes_part(i) && variant_of(i).joint;
    };
    double sums[max_sums] = {};
    for (int k = 0; k < max_sums; ++k) {
        std::size_t count = 0;
        for (std::size_t j = 0; j < segments_.size(); ++j)
            if (takes_part_jointly(segments_[j].tensor))
                sums_[count++] = rule_sums_[j * max_sums + static_cast<std::size_t>(k)];
        sums[k] = pairwise_sum(sums_, count);
    }
    for (std::size_t i = 0; i < turns_.size(); ++i)
        if (takes_part_jointly(i)) complete(i, sums);
}

void Stepper::sweep(std::size_t first, std::size_t last) {
    for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
        const auto& [i, begin, _] = segments_[segment];
        const Prepared& prepared = recipes_[turns_[i].recipe];
        prepared.sweep(tensors_[i]->operands, prepared.recipe, begin, count);
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
