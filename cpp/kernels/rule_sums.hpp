// The terms of the sums that a rule needs before its sweep, such as the norms of LAMB. They are read only; sweep.hpp
// adds them up.
#pragma once

#include "kernels/element.hpp"
#include "kernels/formats.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, class = void>
constexpr bool has_terms = false;
template <class Rule>
constexpr bool has_terms<Rule, std::void_t<decltype(Rule::most_sums)>> = true;

template <class Rule, class T, class Places = StatePlaces>
struct Terms;

template <class Rule, class T, std::size_t... K>
struct Terms<Rule, T, std::index_sequence<K...>> {
    static_assert(Rule::most_sums <= max_sums);

    // The terms of an element, from copies of its states.
    template <std::size_t... Slot>
    INSTEP_INLINE static void of_element(const Rule& rule, T p, T g, [[maybe_unused]] const T* states, T* to,
                                         std::index_sequence<Slot...> /* slots */) {
        rule.terms(p, g, states[Slot]..., to);
    }

    static void run(const Recipe& recipe, std::int64_t count, const void* __restrict param, const void* __restrict grad,
                    void* __restrict first, [[maybe_unused]] void* __restrict second,
                    typename OfState<K>::Constant __restrict... states) {
        const Rule rule = rule_of<Rule>(recipe);
        for (std::int64_t i = 0; i < count; ++i) {
            const T values[max_states] = {load_state<Rule, K, T, Native<T>>(static_cast<const T*>(states), i)...};
            T terms[Rule::most_sums];
            of_element(rule, static_cast<const T*>(param)[i], static_cast<const T*>(grad)[i], values, terms,
                       Slots<Rule>{});
            static_cast<T*>(first)[i] = terms[0];
            if constexpr (Rule::most_sums > 1) static_cast<T*>(second)[i] = terms[1];
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
