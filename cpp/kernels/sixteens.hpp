// The rule with AVX2 for arrays in bfloat16: sixteen elements at a time.
//
// GCC turns the loop over single elements into a loop that shuffles each vector more often than necessary. The shuffles
// of AVX2 stay within the halves of a vector, and putting elements in order across the halves takes instructions that
// only one or two units of a core execute. If all arrays are in bfloat16, these instructions are not needed: elements 4
// to 7 and 8 to 11 change places when they become float, and change back when they are packed. Since this happens in
// every array, it makes no difference to the rule.
#pragma once

#include "kernels/loop.hpp"

#if defined(INSTEP_HAS_SIXTEENS)
#include "kernels/format_vectors.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

constexpr std::int64_t sixteen = 16;

// Sixteen elements of an array in format F as floats: a copy, or the elements themselves.
template <class F, bool InOrder>
struct Sixteen {
    INSTEP_INLINE float* load(const std::uint16_t* from) {
        if constexpr (InOrder) {
            load_vectors(F{}, from, values_, sixteen);
        } else {
            const __m256i zero = _mm256_setzero_si256();
            const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
            _mm256_store_ps(values_, _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, stored)));
            _mm256_store_ps(values_ + sixteen / 2, _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, stored)));
        }
        return values_;
    }

    INSTEP_INLINE void store(std::uint16_t* to) const {
        if constexpr (InOrder) {
            store_vectors(F{}, to, values_, sixteen);
        } else {
            const __m256i low = rounded_to_bfloat16(values_);
            const __m256i high = rounded_to_bfloat16(values_ + sixteen / 2);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_packus_epi32(low, high));
        }
    }

private:
    alignas(32) float values_[sixteen];
};

template <bool InOrder>
struct Sixteen<Float32, InOrder> {
    INSTEP_INLINE float* load(float* from) const { return from; }
    INSTEP_INLINE const float* load(const float* from) const { return from; }
    INSTEP_INLINE void store(float* /* to */) const {}
};

// Like Update in loop.hpp, for weights or states in bfloat16.
template <class Rule, class W, class S, std::size_t... K>
struct UpdateBySixteens<Rule, W, S, std::index_sequence<K...>> {
    using Weight = typename W::Stored;
    using State = typename S::Stored;
    static constexpr bool in_order = W::format != S::format;
    using StateBlock = Sixteen<S, in_order>;

    // The following functions do nothing for states that this variant of the rule doesn't have.
    template <std::size_t Place>
    INSTEP_INLINE static float* load([[maybe_unused]] StateBlock& block, [[maybe_unused]] State* array,
                                     [[maybe_unused]] std::int64_t i) {
        if constexpr (has_state<Rule, Place>)
            return block.load(array + i);
        else
            return nullptr;
    }
    template <std::size_t Place>
    INSTEP_INLINE static void store([[maybe_unused]] const StateBlock& block, [[maybe_unused]] State* array,
                                    [[maybe_unused]] std::int64_t i) {
        if constexpr (has_state<Rule, Place>) block.store(array + i);
    }
    template <std::size_t Place>
    INSTEP_INLINE static void copy([[maybe_unused]] State* to, [[maybe_unused]] std::int64_t to_place,
                                   [[maybe_unused]] const State* from, [[maybe_unused]] std::int64_t from_place,
                                   [[maybe_unused]] std::size_t count) {
        if constexpr (has_state<Rule, Place>) memcpy(to + to_place, from + from_place, count * sizeof(State));
    }

    // NOLINTNEXTLINE(misc-no-recursion): once, for the remaining elements
    static void run(const Recipe& recipe, std::int64_t count, void* __restrict param, const void* __restrict grad,
                    void* average, typename OfState<K>::Array __restrict... states) {
        const Rule rule = rule_of<Rule>(recipe);
        const Around<float, 0> around(recipe);
        auto* const p = static_cast<Weight*>(param);
        const auto* const g = static_cast<const Weight*>(grad);
        State* const arrays[max_states] = {static_cast<State*>(states)...};
        std::int64_t i = 0;
        for (; i + sixteen <= count; i += sixteen) {
            Sixteen<W, in_order> param_block;
            Sixteen<W, in_order> grad_block;
            StateBlock state_blocks[max_states];
            float* const params = param_block.load(p + i);
            const float* const grads = grad_block.load(g + i);
            float* const values[max_states] = {load<K>(state_blocks[K], arrays[K], i)...};
#if defined(__GNUC__)
#pragma GCC unroll 1  // otherwise some short rules become sixteen copies instead of vectors
#endif
            for (std::int64_t k = 0; k < sixteen; ++k)
                update_element<Rule, float, Float32, Float32, 0>(rule, around, k, params, grads, nullptr, values,
                                                                 StatePlaces{});
            param_block.store(p + i);
            (store<K>(state_blocks[K], arrays[K], i), ...);
        }
        if (i == count) return;
        // The remaining elements, as the beginning of sixteen.
        const auto rest = static_cast<std::size_t>(count - i);
        Weight last_param[sixteen] = {};
        Weight last_grad[sixteen] = {};
        State last_states[max_states][sixteen] = {};
        memcpy(last_param, p + i, rest * sizeof(Weight));
        memcpy(last_grad, g + i, rest * sizeof(Weight));
        (copy<K>(last_states[K], 0, arrays[K], i, rest), ...);
        run(recipe, sixteen, last_param, last_grad, average, last_states[K]...);
        memcpy(p + i, last_param, rest * sizeof(Weight));
        (copy<K>(arrays[K], i, last_states[K], 0, rest), ...);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL

#endif
