#include "runtime/step.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/float_environment.hpp"
#include "runtime/team.hpp"

namespace instep {

namespace {

// Neighbours are added, then neighbouring sums, and so on: an order that depends on the count alone.
double pairwise_sum(std::vector<double>& values, std::size_t count) {
    if (count == 0) return 0.0;
    for (; count > 1; count = (count + 1) / 2) {
        for (std::size_t i = 0; i < count / 2; ++i) values[i] = values[2 * i] + values[2 * i + 1];
        if (count % 2 == 1) values[count / 2] = values[count - 1];
    }
    return values[0];
}

}  // namespace

Stepper::Stepper(std::vector<std::unique_ptr<Tensor>> tensors) : tensors_(std::move(tensors)) {
    std::int64_t in_unit = chunk_elements;  // so that the first segment opens a unit
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const std::int64_t size = tensors_[i]->size;
        most_work_ += tensors_[i]->work;
        for (std::int64_t begin = 0; begin < size; begin += chunk_elements) {
            const std::int64_t count = std::min(chunk_elements, size - begin);
            if (in_unit + count > chunk_elements) {
                units_.push_back(segments_.size());
                in_unit = 0;
            }
            segments_.push_back({i, begin, count});
            in_unit += count;
        }
    }
    units_.push_back(segments_.size());
    scalars_of_.resize(tensors_.size());
}

std::int64_t Stepper::work(const std::vector<std::unique_ptr<Gradient>>& gradients) const {
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i)
        if (gradients[i]->present) bytes += tensors_[i]->work;
    return bytes;
}

std::size_t Stepper::scalars_for(const Tensor& tensor) {
    const auto group = static_cast<std::size_t>(tensor.group);
    const std::int64_t t = tensor.steps + 1;
    // Nearly always the last ones made: parameters of a group have been stepped equally often.
    for (std::size_t i = scalars_.size(); i-- > 0;) {
        const Scalars& made = scalars_[i];
        if (made.group == group && made.compute == tensor.compute && made.t == t) return i;
    }
    const Group& settings = (*groups_)[group];
    Scalars& fresh = scalars_.emplace_back();
    fresh.group = group;
    fresh.compute = tensor.compute;
    fresh.t = t;
    fresh.variant = &level_->families[settings.family].variants[settings.options];
    fresh.variant->prepare[static_cast<int>(tensor.compute)](settings.hyperparameters, t, fresh.bytes);
    return scalars_.size() - 1;
}

void Stepper::prepare(const Level& level, const std::vector<Group>& groups,
                      const std::vector<std::unique_ptr<Gradient>>& gradients, const Extras& extras) {
    const FloatEnvironment environment;
    level_ = &level;
    groups_ = &groups;
    gradients_ = &gradients;
    extras_ = extras;
    scalars_.clear();
    for (std::size_t i = 0; i < tensors_.size(); ++i)
        if (gradients[i]->present) scalars_of_[i] = scalars_for(*tensors_[i]);
    if (extras.needs_norm()) partial_sums_.resize(segments_.size());
}

std::ptrdiff_t Stepper::take(int threads) {
    attempt(threads);
    if (blocked_) {
        const std::ptrdiff_t found = find_not_finite();
        if (found >= 0) return found;
        extras_.guarded = false;  // every element is finite, only the sum of their squares is not
        attempt(threads);
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i)
        if ((*gradients_)[i]->present) ++tensors_[i]->steps;
    return -1;
}

void Stepper::attempt(int threads) {
    scale_ = extras_.grad_scale;
    blocked_ = false;
    norm_units_left_.store(units_.size() - 1, std::memory_order_relaxed);
    if (extras_.needs_norm() && units_.size() == 1) finish_norm();
    run(threads, &Stepper::work_on_step);
}

void Stepper::accumulate(const Level& level, const std::vector<std::unique_ptr<Gradient>>& gradients, int threads) {
    level_ = &level;
    gradients_ = &gradients;
    run(threads, &Stepper::work_on_accumulation);
    for (std::size_t i = 0; i < tensors_.size(); ++i)
        if (gradients[i]->present) tensors_[i]->pending = true;
}

void Stepper::start_followers(const Level& level) {
    const FloatEnvironment environment;
    for (const Segment& segment : segments_) {
        const Tensor& tensor = *tensors_[segment.tensor];
        for (const Operand* follower : {&tensor.average, &tensor.copy}) {
            if (follower->data == nullptr) continue;
            level.accumulate[static_cast<int>(tensor.compute)](Operand{}, tensor.param, *follower, segment.begin,
                                                               segment.count);
        }
    }
}

void Stepper::run(int threads, void (Stepper::*part)()) {
    part_ = part;
    parallel_ = threads > 1;
    next_unit_.store(0, std::memory_order_relaxed);
    next_norm_unit_.store(0, std::memory_order_relaxed);
    team::run(
        threads,
        [](void* context) {
            const FloatEnvironment environment;
            auto* self = static_cast<Stepper*>(context);
            (self->*self->part_)();
        },
        this);
}

void Stepper::finish_norm() {
    // Gradients that are absent leave no gap in the order.
    std::size_t count = 0;
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if ((*gradients_)[segments_[k].tensor]->present) partial_sums_[count++] = partial_sums_[k];
    norm_ = extras_.grad_scale * std::sqrt(pairwise_sum(partial_sums_, count));
    if (norm_ > extras_.clip_norm) scale_ = extras_.grad_scale * (extras_.clip_norm / norm_);
    blocked_ = extras_.guarded && !std::isfinite(norm_);
}

std::ptrdiff_t Stepper::find_not_finite() const {
    const FloatEnvironment environment;
    for (const Segment& segment : segments_) {
        const Gradient& gradient = *(*gradients_)[segment.tensor];
        if (!gradient.present) continue;
        const auto compute = static_cast<int>(tensors_[segment.tensor]->compute);
        if (!level_->all_finite[compute](gradient.accumulated, gradient.in_step_order, segment.begin, segment.count))
            return static_cast<std::ptrdiff_t>(segment.tensor);
    }
    return -1;
}

// Calls action(index, segment, gradient) for every segment of a present gradient in the units that this thread gets
// hold of, and done() after each unit. Whoever is free takes the next one: a thread that wakes late costs little.
template <class Action, class Done>
void Stepper::for_each_segment(std::atomic<std::size_t>& next, Action action, Done done) {
    const std::size_t unit_count = units_.size() - 1;
    for (std::size_t unit = next.fetch_add(1, std::memory_order_relaxed); unit < unit_count;
         unit = next.fetch_add(1, std::memory_order_relaxed)) {
        for (std::size_t k = units_[unit]; k < units_[unit + 1]; ++k) {
            const Gradient& gradient = *(*gradients_)[segments_[k].tensor];
            if (gradient.present) action(k, segments_[k], gradient);
        }
        done();
    }
}

void Stepper::work_on_step() {
    if (extras_.needs_norm()) {
        for_each_segment(
            next_norm_unit_,
            [this](std::size_t k, const Segment& segment, const Gradient& gradient) {
                const auto compute = static_cast<int>(tensors_[segment.tensor]->compute);
                partial_sums_[k] = level_->sum_of_squares[compute](
                    gradient.accumulated_in_logical_order, gradient.in_logical_order, segment.begin, segment.count);
            },
            [this] {  // the thread that finishes the last unit adds up, and the others wait
                if (norm_units_left_.fetch_sub(1, std::memory_order_acq_rel) == 1) finish_norm();
            });
        if (parallel_) team::barrier();
        if (blocked_) return;
    }
    for_each_segment(
        next_unit_,
        [this](std::size_t, const Segment& segment, const Gradient& gradient) { update(segment, gradient); }, [] {});
}

void Stepper::work_on_accumulation() {
    for_each_segment(
        next_unit_,
        [this](std::size_t, const Segment& segment, const Gradient& gradient) {
            const Tensor& tensor = *tensors_[segment.tensor];
            level_->accumulate[static_cast<int>(tensor.compute)](gradient.accumulated, gradient.in_step_order,
                                                                 tensor.accumulated, segment.begin, segment.count);
        },
        [] {});
}

void Stepper::update(const Segment& segment, const Gradient& gradient) const {
    const Tensor& tensor = *tensors_[segment.tensor];
    const Scalars& scalars = scalars_[scalars_of_[segment.tensor]];
    Sweep sweep;
    sweep.scalars = scalars.bytes;
    sweep.terms = (*groups_)[scalars.group].terms;
    sweep.terms.scaled = scale_ != 1.0;
    sweep.terms.scale = scale_;
    sweep.param = tensor.param;
    sweep.grad = gradient.in_step_order;
    for (int s = 0; s < max_states; ++s) sweep.states[s] = tensor.states[s];
    sweep.accumulated = gradient.accumulated;
    sweep.average = tensor.average;
    sweep.average_rate = extras_.average_rate;
    sweep.copy = tensor.copy;
    sweep.begin = segment.begin;
    sweep.count = segment.count;
    scalars.variant->sweep[static_cast<int>(tensor.compute)](sweep);
}

}  // namespace instep
