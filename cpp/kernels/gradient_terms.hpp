// What happens to a block of the gradient before the rule, in the order of docs/semantics.md.
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// The rule's loop can scale the gradient, and add L2 where that is the last term. Whether there is more to do.
inline bool need_a_pass(const GradientTerms& terms) { return terms.clipped || terms.negated || terms.l1; }

// By what the gradient is multiplied.
template <class T>
T scale_of(const GradientTerms& terms) {
    return terms.scaled ? static_cast<T>(terms.scale) : T(1);
}

template <class T>
inline T add_l2(T g, T factor, T p) {
    return g + factor * p;
}

template <class T>
void apply(const GradientTerms& terms, T* __restrict g, const T* __restrict p, std::int64_t count) {
    if (terms.scaled) {
        const T scale = scale_of<T>(terms);
        for (std::int64_t i = 0; i < count; ++i) g[i] = g[i] * scale;
    }
    if (terms.clipped) {
        const T limit = static_cast<T>(terms.clip_value);
        for (std::int64_t i = 0; i < count; ++i) g[i] = clamp(g[i], limit);
    }
    if (terms.negated) {
        for (std::int64_t i = 0; i < count; ++i) g[i] = -g[i];
    }
    if (terms.l2) {
        const T factor = static_cast<T>(terms.l2_factor);
        for (std::int64_t i = 0; i < count; ++i) g[i] = add_l2(g[i], factor, p[i]);
    }
    if (terms.l1) {
        const T factor = static_cast<T>(terms.l1_factor);
        for (std::int64_t i = 0; i < count; ++i) g[i] = g[i] + factor * sign(p[i]);
    }
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
