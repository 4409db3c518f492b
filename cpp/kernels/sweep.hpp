// The one loop: a rule over a chunk, each buffer read once and written once.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/gradient_terms.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Element i of a state, or a stand-in where this variant of the rule does without it.
template <class Rule, int K, class T>
inline T& state(T* values, std::int64_t i, T& none) {
    if constexpr (Rule::states[K].used)
        return values[i];
    else
        return none;
}

// The rule over elements that lie side by side in its compute type. Kept out of line so that the disassembly shows one
// function a rule, which tools/check_levels.py looks at. The pointers come as parameters because that is where
// compilers honour __restrict; the rule by value, or its scalars might be reloaded after every store.
template <class Rule, class T>
INSTEP_NOINLINE void update(const Rule rule, std::int64_t count, T* __restrict p, const T* __restrict g,
                            T* __restrict s0, T* __restrict s1, T* __restrict s2, T* __restrict s3) {
    static_assert(Rule::slots <= max_states);
    for (std::int64_t i = 0; i < count; ++i) {
        [[maybe_unused]] T none{};
        if constexpr (Rule::slots == 0)
            rule(p[i], g[i]);
        else if constexpr (Rule::slots == 1)
            rule(p[i], g[i], state<Rule, 0>(s0, i, none));
        else if constexpr (Rule::slots == 2)
            rule(p[i], g[i], state<Rule, 0>(s0, i, none), state<Rule, 1>(s1, i, none));
        else if constexpr (Rule::slots == 3)
            rule(p[i], g[i], state<Rule, 0>(s0, i, none), state<Rule, 1>(s1, i, none), state<Rule, 2>(s2, i, none));
        else
            rule(p[i], g[i], state<Rule, 0>(s0, i, none), state<Rule, 1>(s1, i, none), state<Rule, 2>(s2, i, none),
                 state<Rule, 3>(s3, i, none));
    }
}

// Everything lies ready: the rule runs over the arrays themselves, in pieces only so that the parameter can be claimed
// ahead. Its cache lines were read by other cores too, in the forward pass, and taking them back one store at a time
// costs a loop of 235,146 parameters a sixth of its step (bench/loop.py).
template <class Rule, class T>
void update_in_place(const Rule& rule, std::int64_t count, T* p, const T* g, T* const* s) {
    constexpr std::int64_t line = 64 / sizeof(T);
    constexpr std::int64_t piece = 16 * line;
    constexpr std::int64_t ahead = 32 * line;
    for (std::int64_t done = 0; done < count; done += piece) {
        const std::int64_t rest = count - done;
        const std::int64_t claimed = rest - ahead < piece ? rest - ahead : piece;
        for (std::int64_t i = 0; i < claimed; i += line) claim_for_writing(p + done + ahead + i);
        const auto from = [done](T* state) { return state == nullptr ? nullptr : state + done; };
        update(rule, rest < piece ? rest : piece, p + done, g + done, from(s[0]), from(s[1]), from(s[2]), from(s[3]));
    }
}

// Follows the parameter p that was just computed: e = e + rate * (p - e).
template <class T>
void follow(T rate, T* __restrict e, const T* __restrict p, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) e[i] = e[i] + rate * (p[i] - e[i]);
}

// Anything may lie anywhere: block after block is read into the compute type, where it isn't already, and taken through
// the gradient's terms, the rule and what follows it while it is in the L1 cache.
template <class Rule, class T>
void update_in_blocks(const Rule& rule, const Operands& of, const Settings& settings, std::int64_t chunk_begin,
                      std::int64_t chunk_count) {
    const GradientTerms terms = settings.terms;
    const bool has_terms = any(terms);
    Block<T> param(of.param);
    GradientBlock<T> grad(of.accumulated, of.grad);
    Block<T> states[max_states] = {Block<T>(of.states[0]), Block<T>(of.states[1]), Block<T>(of.states[2]),
                                   Block<T>(of.states[3])};
    Block<T> average(of.average);
    for_each_block<T>(chunk_begin, chunk_count, [&](std::int64_t begin, std::int64_t count) {
        T* p = param.load(begin, count);
        const T* g = nullptr;
        if (has_terms) {
            T* changed = grad.load_copy(begin, count);
            apply(terms, changed, p, count);
            g = changed;
        } else {
            g = grad.load(begin, count);
        }
        T* s[max_states] = {};
        for (int k = 0; k < Rule::slots; ++k)
            if (Rule::states[k].used) s[k] = states[k].load(begin, count);
        update(rule, count, p, g, s[0], s[1], s[2], s[3]);
        param.store(begin, count);
        for (int k = 0; k < Rule::slots; ++k)
            if (Rule::states[k].used) states[k].store(begin, count);
        if (of.average.data != nullptr) {
            follow(static_cast<T>(settings.average_rate), average.load(begin, count), p, count);
            average.store(begin, count);
        }
        if (of.copy.data != nullptr) store_block(of.copy, begin, count, p);
    });
}

// Whether the rule can run over the arrays themselves.
template <class Rule, class T>
bool all_ready(const Operands& of, const GradientTerms& terms) {
    if (any(terms) || of.accumulated.data != nullptr) return false;
    if (of.average.data != nullptr || of.copy.data != nullptr) return false;
    bool ready = lies_ready<T>(of.param) && lies_ready<T>(of.grad);
    for (int k = 0; k < Rule::slots; ++k) ready = ready && (!Rule::states[k].used || lies_ready<T>(of.states[k]));
    return ready;
}

template <class Rule, class T>
void sweep(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count) {
    Rule rule;
    std::memcpy(static_cast<void*>(&rule), settings.scalars, sizeof rule);
    if (!all_ready<Rule, T>(of, settings.terms)) {
        update_in_blocks<Rule, T>(rule, of, settings, begin, count);
        return;
    }
    T* s[max_states] = {};
    for (int k = 0; k < Rule::slots; ++k)
        if (Rule::states[k].used) s[k] = in_place<T>(of.states[k], begin);
    update_in_place(rule, count, in_place<T>(of.param, begin), in_place<T>(of.grad, begin), s);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
