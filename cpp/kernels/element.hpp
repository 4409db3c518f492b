// The rule for one element of all arrays.
#pragma once

#include "kernels/gradient_terms.hpp"
#include "kernels/inlining.hpp"
#include "kernels/traits.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Element i of state K, or of what a rule of matrices has kept; a stand-in if this variant of the rule has no state K.
template <class Rule, std::size_t K, class T, class S>
INSTEP_INLINE T load_state([[maybe_unused]] const typename S::Stored* values, [[maybe_unused]] std::int64_t i) {
    if constexpr (has_state<Rule, K> || is_kept<Rule, K>)
        return static_cast<T>(S::load(values[i]));
    else
        return T{};
}

template <class Rule, std::size_t K, class S, class T>
INSTEP_INLINE void store_state([[maybe_unused]] typename S::Stored* values, [[maybe_unused]] std::int64_t i,
                               [[maybe_unused]] T value) {
    if constexpr (has_state<Rule, K>) values[i] = S::store(value);
}

// The rule's arithmetic; it leaves alone the states that this variant doesn't have.
template <class Rule, class T, std::size_t... Slot>
INSTEP_INLINE void apply(const Rule& rule, T& param, T grad, [[maybe_unused]] T* states,
                         std::index_sequence<Slot...> /* slots */) {
    if constexpr (is_of_matrices<Rule>)
        rule(param, grad, states[Slot]..., states[sizeof...(Slot)]);
    else
        rule(param, grad, states[Slot]...);
}

// The part of the recipe that a loop needs, as local numbers: with numbers in memory, a compiler would have to assume
// that a store changes them.
template <class Rule>
INSTEP_INLINE Rule rule_of(const Recipe& recipe) {
    Rule rule;
    memcpy(static_cast<void*>(&rule), recipe.scalars, sizeof rule);
    return rule;
}

template <class T>
INSTEP_INLINE T scale_of(const Recipe& recipe) {
    if constexpr (sizeof(T) == sizeof(float))
        return recipe.single_scale;
    else
        return recipe.terms.scale;
}

template <class T, unsigned Extras>
struct Around {
    T scale;
    T l2_factor;
    T average_rate;

    INSTEP_INLINE explicit Around(const Recipe& recipe)
        : scale(scale_of<T>(recipe)),
          l2_factor((Extras & with_l2) != 0 ? static_cast<T>(recipe.terms.l2_factor) : T{}),
          average_rate((Extras & with_average) != 0 ? static_cast<T>(recipe.average_rate) : T{}) {}
};

// The rule for element i, with parameter and gradient in format W and states in format S. The gradient is always
// multiplied by scale: a scale of 1 changes no bit of a number.
template <class Rule, class T, class W, class S, unsigned Extras, std::size_t... K>
INSTEP_INLINE void update_element(const Rule& rule, const Around<T, Extras>& around, std::int64_t i,
                                  typename W::Stored* p, const typename W::Stored* g, [[maybe_unused]] T* average,
                                  typename S::Stored* const (&states)[max_states],
                                  std::index_sequence<K...> /* places */) {
    T param = static_cast<T>(W::load(p[i]));
    T grad = static_cast<T>(W::load(g[i])) * around.scale;
    if constexpr ((Extras & with_l2) != 0) grad = add_l2(grad, around.l2_factor, param);
    T values[max_states] = {load_state<Rule, K, T, S>(states[K], i)...};
    apply(rule, param, grad, values, Slots<Rule>{});
    p[i] = W::store(param);
    (store_state<Rule, K, S>(states[K], i, values[K]), ...);
    if constexpr ((Extras & with_average) != 0) average[i] = follow(average[i], around.average_rate, param);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
