// The one loop: a rule over elements that lie side by side, in which each array is read once and written once.
// (sixteens.hpp has another form of this loop.)
#pragma once

#include "kernels/element.hpp"
#include "kernels/formats.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Elements of type T that fill a vector of this level.
template <class T>
constexpr std::int64_t lanes() {
#if defined(__AVX512F__)
    constexpr std::int64_t bytes = 64;
#elif defined(__AVX__)
    constexpr std::int64_t bytes = 32;
#else
    constexpr std::int64_t bytes = 16;
#endif
    return bytes / static_cast<std::int64_t>(sizeof(T));
}

// Calls element(i) for the last elements of count, which are fewer than 2 * Lanes: in vectors of half the length of a
// whole vector, of a quarter, down to 16 bytes. Without this, compilers compute up to half a vector one by one, which
// takes a tenth of the step over 1,000 tensors of 100 elements (many in bench/call.py).
template <class T, std::int64_t Lanes, class Element>
INSTEP_INLINE void remainder(std::int64_t begin, std::int64_t count, const Element& element) {
    if constexpr (Lanes >= 16 / sizeof(T)) {
        if ((count & Lanes) != 0) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 1  // otherwise two elements of a short rule become two copies instead of a vector
#endif
            for (std::int64_t k = 0; k < Lanes; ++k) element(begin + k);
            begin += Lanes;
        }
        remainder<T, Lanes / 2>(begin, count, element);
    } else {
        const std::int64_t rest = count & (2 * Lanes - 1);
        for (std::int64_t k = 0; k < rest; ++k) element(begin + k);
    }
}

// The loop of a rule that computes in T, with parameter and gradient in format W, states in format S, and the work
// besides the rule. Each combination is a function of its own, which tools/check_levels.py checks in the disassembly.
template <class Rule, class T, class W, class S, unsigned Extras, class Places = StatePlaces>
struct Update;

template <class Rule, class T, class W, class S, unsigned Extras, std::size_t... K>
struct Update<Rule, T, W, S, Extras, std::index_sequence<K...>> {
    using Weight = typename W::Stored;
    using State = typename S::Stored;

    struct Element {
        const Rule& rule;
        const Around<T, Extras>& around;
        Weight* p;
        const Weight* g;
        T* average;
        State* states[max_states];

        INSTEP_INLINE void operator()(std::int64_t i) const {
            update_element<Rule, T, W, S, Extras>(rule, around, i, p, g, average, states, StatePlaces{});
        }
    };

    static void run(const Recipe& recipe, std::int64_t count, void* __restrict param, const void* __restrict grad,
                    void* __restrict average, typename OfState<K>::Array __restrict... states) {
        const Rule rule = rule_of<Rule>(recipe);
        const Around<T, Extras> around(recipe);
        const Element element{rule,
                              around,
                              static_cast<Weight*>(param),
                              static_cast<const Weight*>(grad),
                              static_cast<T*>(average),
                              {static_cast<State*>(states)...}};
        // Only if nothing is converted: otherwise the module would be a tenth larger.
        constexpr bool in_steps = sizeof(Weight) == sizeof(T) && sizeof(State) == sizeof(T);
        const std::int64_t whole = in_steps ? count & -lanes<T>() : count;
#if defined(__clang__)
#pragma clang loop interleave(disable)  // otherwise up to three vectors would be computed one by one
#endif
        for (std::int64_t i = 0; i < whole; ++i) element(i);
        if constexpr (in_steps) remainder<T, lanes<T>() / 2>(whole, count, element);
    }
};

// Whether all states of a rule can be coded.
template <class Rule, std::size_t... K>
constexpr bool can_be_coded(std::index_sequence<K...> /* places */) {
    return ((!has_state<Rule, K> || States<Rule>::at(static_cast<int>(K)).kind.eight_bits) && ...);
}

// The loop over states in 8 bits. The .cpp of a hot rule includes coded_loop.hpp, which has it.
template <class Rule, class Places = StatePlaces>
struct UpdateCoded;

// The loop over states in bfloat16 that are rounded at random; likewise, from random_loop.hpp.
template <class Rule, class Places = StatePlaces>
struct UpdateAtRandom;

// The loop over arrays in bfloat16 by instructions of AVX2. The .cpp of a hot rule includes sixteens.hpp, which has it.
#if defined(__AVX2__) && !defined(__AVX512F__)
#define INSTEP_HAS_SIXTEENS
template <class Rule, class W, class S, class Places = StatePlaces>
struct UpdateBySixteens;
#endif

}  // namespace
}  // namespace instep::INSTEP_LEVEL
