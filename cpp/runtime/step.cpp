#include "runtime/step.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "runtime/float_environment.hpp"
#include "runtime/team.hpp"

namespace instep {

namespace {

using Clock = std::chrono::steady_clock;

// A thread takes as many chunks at a time as leave this many turns to share among the threads, but no more than make up
// a megabyte of each stream: where memory is the limit, short stretches of many streams cost a tenth.
constexpr std::int64_t least_units = 128;
constexpr std::int64_t most_chunks_a_unit = 16;
// Up to here parameters may still lie in the caches of other cores too, which read them in the forward pass.
constexpr std::int64_t most_work_claimed = std::int64_t{1} << 24;
// Of so much work a step leaves nothing in a cache for whoever reads the copies.
constexpr std::int64_t work_past_caches = std::int64_t{1} << 28;

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
    std::int64_t elements = 0;
    for (const auto& tensor : tensors_) elements += tensor->size;
    const std::int64_t unit_elements =
        chunk_elements * std::clamp<std::int64_t>(elements / chunk_elements / least_units, 1, most_chunks_a_unit);
    std::int64_t in_unit = unit_elements;  // so that the first segment opens a unit
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const std::int64_t size = tensors_[i]->size;
        most_work_ += tensors_[i]->work;
        for (std::int64_t begin = 0; begin < size; begin += chunk_elements) {
            const std::int64_t count = std::min(chunk_elements, size - begin);
            if (in_unit + count > unit_elements) {
                units_.push_back(segments_.size());
                in_unit = 0;
            }
            segments_.push_back({i, begin, count});
            in_unit += count;
        }
    }
    units_.push_back(segments_.size());
    turns_.resize(tensors_.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        turns_[i].work = tensors_[i]->work;
        Tensor& tensor = *tensors_[i];
        tensor.arrangement = Arrangement::of(tensor.operands, tensor.compute);
        turns_[i].kind = static_cast<std::uint32_t>(tensor.group * compute_count + static_cast<int>(tensor.compute)) *
                             arrangement_count +
                         tensor.arrangement.number();
    }
}

bool Stepper::any_pending() const {
    return std::any_of(turns_.begin(), turns_.end(), [](const Turn& turn) { return turn.pending; });
}

void Stepper::clear_pending() {
    for (Turn& turn : turns_) turn.pending = false;
}

std::uint32_t Stepper::make_settings(std::size_t i, std::int64_t t, const std::vector<Group>& groups) {
    const auto compute = static_cast<int>(tensors_[i]->compute);
    const Group& group = groups[static_cast<std::size_t>(tensors_[i]->group)];
    const Variant& variant = level_->families[group.family]->variants[group.options];
    Prepared& fresh = settings_.emplace_back();
    fresh.kind = turns_[i].kind;
    fresh.t = t;
    fresh.sweep = level_->sweep[compute];
    fresh.settings.terms = group.terms;
    fresh.settings.average_rate = extras_.average_rate;
    fresh.settings.claims = work() <= most_work_claimed;
    fresh.settings.past_caches = work() >= work_past_caches;
    choose_loops(fresh.settings, *variant.loops[compute], tensors_[i]->arrangement);
    variant.prepare[compute](group.hyperparameters, t, group.options, fresh.settings.scalars);
    return static_cast<std::uint32_t>(settings_.size() - 1);
}

void Stepper::prepare(const Level& level, const std::vector<Group>& groups, const Extras& extras) {
    const FloatEnvironment environment;
    level_ = &level;
    extras_ = extras;
    settings_.clear();
    for (std::size_t i = 0; i < turns_.size(); ++i) {
        Turn& turn = turns_[i];
        if (!turn.present) continue;
        const std::int64_t t = turn.steps + 1;
        // Nearly always the last ones made: parameters of a group have been stepped equally often.
        std::size_t k = settings_.size();
        while (k > 0 && (settings_[k - 1].kind != turn.kind || settings_[k - 1].t != t)) --k;
        turn.settings = k > 0 ? static_cast<std::uint32_t>(k - 1) : make_settings(i, t, groups);
    }
    if (extras.needs_norm()) partial_sums_.resize(segments_.size());
}

// Calls body(threads) with as many as the pace says, and tells the pace how long it took where it was done as a whole.
template <class Body>
void Stepper::keep_pace(Pace& pace, int most_threads, Body body) const {
    const int threads = team::threads_are_fixed() ? most_threads : pace.choose(most_threads, work());
    if (team::threads_are_fixed() || !pace.timed()) {
        body(threads);
        return;
    }
    const FloatEnvironment environment;  // the pace computes too
    const auto begin = Clock::now();
    const bool whole = body(threads);
    if (whole) pace.took(std::chrono::nanoseconds(Clock::now() - begin).count());
}

std::ptrdiff_t Stepper::take(int most_threads) {
    keep_pace(step_pace_, most_threads, [this](int threads) {
        attempt(threads);
        return !blocked_;
    });
    if (blocked_) {
        const std::ptrdiff_t found = find_not_finite();
        if (found >= 0) return found;
        extras_.guarded = false;  // every element is finite, only the sum of their squares is not
        attempt(most_threads);
    }
    return -1;
}

void Stepper::count_step() {
    for (Turn& turn : turns_) {
        turn.steps += turn.present ? 1 : 0;
        turn.pending = false;
    }
}

void Stepper::attempt(int threads) {
    set_scale(extras_.grad_scale);
    blocked_ = false;
    norm_units_left_.store(units_.size() - 1, std::memory_order_relaxed);
    if (extras_.needs_norm() && units_.size() == 1) finish_norm();
    run(threads, &Stepper::work_on_step);
}

void Stepper::set_scale(double scale) {
    for (Prepared& prepared : settings_) {
        prepared.settings.terms.scaled = scale != 1.0;
        prepared.settings.terms.scale = scale;
        prepared.settings.single_scale = static_cast<float>(scale);
    }
}

void Stepper::accumulate(const Level& level, int most_threads) {
    level_ = &level;
    keep_pace(accumulate_pace_, most_threads, [this](int threads) {
        run(threads, &Stepper::work_on_accumulation);
        return true;
    });
}

void Stepper::count_accumulation() {
    for (Turn& turn : turns_) turn.pending = turn.pending || turn.present;
}

void Stepper::set_to_parameters(const Level& level, Operand Operands::* follower) const {
    const FloatEnvironment environment;
    for (const Segment& segment : segments_) {
        const Tensor& tensor = *tensors_[segment.tensor];
        const Operand& operand = tensor.operands.*follower;
        if (operand.data == nullptr) continue;
        level.accumulate[static_cast<int>(tensor.compute)](Operand{}, tensor.operands.param, operand, segment.begin,
                                                           segment.count);
    }
}

void Stepper::run(int threads, void (Stepper::*part)()) {
    part_ = part;
    parallel_ = threads > 1;
    next_unit_.store(0, std::memory_order_relaxed);
    next_norm_unit_.store(0, std::memory_order_relaxed);
    team::run(
        threads, work(),
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
        if (turns_[segments_[k].tensor].present) partial_sums_[count++] = partial_sums_[k];
    norm_ = extras_.grad_scale * std::sqrt(pairwise_sum(partial_sums_, count));
    if (norm_ > extras_.clip_norm) set_scale(extras_.grad_scale * (extras_.clip_norm / norm_));
    blocked_ = extras_.guarded && !std::isfinite(norm_);
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

// Calls action(first, last) for each unit, segments [first, last), that this thread gets hold of. Whoever is free takes
// the next one: a thread that wakes late costs little.
template <class Action>
void Stepper::for_each_unit(std::atomic<std::size_t>& next, Action action) {
    const std::size_t unit_count = units_.size() - 1;
    for (std::size_t unit = next.fetch_add(1, std::memory_order_relaxed); unit < unit_count;
         unit = next.fetch_add(1, std::memory_order_relaxed))
        action(units_[unit], units_[unit + 1]);
}

// Calls action(segment, count) for each stretch of a tensor that has a gradient among these segments, with the first
// segment of the stretch and the elements of all.
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

void Stepper::work_on_step() {
    if (extras_.needs_norm()) {
        for_each_unit(next_norm_unit_, [this](std::size_t first, std::size_t last) {
            for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
                const auto& [i, begin, _] = segments_[segment];
                const Tensor& tensor = *tensors_[i];
                level_->sums_of_squares[static_cast<int>(tensor.compute)](
                    tensor.logical_accumulated, tensor.logical_grad, begin, count, &partial_sums_[segment]);
            });
            // The thread that finishes the last unit adds up, and the others wait.
            if (norm_units_left_.fetch_sub(1, std::memory_order_acq_rel) == 1) finish_norm();
        });
        if (parallel_) team::barrier();
        if (blocked_) return;
    }
    for_each_unit(next_unit_, [this](std::size_t first, std::size_t last) {
        for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
            const auto& [i, begin, _] = segments_[segment];
            const Prepared& prepared = settings_[turns_[i].settings];
            prepared.sweep(tensors_[i]->operands, prepared.settings, begin, count);
        });
    });
}

void Stepper::work_on_accumulation() {
    for_each_unit(next_unit_, [this](std::size_t first, std::size_t last) {
        for_each_stretch(first, last, [this](std::size_t segment, std::int64_t count) {
            const auto& [i, begin, _] = segments_[segment];
            const Tensor& tensor = *tensors_[i];
            level_->accumulate[static_cast<int>(tensor.compute)](tensor.operands.accumulated, tensor.operands.grad,
                                                                 tensor.accumulated, begin, count);
        });
    });
}

}  // namespace instep
