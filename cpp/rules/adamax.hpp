// Adamax: Adam with the largest magnitude in place of the root mean square.
//
// D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Adamax {
    static constexpr const char* name = "adamax";
    enum Hyperparameter { lr, beta1, beta2, eps };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps"};
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_inf", true, of_magnitudes}};

    T beta1_, one_minus_beta1_, beta2_, step_size_, eps_;

    static Adamax prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        return {T(now.h[beta1]), T(1.0 - now.h[beta1]), T(now.h[beta2]), T(now.h[lr] / correction1), T(now.h[eps])};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& u) const {
        m = beta1_ * m + one_minus_beta1_ * g;
        u = maximum(beta2_ * u, magnitude(g) + eps_);
        p = p - step_size_ * m / u;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
