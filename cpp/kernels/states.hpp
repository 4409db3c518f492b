// The states that a rule's variant has, some or none, and the rule for one element of all its arrays.
#pragma once

#include "kernels/gradient_terms.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, int K>
constexpr bool has_state() {
    if constexpr (K < Rule::slots)
        return Rule::states[K].used;
    else
        return false;
}

template <class Rule>
constexpr bool has_states() {
    return has_state<Rule, 0>() || has_state<Rule, 1>() || has_state<Rule, 2>() || has_state<Rule, 3>();
}

// Calls action(k) for each state k that this variant of the rule uses. Spelled out: of a loop over them compilers leave
// one that runs for every tensor.
template <class Rule, class Action>
inline void for_each_state([[maybe_unused]] Action action) {
    if constexpr (has_state<Rule, 0>()) action(0);
    if constexpr (has_state<Rule, 1>()) action(1);
    if constexpr (has_state<Rule, 2>()) action(2);
    if constexpr (has_state<Rule, 3>()) action(3);
}

// Element i of state K; a stand-in where this variant of the rule does without it.
template <class Rule, int K, class S, class T>
inline T load_state([[maybe_unused]] const typename S::Stored* values, [[maybe_unused]] std::int64_t i) {
    if constexpr (has_state<Rule, K>())
        return static_cast<T>(S::load(values[i]));
    else
        return T{};
}

template <class Rule, int K, class S, class T>
inline void store_state([[maybe_unused]] typename S::Stored* values, [[maybe_unused]] std::int64_t i,
                        [[maybe_unused]] T value) {
    if constexpr (has_state<Rule, K>()) values[i] = S::store(value);
}

// The rule for one element; it leaves alone the states that this variant does without.
template <class Rule, class T>
inline void apply_to_element(const Rule& rule, T& param, T grad, [[maybe_unused]] T& a, [[maybe_unused]] T& b,
                             [[maybe_unused]] T& c, [[maybe_unused]] T& d) {
    static_assert(Rule::slots <= max_states);
    if constexpr (Rule::slots == 0)
        rule(param, grad);
    else if constexpr (Rule::slots == 1)
        rule(param, grad, a);
    else if constexpr (Rule::slots == 2)
        rule(param, grad, a, b);
    else if constexpr (Rule::slots == 3)
        rule(param, grad, a, b, c);
    else
        rule(param, grad, a, b, c, d);
}

// What else may be done in the rule's loop, as bits.
constexpr unsigned with_l2 = 1;       // L2 regularisation, the last of the gradient's terms
constexpr unsigned with_average = 2;  // the parameter's moving average follows

// The rule for element i, parameter and gradient stored in format W and states in format S. The gradient is multiplied
// by scale always: 1 changes no bit of a number.
template <class Rule, class T, class W, class S, unsigned With = 0>
inline void update_element(const Rule& rule, T scale, std::int64_t i, typename W::Stored* p,
                           const typename W::Stored* g, typename S::Stored* s0, typename S::Stored* s1,
                           typename S::Stored* s2, typename S::Stored* s3, [[maybe_unused]] T l2_factor = T{},
                           [[maybe_unused]] T average_rate = T{}, [[maybe_unused]] T* average = nullptr) {
    T param = static_cast<T>(W::load(p[i]));
    T grad = static_cast<T>(W::load(g[i])) * scale;
    if constexpr ((With & with_l2) != 0) grad = add_l2(grad, l2_factor, param);
    T a = load_state<Rule, 0, S, T>(s0, i);
    T b = load_state<Rule, 1, S, T>(s1, i);
    T c = load_state<Rule, 2, S, T>(s2, i);
    T d = load_state<Rule, 3, S, T>(s3, i);
    apply_to_element(rule, param, grad, a, b, c, d);
    p[i] = W::store(param);
    store_state<Rule, 0, S>(s0, i, a);
    store_state<Rule, 1, S>(s1, i, b);
    store_state<Rule, 2, S>(s2, i, c);
    store_state<Rule, 3, S>(s3, i, d);
    if constexpr ((With & with_average) != 0) {
        const T e = average[i];
        average[i] = e + average_rate * (param - e);
    }
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
