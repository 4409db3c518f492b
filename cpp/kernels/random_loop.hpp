// A rule over states in bfloat16 that are rounded at random, a few vectors at a time: the random numbers are computed
// while the rule waits for the CPU's divider.
#pragma once

#include "kernels/fetching.hpp"
#include "kernels/format_vectors.hpp"
#include "kernels/loop.hpp"
#include "kernels/random_numbers.hpp"
#include "kernels/vectors.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, std::size_t... K>
struct UpdateAtRandom<Rule, std::index_sequence<K...>> {
    using Stored = BFloat16::Stored;
    static constexpr std::int64_t turn = 32;
    static constexpr std::size_t pairs = max_states / 2;

    template <std::size_t Place>
    INSTEP_INLINE static void load([[maybe_unused]] float* values, [[maybe_unused]] const Stored* state) {
        if constexpr (has_state<Rule, Place>)
            for (std::int64_t j = 0; j < turn; ++j) values[j] = BFloat16::load(state[j]);
    }

    template <std::size_t Place>
    INSTEP_INLINE static void store([[maybe_unused]] Stored* state, [[maybe_unused]] const float* values,
                                    [[maybe_unused]] const std::uint32_t* numbers) {
        if constexpr (has_state<Rule, Place>) {
            std::uint32_t words[turn];
            for (std::int64_t j = 0; j < turn; ++j)
                words[j] = BFloat16::word_at_random(values[j], half_of(numbers[j], Place % 2));
            for (std::int64_t j = narrow_words(words, turn, state); j < turn; ++j)
                state[j] = static_cast<Stored>(words[j]);
        }
    }

    template <std::size_t Pair>
    INSTEP_INLINE static void draw([[maybe_unused]] std::uint32_t* numbers, [[maybe_unused]] const OwnStates& states,
                                   [[maybe_unused]] std::int64_t begin) {
        if constexpr (has_state<Rule, 2 * Pair> || has_state<Rule, 2 * Pair + 1>) {
            const Key key{states.keys[2 * Pair][0], states.keys[2 * Pair][1]};
            const auto first = states.counter + static_cast<std::uint32_t>(begin);
            for (std::uint32_t j = 0; j < turn; ++j) numbers[j] = random_number(first + j, key);
        }
    }

    template <std::size_t... Pair>
    INSTEP_INLINE static void step(const Rule& rule, float scale, float* __restrict p, const float* __restrict g,
                                   Stored* const (&arrays)[max_states], const OwnStates& states, std::int64_t begin,
                                   std::index_sequence<Pair...> /* of states */) {
        alignas(64) float values[max_states][turn];
        alignas(64) std::uint32_t numbers[pairs][turn];
        (load<K>(values[K], arrays[K]), ...);
        for (std::int64_t j = 0; j < turn; ++j) {
            float param = p[j];
            float own[max_states] = {(has_state<Rule, K> ? values[K][j] : 0.0F)...};
            apply(rule, param, g[j] * scale, own, Slots<Rule>{});
            p[j] = param;
            ((has_state<Rule, K> ? static_cast<void>(values[K][j] = own[K]) : static_cast<void>(0)), ...);
        }
        (draw<Pair>(numbers[Pair], states, begin), ...);
        (store<K>(arrays[K], values[K], numbers[K / 2]), ...);
    }

    // Fetches what a later turn needs.
    INSTEP_INLINE static void fetch_ahead(const float* param, const float* grad, Stored* const (&arrays)[max_states]) {
        constexpr std::int64_t ahead = 32;  // turns
        constexpr std::int64_t bytes = turn * static_cast<std::int64_t>(sizeof(float));
        constexpr std::int64_t state_bytes = turn * static_cast<std::int64_t>(sizeof(Stored));
        fetch(param, ahead * bytes, bytes);
        fetch(grad, ahead * bytes, bytes);
        ((has_state<Rule, K> ? fetch(arrays[K], ahead * state_bytes, state_bytes) : void()), ...);
    }

    static void run(const Recipe& recipe, std::int64_t first, std::int64_t count, float* __restrict param,
                    const float* __restrict grad, const OwnStates& states) {
        const Rule rule = rule_of<Rule>(recipe);
        const float scale = scale_of<float>(recipe);
        constexpr auto each_pair = std::make_index_sequence<pairs>{};
        std::int64_t done = 0;
        for (; done + turn <= count; done += turn) {
            Stored* const arrays[max_states] = {static_cast<Stored*>(states.data[K]) + first + done...};
            fetch_ahead(param + done, grad + done, arrays);
            step(rule, scale, param + done, grad + done, arrays, states, first + done, each_pair);
        }
        if (done == count) return;
        // The remaining elements, as the beginning of a turn.
        const auto rest = static_cast<std::size_t>(count - done);
        float last_param[turn] = {};
        float last_grad[turn] = {};
        Stored last_states[max_states][turn] = {};
        Stored* const arrays[max_states] = {last_states[K]...};
        memcpy(last_param, param + done, rest * sizeof(float));
        memcpy(last_grad, grad + done, rest * sizeof(float));
        (copy<K>(last_states[K], static_cast<const Stored*>(states.data[K]) + first + done, rest), ...);
        step(rule, scale, last_param, last_grad, arrays, states, first + done, each_pair);
        memcpy(param + done, last_param, rest * sizeof(float));
        (copy<K>(static_cast<Stored*>(states.data[K]) + first + done, last_states[K], rest), ...);
    }

private:
    template <std::size_t Place>
    INSTEP_INLINE static void copy([[maybe_unused]] Stored* to, [[maybe_unused]] const Stored* from,
                                   [[maybe_unused]] std::size_t count) {
        if constexpr (has_state<Rule, Place>) memcpy(to, from, count * sizeof(Stored));
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
