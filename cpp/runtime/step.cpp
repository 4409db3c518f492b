#include "runtime/step.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/float_environment.hpp"
#include "runtime/team.hpp"
#include "runtime/tensor_view.hpp"

namespace instep {

namespace {

// A thread takes several chunks at a time: few enough to leave this many turns to share among the threads, and at most
// 1 MB of each stream. If memory is the limit, short stretches of many streams cost a tenth.
constexpr std::int64_t least_units = 128;
constexpr std::int64_t most_chunks_a_unit = 16;
constexpr std::int64_t most_chunks_of_files = 2;  // so that a window has turns for many threads
// Up to this much work, parameters may also be in the caches of other cores, which have read them in the forward pass.
constexpr std::int64_t most_work_claimed = std::int64_t{1} << 24;
// From this much work on, a step leaves nothing in the caches for a later reader of the copies.
constexpr std::int64_t work_past_caches = std::int64_t{1} << 28;

// The number of recipes that are searched one by one, the latest first; older recipes are in a table.
constexpr std::uint32_t few = 8;
constexpr std::uint32_t none_yet = UINT32_MAX;

// A parameter as its array alone, to be rounded to nearest.
Operand without_remainder(const Operand& operand) { return {operand.data, array_format(operand.format), operand.view}; }

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
    turn.of_its_own = tensor->of_its_own;
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
        chunk_elements * std::clamp<std::int64_t>(elements / chunk_elements / least_units, 1,
                                                  windows_ != nullptr ? most_chunks_of_files : most_chunks_a_unit);
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
    first_unit_ = 0;
    end_unit_ = units_.size() - 1;
    if (windows_ != nullptr) lay_out_windows();
    arranged_ = true;
}

bool Stepper::any_pending() const {
    return std::any_of(turns_.begin(), turns_.end(), [](const Turn& turn) { return turn.pending; });
}

void Stepper::clear_pending() {
    for (Turn& turn : turns_) turn.pending = false;
    ++pending_changes_;
}

const Variant& Stepper::variant_of(std::size_t i) const {
    const Group& group = (*groups_)[static_cast<std::size_t>(tensors_[i]->group)];
    return level_->families[group.family]->variants[group.options];
}

std::uint32_t Stepper::make_recipe(std::size_t i, std::int64_t t) {
    const auto compute = static_cast<int>(tensors_[i]->compute);
    const Group& group = (*groups_)[static_cast<std::size_t>(tensors_[i]->group)];
    const Variant& variant = variant_of(i);
    Prepared& fresh = recipes_.emplace_back();
    fresh.kind = variant.of_each_tensor ? no_kind : turns_[i].kind;
    fresh.t = t;
    fresh.sweep = level_->sweep[compute];
    fresh.recipe.terms = group.terms;
    const double average_rate = extras_.average_rate;
    fresh.recipe.average_rate =
        tensors_[i]->compute == Compute::float32 ? static_cast<float>(average_rate) : average_rate;
    fresh.recipe.seed = seed_;
    fresh.recipe.t = t;
    fresh.recipe.terms_of_sums = variant.loops[compute]->terms;
    fresh.recipe.squares = variant.loops[compute]->squares;
    fresh.recipe.sum_count = variant.sum_count;
    fresh.recipe.claims = work_ <= most_work_claimed;
    fresh.recipe.past_caches = work_ >= work_past_caches;
    fresh.recipe.of_matrices = variant.of_matrices;
    const auto made = static_cast<std::uint32_t>(recipes_.size() - 1);
    turns_[i].recipe = made;
    complete(i, nullptr);
    choose_loops(fresh.recipe, *variant.loops[compute], tensors_[i]->arrangement);
    has_rule_sums_ = has_rule_sums_ || fresh.recipe.sum_count > 0;
    has_matrices_ = has_matrices_ || variant.of_matrices;
    has_numbers_ = has_numbers_ || variant.scalar_states[0].used;
    return made;
}

// Computes the scalars of a tensor's recipe: before the rule's sums are known, or from them.
void Stepper::complete(std::size_t i, const double* sums) {
    Tensor& tensor = *tensors_[i];
    Prepared& prepared = recipes_[turns_[i].recipe];
    const Group& group = (*groups_)[static_cast<std::size_t>(tensor.group)];
    const Variant& variant = variant_of(i);
    for (int k = 0; k < max_scalar_states; ++k)
        if (tensor.scalar_states[k] != nullptr) tensor.next_scalar_states[k] = *tensor.scalar_states[k];
    Moment now{group.hyperparameters, prepared.t,  group.options, tensor.next_scalar_states, sums,
               whole_of(tensor),      tensor.rows, tensor.columns};
    if (sums != nullptr) tensor.sum = sums[0];
    const double rate = variant.rate == nullptr ? group.hyperparameters[0] : variant.rate(now);
    if (sums == nullptr && variant.takes_part != nullptr && !variant.takes_part(now)) prepared.recipe.sum_count = 0;
    prepared.recipe.shrinks = group.decoupled_l1 != 0 && rate == rate;
    prepared.recipe.shrink = rate * group.decoupled_l1;
    prepared.recipe.decays = group.decay_after != 0 && rate == rate;
    prepared.recipe.decay_factor = 1 - rate * group.decay_after;
    variant.prepare[static_cast<int>(tensor.compute)](now, prepared.recipe.scalars);
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
    groups_ = &groups;
    has_rule_sums_ = has_numbers_ = has_matrices_ = false;
    extras_ = extras;
    recipes_.clear();
    if (!recipes_by_step_.empty()) recipes_by_step_.clear();
    wide_ = is_measured_ = false;
    for (std::size_t i = 0; i < turns_.size(); ++i) {
        Turn& turn = turns_[i];
        if (!turn.present) continue;
        wide_ = wide_ || turn.kind % compute_count == static_cast<std::uint32_t>(Compute::float64);
        const std::int64_t t = turn.steps + 1;
        turn.recipe = turn.of_its_own ? none_yet : find_recipe(turn.kind, t);
        if (turn.recipe == none_yet) {
            turn.recipe = make_recipe(i, t);
            if (turn.recipe >= few) {
                const Prepared& older = recipes_[turn.recipe - few];
                recipes_by_step_.emplace(KindAndStep{older.kind, older.t}, turn.recipe - few);
            }
        }
    }
    if (has_rule_sums_) {
        rule_sums_.resize(segments_.size() * max_sums);
        sums_of_all_.reserve(rule_sums_.size());
    }
    set_scale(extras.grad_scale);
    if (extras.needs_norm() || has_rule_sums_) sums_.resize(segments_.size());
}

std::ptrdiff_t Stepper::take(int most_threads) {
    if (windows_ != nullptr) {
        const Participant alone{this, most_threads};
        const Found found = take_up_to_sweep({&alone, 1});
        if (found.tensor < 0) take_sweep(most_threads);
        return found.tensor;
    }
    step_pace_.keep(most_threads, work_, [this](int threads) {
        run(threads, {extras_.needs_norm() ? norm_pass : no_pass, has_rule_sums_ ? sums_pass : no_pass, sweep_pass});
        return !stopped_;
    });
    if (!stopped_) return -1;
    const Participant alone{this, most_threads};
    const Found found = look_closer({&alone, 1});
    if (found.tensor < 0) apply(most_threads);
    return found.tensor;
}

std::vector<double>& Stepper::measure(int threads) {
    if (is_measured_) return sums_;
    run(threads, {{&Stepper::add_squares, nullptr}});
    return sums_;
}

void Stepper::apply(int threads) {
    if (windows_ == nullptr) return run(threads, {has_rule_sums_ ? sums_pass : no_pass, sweep_pass});
    if (has_rule_sums_) run_sums(threads);
    run_sweep(threads);
}

void Stepper::run_sums(int threads) {
    if (windows_ == nullptr) return run(threads, {sums_pass});
    run_terms(threads);
    (this->*sums_pass.finish)();
}

void Stepper::run_terms(int threads) {
    if (windows_ == nullptr) return run(threads, {{sums_pass.work, nullptr}});
    go_through_windows(threads, sums_pass.work, false);
}

void Stepper::run_sweep(int threads) {
    if (windows_ == nullptr) return run(threads, {sweep_pass});
    run_sweep_in_windows(threads);
}

void Stepper::take_sweep(int most_threads) {
    step_pace_.keep(most_threads, work_, [this](int threads) {
        run_sweep(threads);
        return true;
    });
}

void Stepper::count_step() {
    for (Turn& turn : turns_) {
        turn.steps += turn.present ? 1 : 0;
        turn.pending = false;
    }
    if (has_numbers_) set_scalar_states();
    ++pending_changes_;
}

// If tensors share them, those that take part in the sums come last: only they know the new ones.
void Stepper::set_scalar_states() {
    for (const bool of_sums : {false, true}) {
        for (std::size_t i = 0; i < turns_.size(); ++i) {
            if (!turns_[i].present || !turns_[i].of_its_own || takes_part(i) != of_sums) continue;
            Tensor& tensor = *tensors_[i];
            for (int k = 0; k < max_scalar_states; ++k)
                if (tensor.scalar_states[k] != nullptr) *tensor.scalar_states[k] = tensor.next_scalar_states[k];
        }
    }
}

void Stepper::set_scale(double scale) {
    for (Prepared& prepared : recipes_) {
        prepared.recipe.terms.scaled = scale != 1.0;
        prepared.recipe.terms.scale = scale;
        prepared.recipe.single_scale = static_cast<float>(scale);
    }
}

void Stepper::set_team(const team::Team& team) {
    if (&team != team_) step_pace_ = accumulate_pace_ = Pace();
    team_ = &team;
}

void Stepper::accumulate(const Level& level, int most_threads) {
    arrange();
    level_ = &level;
    accumulate_pace_.keep(most_threads, work_, [this](int threads) {
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
        // Whoever shows averages in the place of a parameter leaves its remainder alone.
        const Operand target = without_remainder(tensor.operands.*into);
        if (target.data == nullptr || (tensor.operands.*from).data == nullptr) continue;
        if (windows_ != nullptr && windows_->have(target)) {
            copy_into_file(level, static_cast<std::size_t>(&segment - segments_.data()), from, target);
            continue;
        }
        level.accumulate[static_cast<int>(tensor.compute)](Operand{}, tensor.operands.*from, target, segment.begin,
                                                           segment.count);
    }
}

void Stepper::show(const Level& level, std::size_t i, const Group& group) {
    const Tensor& tensor = *tensors_[i];
    const Variant& variant = level.families[group.family]->variants[group.options];
    const auto compute = static_cast<int>(tensor.compute);
    if (variant.loops[compute]->shown == nullptr || turns_[i].steps == 0) return;
    const FloatEnvironment environment;
    double scalar_states[max_scalar_states] = {};
    Recipe recipe{};
    recipe.terms.scale = 1;
    recipe.single_scale = 1;
    recipe.in_blocks = variant.loops[compute]->shown;
    variant.prepare[compute](
        {group.hyperparameters, turns_[i].steps, group.options, scalar_states, nullptr, whole_of(tensor)},
        recipe.scalars);
    Operands operands = tensor.operands;
    operands.grad = operands.param;  // any array: it is not used
    operands.accumulated = operands.average = Operand{};
    for (Operand& state : operands.states) state.constant = true;  // it may lie in a file that is mapped to be read
    if (has_remainder(operands.param.format)) {                    // which stays, as the weights come back
        operands.param.constant = true;
        operands.copy = without_remainder(operands.param);  // there is no other: nothing is narrower than bfloat16
    }
    operands.param.stochastic = false;
    level.sweep[compute](operands, recipe, 0, tensor.size);
}

}  // namespace instep
