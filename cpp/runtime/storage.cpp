#include "runtime/storage.hpp"

#include <algorithm>
#include <iterator>

#include "runtime/tensor_view.hpp"

namespace instep {

namespace {

bool lies_in(const Operand& operand, Format format) {
    return operand.view == nullptr && operand.format == format && !operand.stochastic;
}

// Whether the tensor has states, and all are such.
template <class Condition>
bool has_only(const Operands& operands, Condition is_such) {
    const auto* const states = operands.states;
    return std::any_of(states, states + max_states, [](const Operand& state) { return state.data != nullptr; }) &&
           std::all_of(states, states + max_states,
                       [&](const Operand& state) { return state.data == nullptr || is_such(state); });
}

bool is_random_bfloat16(const Operand& state) {
    return state.format == Format::bfloat16 && state.stochastic && state.view == nullptr;
}

// The bytes of an element of states over which a loop goes where they lie.
std::int64_t state_bytes(const Arrangement& arrangement) {
    switch (arrangement.storage) {
        case Storage::bfloat16_states: return item_size(Format::bfloat16);
        case Storage::bfloat16_weights: return item_size(Format::float32);
        default: return item_size(arrangement.weights);
    }
}

bool states_lie_in(const Operands& operands, Format format) {
    return std::all_of(std::begin(operands.states), std::end(operands.states),
                       [format](const Operand& state) { return state.data == nullptr || lies_in(state, format); });
}

Storage storage_of(const Operands& operands, Format native) {
    if (has_only(operands, [](const Operand& state) { return is_coded(state.format); })) return Storage::codes;
    if (native == Format::float32 && has_only(operands, is_random_bfloat16)) return Storage::random_bfloat16;
    // Copies are rounded from blocks.
    if (operands.copy.data != nullptr || operands.param.view != nullptr) return Storage::other;
    if (operands.param.stochastic) return Storage::other;
    if (operands.param.format == native) {
        if (states_lie_in(operands, native)) return Storage::native;
        return native == Format::float32 && states_lie_in(operands, Format::bfloat16) ? Storage::bfloat16_states
                                                                                      : Storage::other;
    }
    if (operands.param.format != Format::bfloat16) return Storage::other;
    if (states_lie_in(operands, Format::bfloat16)) return Storage::bfloat16;
    return states_lie_in(operands, native) ? Storage::bfloat16_weights : Storage::other;
}

}  // namespace

Arrangement Arrangement::of(const Operands& operands, Compute compute) {
    const Format native = compute == Compute::float64 ? Format::float64 : Format::float32;
    return {storage_of(operands, native), operands.average.data != nullptr, operands.param.format};
}

void choose_loops(Recipe& recipe, const Loops& loops, const Arrangement& arrangement) {
    const GradientTerms& terms = recipe.terms;
    // At a rate of 1 the average becomes the parameter, which blocks do (follow_all).
    const bool replaced = arrangement.averaged && recipe.average_rate == 1;
    const unsigned average = arrangement.averaged && !replaced ? with_average : 0;
    const unsigned l2 = terms.l2 ? with_l2 : 0;
    // A loop can scale the gradient, and can add L2 if it is the last term.
    const bool other_terms = terms.clipped || terms.negated || terms.l1;
    // Blocks change the parameter once more before the average takes its step.
    const bool follows_up = recipe.decays || recipe.shrinks;
    const bool only_loop = !other_terms && !replaced && !follows_up && !recipe.of_matrices;
    const bool in_place = static_cast<int>(arrangement.storage) < storage_count && only_loop;
    const std::int64_t weight_bytes = item_size(arrangement.weights);
    recipe.in_place = {in_place ? loops.by[static_cast<int>(arrangement.storage)][l2 | average] : nullptr,
                       arrangement.weights, weight_bytes, state_bytes(arrangement), 16 * cache_line / weight_bytes};
    const auto& native = loops.by[static_cast<int>(Storage::native)];
    recipe.extras = (terms.l1 ? 0 : l2) | (follows_up ? 0 : average);
    if (native[recipe.extras] == nullptr) recipe.extras = 0;
    recipe.in_blocks = native[recipe.extras];
    recipe.of_states = arrangement.storage == Storage::codes             ? loops.of_codes
                       : arrangement.storage == Storage::random_bfloat16 ? loops.of_random_bfloat16
                                                                         : nullptr;
    recipe.only_states = recipe.of_states != nullptr && only_loop && !terms.l2 && !arrangement.averaged;
    if (recipe.of_states != nullptr) recipe.extras = 0;  // blocks do this work
}

}  // namespace instep
