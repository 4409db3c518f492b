// What follows from the sums over a step's gradients and states: the norm, the guard and the rules' scalars, for one
// Stepper or several, and with the sums of other processes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "runtime/float_environment.hpp"
#include "runtime/step.hpp"
#include "runtime/tensor_view.hpp"

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

std::size_t chunks_in(std::int64_t elements) {
    return static_cast<std::size_t>((elements + chunk_elements - 1) / chunk_elements);
}

}  // namespace

void Stepper::make_room(Together all) {
    std::size_t segments = 0;
    for (const Participant& one : all) segments += one.stepper->segments_.size();
    std::vector<double>& sums = all.first->stepper->sums_;
    if (all.first->stepper->extras_.needs_norm() && sums.size() < segments) sums.resize(segments);
}

Found Stepper::measure(Together all) {
    if (!all.first->stepper->extras_.needs_norm()) return {0, -1};
    for (const Participant& one : all) one.stepper->measure(one.most_threads);
    return conclude(all) ? Found{0, -1} : look_closer(all);
}

Found Stepper::take_up_to_sweep(Together all) {
    const Found found = measure(all);
    if (found.tensor >= 0) return found;
    for (const Participant& one : all) {
        Stepper& stepper = *one.stepper;
        if (!stepper.has_rule_sums_) continue;
        if (all.others == nullptr) {
            stepper.run_sums(one.most_threads);
            continue;
        }
        stepper.run_terms(one.most_threads);
        stepper.gather_rule_sums();
        std::vector<bool> included;
        for (const Participant& other : all)
            for (std::size_t i = 0; i < other.stepper->turns_.size(); ++i)
                included.push_back(&other == &one && stepper.turns_[i].present && stepper.takes_part(i));
        all.others->gather(included, max_sums, stepper.sums_of_all_);
        const FloatEnvironment environment;
        stepper.complete_from(stepper.sums_of_all_);
    }
    return found;
}

void Stepper::take_sweeps(Together all) {
    for (const bool in_files : {true, false})
        for (const Participant& one : all)
            if ((one.stepper->windows_ != nullptr) == in_files) one.stepper->take_sweep(one.most_threads);
}

// Gradients that are absent leave no gap in the order.
std::size_t Stepper::gather_sums(std::vector<double>& into, std::size_t count) const {
    for (std::size_t k = 0; k < segments_.size(); ++k)
        if (turns_[segments_[k].tensor].present) into[count++] = sums_[k];
    return count;
}

// The sum of the sums of all, in the first's own vector: none is written before it has been read.
double Stepper::total(Together all) {
    if (all.others != nullptr) return total_of_processes(all);
    std::vector<double>& sums = all.first->stepper->sums_;
    std::size_t count = 0;
    for (const Participant& one : all) count = one.stepper->gather_sums(sums, count);
    return pairwise_sum(sums, count);
}

double Stepper::total_of_processes(Together all) {
    std::vector<bool> included;
    std::vector<double> values;
    for (const Participant& one : all) {
        for (const Turn& turn : one.stepper->turns_) included.push_back(turn.present);
        const std::size_t before = values.size();
        values.resize(before + one.stepper->segments_.size());
        values.resize(one.stepper->gather_sums(values, before));
    }
    all.others->gather(included, 1, values);
    return pairwise_sum(values, values.size());
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
    if (all.others != nullptr) found = all.others->first(found);
    const Stepper& any = *all.first->stepper;
    if (found.tensor < 0 && any.needs_scaling_) measure_scaled(all);
    return any.extras_.guarded ? found : Found{0, -1};
}

// Computes the norm again, for gradients that are all finite, scaled such that the largest is between 1/2 and 1.
void Stepper::measure_scaled(Together all) {
    double most = 0;
    for (const Participant& one : all) most = std::max(most, one.stepper->largest(one.most_threads));
    if (all.others != nullptr) most = all.others->largest(most);
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

void Stepper::gather_rule_sums() {
    sums_of_all_.clear();
    for (std::size_t j = 0; j < segments_.size(); ++j) {
        const std::size_t i = segments_[j].tensor;
        if (!turns_[i].present || !takes_part(i)) continue;
        const double* const sums = &rule_sums_[j * max_sums];
        sums_of_all_.insert(sums_of_all_.end(), sums, sums + max_sums);
    }
}

void Stepper::complete_all() {
    const FloatEnvironment environment;
    gather_rule_sums();
    complete_from(sums_of_all_);
}

// The sums of each tensor that takes part, from those of all chunks of its parameter, and the scalars that follow.
void Stepper::complete_from(const std::vector<double>& of_chunks) {
    std::vector<double>& values = sums_;  // the norm is known
    if (values.size() < of_chunks.size() / max_sums) values.resize(of_chunks.size() / max_sums);
    bool any_joint = false;
    const double* next = of_chunks.data();
    for (std::size_t i = 0; i < turns_.size(); ++i) {
        if (!turns_[i].present || !takes_part(i)) continue;
        const std::size_t chunks = chunks_in(whole_of(*tensors_[i]));
        const double* const first = next;
        next += chunks * max_sums;
        if (variant_of(i).joint) {
            any_joint = true;
            continue;
        }
        double sums[max_sums] = {};
        for (std::size_t k = 0; k < max_sums; ++k) {
            for (std::size_t j = 0; j < chunks; ++j) values[j] = first[j * max_sums + k];
            sums[k] = pairwise_sum(values, chunks);
        }
        complete(i, sums);
    }
    if (any_joint) complete_jointly(of_chunks);
}

// The same from the sums over all tensors that take part.
void Stepper::complete_jointly(const std::vector<double>& of_chunks) {
    const auto takes_part_jointly = [this](std::size_t i) {
        return turns_[i].present && takes_part(i) && variant_of(i).joint;
    };
    double sums[max_sums] = {};
    for (std::size_t k = 0; k < max_sums; ++k) {
        std::size_t count = 0;
        const double* next = of_chunks.data();
        for (std::size_t i = 0; i < turns_.size(); ++i) {
            if (!turns_[i].present || !takes_part(i)) continue;
            const std::size_t chunks = chunks_in(whole_of(*tensors_[i]));
            for (std::size_t j = 0; j < chunks && variant_of(i).joint; ++j) sums_[count++] = next[j * max_sums + k];
            next += chunks * max_sums;
        }
        sums[k] = pairwise_sum(sums_, count);
    }
    for (std::size_t i = 0; i < turns_.size(); ++i)
        if (takes_part_jointly(i)) complete(i, sums);
}

void Stepper::sum_up(const std::vector<Contributions>& contributions, int most_threads) {
    struct Chunk {
        const Contributions* of;
        std::size_t segment;
    };
    std::vector<Chunk> chunks;
    std::int64_t work = 0;
    for (const Contributions& one : contributions) {
        const Segment wanted{one.tensor, one.begin, 0};
        auto segment = std::lower_bound(segments_.begin(), segments_.end(), wanted, [](const auto& a, const auto& b) {
            return a.tensor != b.tensor ? a.tensor < b.tensor : a.begin < b.begin;
        });
        for (std::int64_t begin = one.begin; begin < one.begin + one.count; begin += chunk_elements)
            chunks.push_back({&one, static_cast<std::size_t>(segment++ - segments_.begin())});
        work += one.count * static_cast<std::int64_t>(one.gradients.size() + 1) *
                item_size(tensors_[one.tensor]->accumulated.format);
    }
    is_measured_ = extras_.needs_norm();
    const auto sum_chunk = [this](const Chunk& chunk) {
        const Segment& segment = segments_[chunk.segment];
        const Tensor& tensor = *tensors_[segment.tensor];
        const auto compute = static_cast<int>(tensor.compute);
        // A stretch is one run.
        Operand sum = tensor.accumulated;
        sum.data += segment.begin * item_size(sum.format);
        Operand before{};
        for (const auto& [first, format] : chunk.of->gradients) {
            const std::int64_t offset = (segment.begin - chunk.of->begin) * item_size(format);
            const Operand gradient{first + offset, format, nullptr};
            level_->accumulate[compute](before, gradient, sum, 0, segment.count);
            before = sum;
        }
        if (is_measured_) level_->sums_of_squares[compute](Operand{}, sum, 0, segment.count, &sums_[chunk.segment]);
    };
    std::atomic<std::size_t> next{0};
    auto work_on = [&] {
        const FloatEnvironment environment;
        for (std::size_t k = next.fetch_add(1, std::memory_order_relaxed); k < chunks.size();
             k = next.fetch_add(1, std::memory_order_relaxed))
            sum_chunk(chunks[k]);
    };
    using Work = decltype(work_on);
    team_->run(
        std::min(most_threads, team_->threads_for(work)), work,
        [](void* context, bool idle) {
            if (!idle) (*static_cast<Work*>(context))();
        },
        &work_on);
}

void Stepper::get_prepared(std::vector<unsigned char>& bytes) const {
    const auto put = [&bytes](const void* from, std::size_t count) {
        const auto* const first = static_cast<const unsigned char*>(from);
        bytes.insert(bytes.end(), first, first + count);
    };
    for (const Prepared& prepared : recipes_) put(prepared.recipe.scalars, sizeof prepared.recipe.scalars);
    for (std::size_t i = 0; i < turns_.size(); ++i)
        if (turns_[i].present && turns_[i].of_its_own)
            put(tensors_[i]->next_scalar_states, sizeof tensors_[i]->next_scalar_states);
}

void Stepper::set_prepared(const unsigned char* bytes) {
    const auto take = [&bytes](void* into, std::size_t count) {
        memcpy(into, bytes, count);
        bytes += count;
    };
    for (Prepared& prepared : recipes_) take(prepared.recipe.scalars, sizeof prepared.recipe.scalars);
    for (std::size_t i = 0; i < turns_.size(); ++i)
        if (turns_[i].present && turns_[i].of_its_own)
            take(tensors_[i]->next_scalar_states, sizeof tensors_[i]->next_scalar_states);
}

}  // namespace instep
