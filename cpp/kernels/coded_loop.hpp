// A rule over states in 8 bits, a block of codes after the other: what is decoded and what is to be coded stays in the
// L1 cache, and the square root that a rule takes of a state serves its code, too.
//
// The rule waits for the CPU's divider, and coding a block waits for its largest number. So a block is coded while the
// rule goes over the next.
#pragma once

#include "kernels/codes.hpp"
#include "kernels/fetching.hpp"
#include "kernels/loop.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, std::size_t... K>
struct UpdateCoded<Rule, std::index_sequence<K...>> {
    template <std::size_t Place>
    static constexpr bool is_signed = States<Rule>::at(static_cast<int>(Place)).kind.is_signed;
    template <std::size_t Place>
    using Stored = typename CodeOf<is_signed<Place>>::Stored;
    // Elements that the rule and the coding take in turns.
#if defined(INSTEP_HAS_VECTORS)
    static constexpr std::int64_t turn = Vector::lanes;
#else
    static constexpr std::int64_t turn = code_block;
#endif

    // A block between the rule and its codes.
    struct Block {
        alignas(64) float values[max_states][code_block];
        alignas(64) float roots[max_states][code_block];  // of the values after the step
        alignas(64) std::uint32_t numbers[max_states / 2][code_pairs];
#if defined(INSTEP_HAS_VECTORS)
        Vector::Ints found[max_states][code_block / turn];
#endif
        std::uint32_t largest[max_states];
        Scale scales[max_states];
        std::int64_t begin, count;
    };

    template <std::size_t Place>
    INSTEP_INLINE static void load([[maybe_unused]] Block& block, [[maybe_unused]] const OwnStates& states) {
        if constexpr (has_state<Rule, Place>) {
            const auto* const codes = static_cast<const Stored<Place>*>(states.data[Place]) + block.begin;
            float* const values = block.values[Place];
            load_last<is_signed<Place>>(codes, block.count, states.units[Place][block.begin / code_block], values);
            for (std::int64_t j = block.count; j < code_block; ++j) values[j] = 0;
        }
    }

    // A state after the step; only the signs of values are needed later.
    template <std::size_t Place>
    INSTEP_INLINE static void keep([[maybe_unused]] Block& block, [[maybe_unused]] std::int64_t j,
                                   [[maybe_unused]] float value) {
        if constexpr (has_state<Rule, Place>) {
            if (is_signed<Place>) block.values[Place][j] = value;
            block.roots[Place][j] = root_of<is_signed<Place>>(value);
        }
    }

    INSTEP_INLINE static void step(const Rule& rule, float scale, float* __restrict p, const float* __restrict g,
                                   Block& __restrict block, std::int64_t first) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(__AVX512F__)
#pragma GCC unroll 1  // otherwise some short rules become eight single elements instead of a vector
#endif
        for (std::int64_t j = first; j < first + turn; ++j) {
            float param = p[j];
            float values[max_states] = {(has_state<Rule, K> ? block.values[K][j] : 0.0F)...};
            apply(rule, param, g[j] * scale, values, Slots<Rule>{});
            p[j] = param;
            (keep<K>(block, j, values[K]), ...);
        }
    }

    template <std::size_t Place>
    INSTEP_INLINE static std::uint32_t largest([[maybe_unused]] Block& block) {
        if constexpr (!has_state<Rule, Place>) return 0;
        for (std::int64_t j = block.count; j < code_block; ++j) block.roots[Place][j] = 0;  // beyond the end
        return largest_root(block.roots[Place]);
    }

    // A part of a block's codes, of each state.
    template <bool Random, std::size_t Place>
    INSTEP_INLINE static void encode([[maybe_unused]] Block& block, [[maybe_unused]] std::int64_t first) {
#if defined(INSTEP_HAS_VECTORS)
        if constexpr (has_state<Rule, Place>)
            block.found[Place][first / turn] = codes_of<is_signed<Place>, Random, Place % 2>(
                block.values[Place], block.roots[Place], first, Vector::all(block.scales[Place].factor),
                block.numbers[Place / 2]);
#endif
    }

    template <bool Random, std::size_t Place>
    INSTEP_INLINE static void store([[maybe_unused]] const Block& block, [[maybe_unused]] const OwnStates& states) {
        if constexpr (has_state<Rule, Place>) {
            auto* const codes = static_cast<Stored<Place>*>(states.data[Place]) + block.begin;
            float* const unit = states.units[Place] + block.begin / code_block;
            alignas(64) Stored<Place> whole[code_block];
            auto* const into = block.count == code_block ? codes : whole;
            if (!is_finite(block.largest[Place])) {
                spoil(into, unit);
            } else {
                *unit = block.scales[Place].unit;
#if defined(INSTEP_HAS_VECTORS)
                narrow_block(into, block.found[Place]);
#else
                const std::uint32_t* const numbers = Random ? block.numbers[Place / 2] : nullptr;
                encode_block<is_signed<Place>>(block.values[Place], block.roots[Place], block.scales[Place].factor,
                                               numbers, Place % 2, into);
#endif
            }
            if (into == whole) memcpy(codes, whole, static_cast<std::size_t>(block.count));
        }
    }

    template <std::size_t Pair>
    INSTEP_INLINE static void draw([[maybe_unused]] Block& block, [[maybe_unused]] const OwnStates& states) {
        if constexpr (has_state<Rule, 2 * Pair> || has_state<Rule, 2 * Pair + 1>) {
            const Key key{states.keys[2 * Pair][0], states.keys[2 * Pair][1]};
            const auto first = states.counter + static_cast<std::uint32_t>(block.begin / 2);
            for (std::uint32_t j = 0; j < code_pairs; ++j) block.numbers[Pair][j] = random_number(first + j, key);
        }
    }

    // Fetches what a later block needs. The CPU's own prefetching stops at the end of each page, and a block takes so
    // long that what lies behind it isn't asked for in time.
    INSTEP_INLINE static void fetch_ahead(const float* param, const float* grad, const OwnStates& states,
                                          std::int64_t begin) {
        constexpr std::int64_t ahead = 16 * code_block;
        constexpr std::int64_t bytes = code_block * static_cast<std::int64_t>(sizeof(float));
        fetch(param, ahead * 4, bytes);
        fetch(grad, ahead * 4, bytes);
        ((has_state<Rule, K> ? fetch(states.data[K], begin + ahead, code_block) : void()), ...);
    }

    template <bool Random>
    INSTEP_INLINE static void load_all(Block& block, const OwnStates& states) {
        (load<K>(block, states), ...);
        if (!Random) return;
        static_assert(max_states == 4, "two pairs of states");
        draw<0>(block, states);
        draw<1>(block, states);
    }

    template <bool Random>
    INSTEP_INLINE static void encode_all(Block& block, std::int64_t first) {
        (encode<Random, K>(block, first), ...);
    }

    template <bool Random>
    INSTEP_INLINE static void store_all(const Block& block, const OwnStates& states) {
        (store<Random, K>(block, states), ...);
    }

    INSTEP_INLINE static void scale_all(Block& block) {
        ((block.largest[K] = largest<K>(block)), ...);
        find_scales<max_states>(block.largest, {CodeOf<is_signed<K>>::most...}, block.scales);
    }

    // The first numbers, and zeros after them.
    INSTEP_INLINE static float* padded(float* to, const float* from, std::int64_t count) {
        for (std::int64_t j = 0; j < code_block; ++j) to[j] = j < count ? from[j] : 0;
        return to;
    }

    template <bool Random>
    static void run_as(const Recipe& recipe, std::int64_t first, std::int64_t count, float* __restrict param,
                       const float* __restrict grad, const OwnStates& states) {
        const Rule rule = rule_of<Rule>(recipe);
        const float scale = scale_of<float>(recipe);
        Block blocks[2];
        alignas(64) float last_param[code_block];
        alignas(64) float last_grad[code_block];
        bool odd = false;
        for (std::int64_t done = 0; done < count; done += code_block, odd = !odd) {
            Block& block = blocks[odd];
            Block& before = blocks[!odd];
            block.begin = first + done;
            block.count = count - done < code_block ? count - done : code_block;
            const bool whole = block.count == code_block;
            float* const p = whole ? param + done : padded(last_param, param + done, block.count);
            const float* const g = whole ? grad + done : padded(last_grad, grad + done, block.count);
            fetch_ahead(param + done, grad + done, states, block.begin);
            load_all<Random>(block, states);
            for (std::int64_t j = 0; j < code_block; j += turn) {
                if (done > 0) encode_all<Random>(before, j);
                step(rule, scale, p, g, block, j);
            }
            if (done > 0) store_all<Random>(before, states);
            scale_all(block);
            if (!whole) memcpy(param + done, p, static_cast<std::size_t>(block.count) * sizeof(float));
        }
        Block& last = blocks[!odd];
        for (std::int64_t j = 0; j < code_block; j += turn) encode_all<Random>(last, j);
        store_all<Random>(last, states);
    }

    static void run(const Recipe& recipe, std::int64_t first, std::int64_t count, float* __restrict param,
                    const float* __restrict grad, const OwnStates& states) {
        (states.stochastic ? run_as<true> : run_as<false>)(recipe, first, count, param, grad, states);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
