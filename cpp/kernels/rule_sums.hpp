// The sums that a rule needs before its sweep, such as the norms of LAMB. They are read only, in double, in the order
// of the norm: element i of a chunk is added to lane i % norm_lanes, and then the lanes are added up.
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
struct Sum;

template <class Rule, class T, std::size_t... K>
struct Sum<Rule, T, std::index_sequence<K...>> {
    static constexpr std::size_t count_of_sums = Rule::most_sums;
    static_assert(count_of_sums <= max_sums);

    struct Element {
        const Rule& rule;
        const T* p;
        const T* g;
        const T* states[max_states];

        // The terms of element i, from copies of its states.
        template <std::size_t... Slot>
        INSTEP_INLINE void operator()(std::int64_t i, T* to, std::index_sequence<Slot...> /* slots */) const {
            rule.terms(p[i], g[i], load_state<Rule, Slot, T, Native<T>>(states[Slot], i)..., to);
        }
    };

    INSTEP_INLINE static double widened(T term) {
        const double wide = static_cast<double>(term);
        return Rule::squares ? wide * wide : wide;
    }

    // First the terms of one turn of the lanes, in vectors of T, then their sums, in vectors of double.
    static void run(const Recipe& recipe, std::int64_t count, const void* param, const void* grad,
                    const void* const* arrays, double* lanes, [[maybe_unused]] void* kept) {
        const Rule rule = rule_of<Rule>(recipe);
        const Element element{
            rule, static_cast<const T*>(param), static_cast<const T*>(grad), {static_cast<const T*>(arrays[K])...}};
        double sums[count_of_sums][norm_lanes];
        memcpy(sums, lanes, sizeof sums);
        std::int64_t i = 0;
        for (; i + norm_lanes <= count; i += norm_lanes) {
            T terms[count_of_sums][norm_lanes];
            for (int lane = 0; lane < norm_lanes; ++lane) {
                T term[count_of_sums];
                element(i + lane, term, Slots<Rule>{});
                for (std::size_t k = 0; k < count_of_sums; ++k) terms[k][lane] = term[k];
            }
            if constexpr (is_of_matrices<Rule>)
                for (int lane = 0; lane < norm_lanes; ++lane) static_cast<T*>(kept)[i + lane] = terms[0][lane];
            for (std::size_t k = 0; k < count_of_sums; ++k)
                for (int lane = 0; lane < norm_lanes; ++lane) sums[k][lane] = sums[k][lane] + widened(terms[k][lane]);
        }
        for (int lane = 0; i < count; ++i, ++lane) {
            T term[count_of_sums];
            element(i, term, Slots<Rule>{});
            if constexpr (is_of_matrices<Rule>) static_cast<T*>(kept)[i] = term[0];
            for (std::size_t k = 0; k < count_of_sums; ++k) sums[k][lane] = sums[k][lane] + widened(term[k]);
        }
        memcpy(lanes, sums, sizeof sums);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
