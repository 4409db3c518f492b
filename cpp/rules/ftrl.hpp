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
    static constexpr StateName states[] = {{"accumulator", true, of_iterates.never_negative()},
                                           {"linear", true, of_iterates}};

    T rate_, l1_, beside_, initial_;  // rate_: of the root in the denominator
    Choice<T> at_first_;

    static FTRL prepare(const Moment& now) {
        return {T(1.0 / now.h[lr]), T(now.h[l1]), T(now.h[beta] / now.h[lr] + now.h[weight_decay]),
                T(now.h[initial_accumulator_value]), Choice<T>(now.t == 1)};
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
