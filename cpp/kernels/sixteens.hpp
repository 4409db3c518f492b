// The rule by AVX2 where arrays are in bfloat16: sixteen elements at a time.
//
// Of the loop over single elements GCC makes one that shuffles each vector more often than need be. AVX2's shuffles
// stay within the halves of a vector, and putting elements in order across them takes instructions that only one or two
// units of a core execute. Where all arrays are in bfloat16 they do without: elements 4 to 7 and 8 to 11 change places
// when they become float and change back when they are packed. As they do so in every array, the rule doesn't notice.
#pragma once

#if defined(__AVX2__) && !defined(__AVX512F__)
#define INSTEP_HAS_SIXTEENS

#include "kernels/formats.hpp"
#include "kernels/states.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

constexpr std::int64_t sixteen = 16;

// Sixteen elements of an array in format F as floats: a copy, or the elements themselves.
template <class F, bool InOrder>
struct Sixteen {
    float* load(const std::uint16_t* from) {
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

    void store(std::uint16_t* to) const {
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
    float* load(float* from) const { return from; }
    const float* load(const float* from) const { return from; }
    void store(float* /* to */) const {}
};

// As `update` in sweep.hpp, for weights or states in bfloat16.
template <class Rule, class W, class S>
// NOLINTNEXTLINE(misc-no-recursion): once, for what is left over
INSTEP_NOINLINE void update_by_sixteens(const unsigned char* scalars, const float scale, std::int64_t count,
                                        typename W::Stored* __restrict p, const typename W::Stored* __restrict g,
                                        typename S::Stored* __restrict s0, typename S::Stored* __restrict s1,
                                        typename S::Stored* __restrict s2, typename S::Stored* __restrict s3) {
    using Weight = typename W::Stored;
    using State = typename S::Stored;
    constexpr bool in_order = W::format != S::format;
    Rule rule;
    std::memcpy(static_cast<void*>(&rule), scalars, sizeof rule);
    State* const states[max_states] = {s0, s1, s2, s3};
    std::int64_t i = 0;
    for (; i + sixteen <= count; i += sixteen) {
        Sixteen<W, in_order> param_block;
        Sixteen<W, in_order> grad_block;
        Sixteen<S, in_order> state_blocks[max_states];
        float* const params = param_block.load(p + i);
        const float* const grads = grad_block.load(g + i);
        float* s[max_states] = {};
        for_each_state<Rule>([&](int k) { s[k] = state_blocks[k].load(states[k] + i); });
#if defined(__GNUC__)
#pragma GCC unroll 1  // or some short rules become sixteen copies before they could become vectors
#endif
        for (std::int64_t k = 0; k < sixteen; ++k)
            update_element<Rule, float, Float32, Float32>(rule, scale, k, params, grads, s[0], s[1], s[2], s[3]);
        param_block.store(p + i);
        for_each_state<Rule>([&](int k) { state_blocks[k].store(states[k] + i); });
    }
    if (i == count) return;
    // What is left over, as the beginning of sixteen.
    const auto rest = static_cast<std::size_t>(count - i);
    Weight last_param[sixteen] = {};
    Weight last_grad[sixteen] = {};
    State last_states[max_states][sixteen] = {};
    std::memcpy(last_param, p + i, rest * sizeof(Weight));
    std::memcpy(last_grad, g + i, rest * sizeof(Weight));
    for_each_state<Rule>([&](int k) { std::memcpy(last_states[k], states[k] + i, rest * sizeof(State)); });
    update_by_sixteens<Rule, W, S>(scalars, scale, sixteen, last_param, last_grad, last_states[0], last_states[1],
                                   last_states[2], last_states[3]);
    std::memcpy(p + i, last_param, rest * sizeof(Weight));
    for_each_state<Rule>([&](int k) { std::memcpy(states[k] + i, last_states[k], rest * sizeof(State)); });
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL

#endif
