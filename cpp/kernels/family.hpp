// Makes the table of a rule: each choice of its options, with its loops.
#pragma once

#include "kernels/loop.hpp"
#include "kernels/rule_sums.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule>
void prepare(const Moment& now, void* scalars) {
    static_assert(sizeof(Rule) <= max_scalar_bytes);
    const Rule rule = Rule::prepare(now);
    memcpy(scalars, static_cast<const void*>(&rule), sizeof rule);
}

// The rule that puts what averaged() shows into the parameter, with the scalars of the rule itself.
template <class Rule>
struct Shown : Rule {
    template <class T, class... State>
    INSTEP_INLINE void operator()(T& p, T /* g */, State&... states) const {
        p = Rule::shown(p, states...);
    }
};

template <class Rule, class W, class S>
constexpr Loop loop_for_bfloat16() {
#if defined(INSTEP_HAS_SIXTEENS)
    return UpdateBySixteens<Rule, W, S>::run;
#else
    return Update<Rule, float, W, S, 0>::run;
#endif
}

template <class Rule, class T>
constexpr Loops make_loops() {
    using F = Native<T>;
    Loops loops{};
    Loop(&native)[extra_count] = loops.by[static_cast<int>(Storage::native)];
    native[0] = Update<Rule, T, F, F, 0>::run;
    if constexpr (has_terms<Rule>) {
        loops.terms = Terms<Rule, T>::run;
        loops.squares = Rule::squares;
    }
    if constexpr (has_shown<Rule>) loops.shown = Update<Shown<Rule>, T, F, F, 0>::run;
    if constexpr (is_hot<Rule>) {
        native[with_l2] = Update<Rule, T, F, F, with_l2>::run;
        native[with_average] = Update<Rule, T, F, F, with_average>::run;
        native[with_l2 | with_average] = Update<Rule, T, F, F, with_l2 | with_average>::run;
        if constexpr (sizeof(T) == sizeof(float)) {
            loops.by[static_cast<int>(Storage::bfloat16)][0] = loop_for_bfloat16<Rule, BFloat16, BFloat16>();
            if constexpr (has_any_state<Rule>(StatePlaces{})) {
                loops.by[static_cast<int>(Storage::bfloat16_states)][0] = loop_for_bfloat16<Rule, Float32, BFloat16>();
                loops.by[static_cast<int>(Storage::bfloat16_weights)][0] = loop_for_bfloat16<Rule, BFloat16, Float32>();
                if constexpr (can_be_coded<Rule>(StatePlaces{})) loops.of_codes = UpdateCoded<Rule>::run;
                loops.of_random_bfloat16 = UpdateAtRandom<Rule>::run;
            }
        }
    }
    return loops;
}

template <class Rule, class T>
constexpr Loops loops_of = make_loops<Rule, T>();

// A choice of options shares the loops, and the type of its scalars, with the same choice without the options that
// change only scalars.
template <template <class, unsigned> class Rule, unsigned Options>
constexpr Variant make_variant() {
    using Chosen = Rule<float, Options>;
    constexpr unsigned looping = Options & ~scalar_options<Chosen>;
    using Single = Rule<float, looping>;
    using Double = Rule<double, looping>;
    Variant variant{};
    variant.valid = is_valid<Chosen>;
    variant.state_count = States<Single>::count;
    for (int k = 0; k < variant.state_count; ++k) variant.states[k] = States<Single>::at(k);
    for (int k = 0; k < max_scalar_states; ++k) variant.scalar_states[k] = ScalarStates<Chosen>::at(k);
    variant.sum_count = sum_count<Chosen>;
    variant.joint = is_joint<Chosen>;
    variant.of_each_tensor = variant.sum_count > 0 || has_number<Chosen>();
    variant.of_matrices = is_of_matrices<Chosen>;
    static_assert(!is_of_matrices<Chosen> || (States<Chosen>::count < max_states && !is_hot<Chosen>));
    if constexpr (is_valid<Chosen>) {
        variant.rate = rate_of<Double>;
        variant.takes_part = takes_part_of<Double>;
        variant.prepare[static_cast<int>(Compute::float32)] = prepare<Single>;
        variant.prepare[static_cast<int>(Compute::float64)] = prepare<Double>;
        variant.loops[static_cast<int>(Compute::float32)] = &loops_of<Single, float>;
        variant.loops[static_cast<int>(Compute::float64)] = &loops_of<Double, double>;
    }
    return variant;
}

template <template <class, unsigned> class Rule, class Choices>
struct Variants;

template <template <class, unsigned> class Rule, std::size_t... Options>
struct Variants<Rule, std::index_sequence<Options...>> {
    static constexpr Variant table[] = {make_variant<Rule, Options>()...};
};

template <template <class, unsigned> class Rule>
constexpr RuleFamily make_family() {
    using Any = Rule<float, 0>;
    constexpr int option_count = OptionsOf<Any>::count;
    return {Any::name,
            Hyperparameters<Any>::count,
            Hyperparameters<Any>::names,
            option_count,
            OptionsOf<Any>::names,
            Variants<Rule, std::make_index_sequence<(std::size_t{1} << option_count)>>::table};
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
