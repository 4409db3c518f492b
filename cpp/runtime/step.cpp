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

// A thread takes several chunks at a time: few enough to leave this many turns to share among the threads, and at most
// 1 MB of each stream. If memory is the limit, short stretches of many streams cost a tenth.
constexpr std::int64_t least_units = 128;
constexpr std::int64_t most_chunks_a_unit = 16;
// Up to this much work, parameters may also be in the caches of other cores, which have read them in the forward pass.
constexpr std::int64_t most_work_claimed = std::int64_t{1} << 24;
// From this much work on, a step leaves nothing in the caches for a later reader of the copies.
constexpr std::int64_t work_past_caches = std::int64_t{1} << 28;

// The number of recipes that are searched one by one, the latest first; older recipes are in a table.
constexpr std::uint32_t few = 8;
constexpr std::uint32_t none_yet = UINT32_MAX;

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

void Stepper::append(std::size_t count) {
    tensors_.resize(tensors_.size() + count);
    turns_.resize(tensors_.size());
}

void Stepper::cut(std::size_t count) {
    tensors_.resize(count);
    turns_.resize(count);
}

void Stepper::bind(std::size_t place, std::unique_ptr<Tensor> tensor, std::int64_t steps) {
    unbind(place);
    Turn& turn = turns_[place];
    turn.steps = steps;
    turn.work = tensor->work;
    tensor->arrangement = Arrangement::of(tensor->operands, tensor->compute);
    turn.kind =
        (static_cast<std::uint32_t>(tensor->group) * arrangement_count + tensor->arrangement.number()) * compute_count +
        static_cast<std::uint32_t>(tensor->compute);
    most_work_ += tensor->work;
    tensors_[place] = std::move(tensor);
}

std::unique_ptr<Tensor> Stepper::unbind(std::size_t place) {
    arranged_ = false;
    set_present(place, false);
    most_work_ -= turns_[place].work;
    turns_[place] = {};
    return std::move(tensors_[place]);
}

void Stepper::arrange() {
    if (arranged_) return;
    std::int64_t elements = 0;
    for (const auto& tensor : tensors_) elements += tensor != nullptr ? tensor->size : 0;
    const std::int64_t unit_elements =
        chunk_elements * std::clamp<std::int64_t>(elements / chunk_elements / least_units, 1, most_chunks_a_unit);
    std::int64_t in_unit = unit_elements;  // so that the first segment opens a unit
    segments_.clear();
    units_.clear();
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const std::int64_t size = tensors_[i] != nullptr ? tensors_[i]->size : 0;
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
    arranged_ = true;
}

bool Stepper::any_pending() const {
    return std::any_of(turns_.begin(), turns_.end(), [](const Turn& turn) { return turn.pending; });
}

void Stepper::clear_pending() {
    for (Turn& turn : turns_) turn.pending = false;
    ++pending_changes_;
}

std::uint32_t Stepper::make_recipe(std::size_t i, std::int64_t t, const std::vector<Group>& groups) {
    const auto compute = static_cast<int>(tensors_[i]->compute);
    const Group& group = groups[static_cast<std::size_t>(tensors_[i]->group)];
    const Variant& variant = level_->families[group.family]->variants[group.options];
    Prepared& fresh = recipes_.emplace_back();
    fresh.kind = turns_[i].kind;
    fresh.t = t;
    fresh.sweep = level_->sweep[compute];
    fresh.recipe.terms = group.terms;
    const double rate = extras_.average_rate;
    fresh.recipe.average_rate = tensors_[i]->compute == Compute::float32 ? static_cast<float>(rate) : rate;
    fresh.recipe.claims = work_ <= most_work_claimed;
    fresh.recipe.past_caches = work_ >= work_past_caches;
    choose_loops(fresh.recipe, *variant.loops[compute], tensors_[i]->arrangement);
    variant.prepare[compute](group.hyperparameters, t, group.options, fresh.recipe.scalars);
    return static_cast<std::uint32_t>(recipes_.size() - 1);
}

// The recipe is nearly always among the latest recipes, because the parameters of a group usually have the same step
// count. If each parameter has another count, a table is used.
std::uint32_t Stepper::find_recipe(std::uint32_t kind, std::int64_t t) {
    std::size_t k = recipes_.size();
    const std::size_t last = k > few ? k - few : 0;
    for (; k > last; --k) {
        ++looked_up_;
        if (recipes_[k - 1].kind == kind && recipes_[k - 1].t == t) return static_cast<std::uint32_t>(k - 1);
    }
    if (last == 0) return none_yet;
    ++looked_up_;
    const auto found = recipes_by_step_.find({kind, t});
    return found == recipes_by_step_.end() ? none_yet : found->second;
}

void Stepper::prepare(const Level& level, const std::vector<Group>& groups, const Extras& extras) {
    const FloatEnvironment environment;
    arrange();
    level_ = &level;
    extras_ = extras;
    recipes_.clear();
    if (!recipes_by_step_.empty()) recipes_by_step_.clear();
    wide_ = false;
    for (std::size_t i = 0; i < turns_.size(); ++i) {
        Turn& turn = turns_[i];
        if (!turn.present) continue;
        wide_ = wide_ || turn.kind % compute_count == static_cast<std::uint32_t>(Compute::float64);
        const std::int64_t t = turn.steps + 1;
        turn.recipe = find_recipe(turn.kind, t);
        if (turn.recipe == none_yet) {
            turn.recipe = make_recipe(i, t, groups);
            if (turn.recipe >= few) {
                const Prepared& older = recipes_[turn.recipe - few];
                recipes_by_step_.emplace(KindAndStep{older.kind, older.t}, turn.recipe - few);
            }
        }
    }
    set_scale(extras.grad_scale);
    if (extras.needs_norm()) sums_.resize(segments_.size());
}

// Calls body(threads) with the number of threads that the pace chooses, and tells the pace the time if the whole work
// was done.
template <class Body>
void Stepper::keep_pace(Pace& pace, int most_threads, Body body) const {
    const int threads = team::threads_are_fixed() ? most_threads : pace.choose(most_threads, work_);
    if (team::threads_are_fixed() || !pace.timed()) {
        body(threads);
        return;
    }
    const FloatEnvironment environment;  // the pace computes, too
    const auto begin = Clock::now();
    const bool whole = body(threads);
    if (whole) pace.took(std::chrono::nanoseconds(Clock::now() - begin).count());
}

std::ptrdiff_t Stepper::take(int most_threads) {
    keep_pace(step_pace_, most_threads, [this](int threads) {
        if (extras_.needs_norm())
            run(threads, {{&Stepper::add_squares, &Stepper::conclude_here}, {&Stepper::sweep, nullptr}});
        else
            run(threads, {{&Stepper::sweep, nullptr}});
        return !stopped_;
    });
    if (!stopped_) return -1;
    const std::ptrdiff_t found = look_closer(most_threads);
    if (found < 0) apply(most_threads);
    return found;
}

const std::vector<double>& Stepper::measure(int threads) {
    run(threads, {{&Stepper::add_squares, nullptr}});
    return sums_;
}

void Stepper::apply(int threads) { run(threads, {{&Stepper::sweep, nullptr}}); }

void Stepper::count_step() {
    for (Turn& turn : turns_) {
        turn.steps += turn.present ? 1 : 0;
        turn.pending = false;
    }
    ++pending_changes_;
}

void Stepper::set_scale(double scale) {
    for (Prepared& prepared : recipes_) {
        prepared.recipe.terms.scaled = scale != 1.0;
        prepared.recipe.terms.scale = scale;
        prepared.recipe.single_scale = static_cast<float>(scale);
    }
}

void Stepper::accumulate(const Level& level, int most_threads) {
    arrange();
    level_ = &level;
    keep_pace(accumulate_pace_, most_threads, [this](int threads) {
        run(threads, {{&Stepper::add_to_accumulated, nullptr}});
        return true;
    });
}

void Stepper::count_accumulation() {
    for (Turn& turn : turns_) turn.pending = turn.pending || turn.present;
    ++pending_changes_;
}

void Stepper::copy_all(const Level& level, Operand Operands::* from, Operand Operands::* into, std::size_t first) {
    const FloatEnvironment environment;
    arrange();
    for (const Segment& segment : segments_) {
        if (segment.tensor < first) continue;
        const Tensor& tensor = *tensors_[segment.tensor];
        const Operand& target = tensor.operands.*into;
        if (target.data == nullptr) continue;
        level.accumulate[static_cast<int>(tensor.compute)](Operand{}, tensor.operands.*from, target, segment.begin,
                                                           segment.count);
    }
}

void Stepper::run(int threads, std::initializer_list<Pass> passes) {
    stopped_ = false;
    parallel_ = threads > 1;
    pass_count_ = passes.size();
    std::copy(passes.begin(), passes.end(), passes_.begin());
    for (std::size_t k = 0; k < pass_count_; ++k) {
        progress_[k].next.store(0, std::memory_order_relaxed);
        progress_[k].left.store(units_.size() - 1, std::memory_order_relaxed);
    }
    if (units_.size() == 1)  // no thread will be the last to finish
        for (const Pass& pass : passes)
            if (pass.finish != nullptr) (this->*pass.finish)();
    team::run(
        threads, work_,
        [](void* context) {
            const FloatEnvironment environment;
            static_cast<Stepper*>(context)->work_on_passes();
        },
        this);
}

// The work of each thread. A thread that becomes free takes the next unit, so a thread that wakes late costs little.
void Stepper::work_on_passes() {
    const std::size_t unit_count = units_.size() - 1;
    for (std::size_t k = 0; k < pass_count_; ++k) {
        const Pass& pass = passes_[k];
        std::atomic<std::size_t>& next = progress_[k].next;
        for (std::size_t unit = next.fetch_add(1, std::memory_order_relaxed); unit < unit_count;
             unit = next.fetch_add(1, std::memory_order_relaxed)) {
            (this->*pass.work)(units_[unit], units_[unit + 1]);
            if (pass.finish != nullptr && progress_[k].left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                (this->*pass.finish)();
        }
        if (pass.finish == nullptr) continue;
        if (parallel_) team::barrier();
        if (stopped_) return;
    }
}

// Gradients that are absent leave no gap in the order.
double Stepper::total(std::vector<double>& sums) const {
    std::size_t count = 0;
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if (turns_[segments_[k].tensor].present) sums[count++] = sums[k];
    return pairwise_sum(sums, count);
}

bool Stepper::conclude(std::vector<double>& sums) {
    const FloatEnvironment environment;
    constexpr double vanishing = 0x1p-960;
    const double sum = total(sums);
    norm_ = extras_.grad_scale * std::sqrt(sum);
    if (norm_ > extras_.clip_norm) set_scale(extras_.grad_scale * (extras_.clip_norm / norm_));
    // Among finite gradients, only those in float64 have squares that overflow or vanish.
    needs_scaling_ = wide_ && (std::isinf(sum) || sum < vanishing);
    return !needs_scaling_ && (!extras_.guarded || std::isfinite(norm_));
}

std::ptrdiff_t Stepper::look_closer(int threads) {
    const std::ptrdiff_t found = find_not_finite();
    if (found < 0 && needs_scaling_) measure_scaled(threads);
    return extras_.guarded ? found : -1;
}

// Computes the norm again, for gradients that are all finite, scaled such that the largest is between 1/2 and 1.
void Stepper::measure_scaled(int threads) {
    run(threads, {{&Stepper::find_largest, nullptr}});
    double most = 0;
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if (turns_[segments_[k].tensor].present) most = std::max(most, sums_[k]);
    if (most == 0) return;
    const FloatEnvironment environment;
    int exponent = 0;
    static_cast<void>(std::frexp(most, &exponent));
    exponent_ = -exponent;
    run(threads, {{&Stepper::add_scaled_squares, nullptr}});
    const double scaled_norm = extras_.grad_scale * std::sqrt(total(sums_));
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
