// The sums that a rule needs before its sweep, such as the norms of LAMB. They are read only, in double, in the order
// of the norm: element i of a chunk is added to lane i % norm_lanes, and then the lanes are added up.
#pragma once

#include "kernels/element.hpp"
#include "kernels/gradients.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, class = void>
constexpr bool has_terms = false;
template <class Rule>
constexpr bool has_terms<Rule, std::void_t<decltype(Rule::most_sums)>> = true;

template <class Rule, class T, class Places = StatePlaces>
struct Sum;

template <class Rule, class T, std::size_t... K>
struct Sum<Rule, T, std::index_sequence<K...>> {
    static constexpr std::size_t count_of_sums = Rule::most_sums;
    static_assert(count_of_sums <= max_sums);

    // The terms of element i, with copies of its states.
    template <std::size_t... Slot>
    INSTEP_INLINE static void terms(const Rule& rule, T p, T g, [[maybe_unused]] const T* const (&states)[max_states],
                                    [[maybe_unused]] std::int64_t i, double* to,
                                    std::index_sequence<Slot...> /* slots */) {
        rule.terms(p, g, load_state<Rule, Slot, T, Native<T>>(states[Slot], i)..., to);
    }

    static void run(const Recipe& recipe, std::int64_t count, const void* param, const void* grad,
                    const void* const* arrays, double* lanes) {
        const Rule rule = rule_of<Rule>(recipe);
        const auto* const p = static_cast<const T*>(param);
        const auto* const g = static_cast<const T*>(grad);
        const T* const states[max_states] = {static_cast<const T*>(arrays[K])...};
        double sums[count_of_sums][norm_lanes];
        memcpy(sums, lanes, sizeof sums);
        std::int64_t i = 0;
        for (; i + norm_lanes <= count; i += norm_lanes) {
            for (int lane = 0; lane < norm_lanes; ++lane) {
                double term[count_of_sums];
                terms(rule, p[i + lane], g[i + lane], states, i + lane, term, Slots<Rule>{});
                for (std::size_t k = 0; k < count_of_sums; ++k) sums[k][lane] = sums[k][lane] + term[k];
            }
        }
        for (int lane = 0; i < count; ++i, ++lane) {
            double term[count_of_sums];
            terms(rule, p[i], g[i], states, i, term, Slots<Rule>{});
            for (std::size_t k = 0; k < count_of_sums; ++k) sums[k][lane] = sums[k][lane] + term[k];
        }
        memcpy(lanes, sums, sizeof sums);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
