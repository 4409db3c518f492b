// The one loop: a rule over a chunk, each buffer read once and written once. (sixteens.hpp has it in another form.)
#pragma once

#include <type_traits>

#include "kernels/blocks.hpp"
#include "kernels/gradient_terms.hpp"
#include "kernels/sixteens.hpp"
#include "kernels/states.hpp"

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

// Calls element(i) for the last elements of count, fewer than 2 * Lanes: in vectors half as long as a whole one, a
// quarter, down to 16 bytes. Compilers by themselves leave up to half a vector to be done one by one: of 1,000 tensors
// of 100 a tenth of the step (many in bench/call.py).
template <class T, std::int64_t Lanes, class Element>
inline void remainder(std::int64_t begin, std::int64_t count, const Element& element) {
    if constexpr (Lanes >= 16 / sizeof(T)) {
        if ((count & Lanes) != 0) {
            for (std::int64_t k = 0; k < Lanes; ++k) element(begin + k);
            begin += Lanes;
        }
        remainder<T, Lanes / 2>(begin, count, element);
    } else {
        const std::int64_t rest = count & (2 * Lanes - 1);
        for (std::int64_t k = 0; k < rest; ++k) element(begin + k);
    }
}

// The rule over elements that lie side by side, parameter and gradient stored in format W and states in format S. Kept
// out of line so that the disassembly shows one function for each rule, formats and what else its loop does, which
// tools/check_levels.py looks at. The pointers come as parameters because that is where compilers honour __restrict; of
// the rule's scalars, as Variant::prepare left them, it makes a copy, or they might be reloaded after every store.
template <class Rule, class T, class W, class S, unsigned With>
INSTEP_NOINLINE void update(const unsigned char* scalars, const T scale, std::int64_t count,
                            typename W::Stored* __restrict p, const typename W::Stored* __restrict g,
                            typename S::Stored* __restrict s0, typename S::Stored* __restrict s1,
                            typename S::Stored* __restrict s2, typename S::Stored* __restrict s3, const T l2_factor,
                            const T average_rate, T* __restrict average) {
    Rule rule;
    std::memcpy(static_cast<void*>(&rule), scalars, sizeof rule);
    const auto element = [&](std::int64_t i) {
        update_element<Rule, T, W, S, With>(rule, scale, i, p, g, s0, s1, s2, s3, l2_factor, average_rate, average);
    };
    // Only where nothing is converted, or the module would be a tenth larger.
    constexpr bool in_steps = sizeof(typename W::Stored) == sizeof(T) && sizeof(typename S::Stored) == sizeof(T);
    const std::int64_t whole = in_steps ? count & -lanes<T>() : count;
    for (std::int64_t i = 0; i < whole; ++i) element(i);
    if constexpr (in_steps) remainder<T, lanes<T>() / 2>(whole, count, element);
}

// Calls action with what is done in the rule's loop, where nothing is converted, as a constant.
template <class Action>
inline auto with_what(bool l2, bool average, Action action) {
    using std::integral_constant;
    if (average)
        return l2 ? action(integral_constant<unsigned, with_l2 | with_average>{})
                  : action(integral_constant<unsigned, with_average>{});
    return l2 ? action(integral_constant<unsigned, with_l2>{}) : action(integral_constant<unsigned, 0>{});
}

template <class Rule, class F>
bool states_lie_in(const Operands& of) {
    bool lie = true;
    for_each_state<Rule>([&](int k) { lie = lie && lies_in<F>(of.states[k]); });
    return lie;
}

// Runs the rule over the arrays themselves, if they are stored in these formats. Where parameters are claimed, it does
// so in pieces, and claims one while it works on an earlier one: their cache lines were read by other cores too, in the
// forward pass, and on some CPUs taking them back one store at a time costs a loop of 235,146 parameters a third of its
// step, on others nothing (docs/speed.md). Out of the caches claiming costs a few in a hundred.
template <class Rule, class T, class W, class S, unsigned With>
bool update_stored(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count) {
    if (!lies_in<W>(of.param) || !lies_in<W>(of.grad) || !states_lie_in<Rule, S>(of)) return false;
    using Weight = typename W::Stored;
    using State = typename S::Stored;
    const T scale = scale_of<T>(settings.terms);
    const auto l2_factor = static_cast<T>(settings.terms.l2_factor);
    const auto average_rate = static_cast<T>(settings.average_rate);
    const auto run = [&](std::int64_t from, std::int64_t length) {
        State* s[max_states] = {};
        for_each_state<Rule>([&](int k) { s[k] = in_place<State>(of.states[k], from); });
        Weight* const p = in_place<Weight>(of.param, from);
        const auto* const g = in_place<const Weight>(of.grad, from);
#if defined(INSTEP_HAS_SIXTEENS)
        if constexpr (W::format == Format::bfloat16 || S::format == Format::bfloat16)
            update_by_sixteens<Rule, W, S>(settings.scalars, scale, length, p, g, s[0], s[1], s[2], s[3]);
        else
#endif
            update<Rule, T, W, S, With>(settings.scalars, scale, length, p, g, s[0], s[1], s[2], s[3], l2_factor,
                                        average_rate,
                                        (With & with_average) != 0 ? in_place<T>(of.average, from) : nullptr);
    };
    const std::int64_t end = begin + count;
    if (settings.claims) {
        constexpr std::int64_t line = 64 / sizeof(Weight);
        constexpr std::int64_t piece = 16 * line;
        constexpr std::int64_t ahead = 32 * line;
        for (; begin + ahead < end; begin += piece) {
            const std::int64_t first = begin + ahead;
            const std::int64_t last = first + piece < end ? first + piece : end;
            for (std::int64_t i = first; i < last; i += line) claim_for_writing(in_place<Weight>(of.param, i));
            run(begin, piece);
        }
    }
    run(begin, end - begin);
    return true;
}

// Runs the rule over the arrays themselves where parameter and gradient are stored alike, and the states alike: in the
// compute type, or in bfloat16, whose conversion then needs no pass of its own. Whether they were.
template <class Rule, class T>
bool update_in_place(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count) {
    if (need_a_pass(settings.terms) || of.accumulated.data != nullptr || of.copy.data != nullptr) return false;
    if (of.average.data != nullptr && !lies_in<Native<T>>(of.average)) return false;
    const auto stored = [&](auto weights, auto states, auto with) {
        using W = decltype(weights);
        return update_stored<Rule, T, W, decltype(states), decltype(with)::value>(of, settings, begin, count);
    };
    const bool l2 = settings.terms.l2;
    const bool average = of.average.data != nullptr;
    if (with_what(l2, average, [&](auto with) { return stored(Native<T>{}, Native<T>{}, with); })) return true;
    if constexpr (sizeof(T) == sizeof(float)) {
        if (l2 || average) return false;
        constexpr std::integral_constant<unsigned, 0> alone;
        if (stored(BFloat16{}, BFloat16{}, alone)) return true;
        if constexpr (has_states<Rule>())
            return stored(Float32{}, BFloat16{}, alone) || stored(BFloat16{}, Float32{}, alone);
    }
    return false;
}

// Anything may lie anywhere: block after block is read into the compute type, where it isn't already, and taken through
// the gradient's terms, the rule and what follows it while it is in the L1 cache.
template <class Rule, class T>
void update_in_blocks(const Operands& of, const Settings& settings, std::int64_t chunk_begin,
                      std::int64_t chunk_count) {
    GradientTerms terms = settings.terms;
    const bool has_terms = need_a_pass(terms);
    const T scale = has_terms ? T(1) : scale_of<T>(terms);
    const auto l2_factor = static_cast<T>(terms.l2_factor);
    const auto average_rate = static_cast<T>(settings.average_rate);
    const bool l2 = terms.l2 && !terms.l1;
    terms.l2 = terms.l2 && !l2;
    Block<T> param(of.param);
    GradientBlock<T> grad(of.accumulated, of.grad);
    Block<T> states[max_states] = {Block<T>(of.states[0]), Block<T>(of.states[1]), Block<T>(of.states[2]),
                                   Block<T>(of.states[3])};
    Block<T> average(of.average);
    const bool has_average = of.average.data != nullptr;
    const std::int64_t first = settings.past_caches ? to_next_line<T>(of.copy, chunk_begin) : block_elements<T>;
    for_each_block<T>(chunk_begin, chunk_count, first, [&](std::int64_t begin, std::int64_t count) {
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
        for_each_state<Rule>([&](int k) { s[k] = states[k].load(begin, count); });
        T* e = has_average ? average.load(begin, count) : nullptr;
        with_what(l2, has_average, [&](auto with) {
            update<Rule, T, Native<T>, Native<T>, decltype(with)::value>(settings.scalars, scale, count, p, g, s[0],
                                                                         s[1], s[2], s[3], l2_factor, average_rate, e);
        });
        param.store(begin, count);
        for_each_state<Rule>([&](int k) { states[k].store(begin, count); });
        if (has_average) average.store(begin, count);
        if (of.copy.data != nullptr)
            (settings.past_caches ? stream_block<T> : store_block<T>)(of.copy, begin, count, p);
    });
    if (settings.past_caches) finish_streams();
}

template <class Rule, class T>
void sweep(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count) {
    if (!update_in_place<Rule, T>(of, settings, begin, count)) update_in_blocks<Rule, T>(of, settings, begin, count);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
