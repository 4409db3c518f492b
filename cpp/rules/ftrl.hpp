// FTRL-Proximal: follow the regularised leader, with exact zeros by L1.
//
// H. B. McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, Algorithm 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct FTRL {
    static constexpr const char* name = "ftrl";
    enum Hyperparameter { lr, beta, l1, weight_decay, initial_accumulator_value };
    static constexpr const char* hyperparameters[] = {"lr", "beta", "l1", "weight_decay", "initial_accumulator_value"};
    static constexpr StateName states[] = {{"accumulator", true, Narrow::iterate}, {"linear", true, Narrow::iterate}};

    T rate_, l1_, beside_, initial_;  // rate_: of the root in the denominator
    Choice<T> at_first_;

    static FTRL prepare(const double* h, std::int64_t t, unsigned /* chosen */) {
        return {T(1.0 / h[lr]), T(h[l1]), T(h[beta] / h[lr] + h[weight_decay]), T(h[initial_accumulator_value]),
                Choice<T>(t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& n, T& z) const {
        n = at_first_(initial_, n);
        const T c = n + g * g;
        const T r = square_root(c);
        z = z + (g - (r - square_root(n)) * rate_ * p);
        p = (clamp(z, l1_) - z) / (r * rate_ + beside_);
        n = c;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
