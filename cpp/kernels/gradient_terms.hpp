// The operations on elements before the rule and after it, in the order of docs/semantics.md.
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T>
INSTEP_INLINE T add_l2(T g, T factor, T p) {
    return g + factor * p;
}

// The moving average takes a step towards the parameter, at a rate other than 1.
template <class T>
INSTEP_INLINE T follow(T average, T rate, T param) {
    return average + rate * (param - average);
}

template <class T>
void apply_terms(const GradientTerms& terms, T* __restrict g, const T* __restrict p, std::int64_t count) {
    if (terms.scaled) {
        const auto scale = static_cast<T>(terms.scale);
        for (std::int64_t i = 0; i < count; ++i) g[i] = g[i] * scale;
    }
    if (terms.clipped) {
        const auto limit = static_cast<T>(terms.clip_value);
        for (std::int64_t i = 0; i < count; ++i) g[i] = clamp(g[i], limit);
    }
    if (terms.negated) {
        for (std::int64_t i = 0; i < count; ++i) g[i] = -g[i];
    }
    if (terms.l2) {
        const auto factor = static_cast<T>(terms.l2_factor);
        for (std::int64_t i = 0; i < count; ++i) g[i] = add_l2(g[i], factor, p[i]);
    }
    if (terms.l1) {
        const auto factor = static_cast<T>(terms.l1_factor);
        for (std::int64_t i = 0; i < count; ++i) g[i] = g[i] + factor * sign(p[i]);
    }
}

template <class T>
void decay_all(T* __restrict p, T factor, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) p[i] = p[i] * factor;
}

// The parameter moves towards 0 by the amount, and stops there.
template <class T>
void shrink_all(T* __restrict p, T amount, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) p[i] = sign(p[i]) * maximum(magnitude(p[i]) - amount, T(0));
}

// At a rate of 1 the average becomes the parameter: a step would keep a NaN, and would not always reach a finite
// parameter. The rules' loops leave this rate to the blocks (choose_loops): with a choice for each element, they take
// up to a quarter longer over arrays in the caches.
template <class T>
void follow_all(T* __restrict average, T rate, const T* __restrict p, std::int64_t count) {
    if (rate == T(1)) {
        for (std::int64_t i = 0; i < count; ++i) average[i] = p[i];
    } else {
        for (std::int64_t i = 0; i < count; ++i) average[i] = follow(average[i], rate, p[i]);
    }
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
