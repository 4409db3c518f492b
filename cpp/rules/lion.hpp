// Lion: the sign of a mean of the gradients.
//
// X. Chen, C. Liang, D. Huang, E. Real, K. Wang, Y. Liu, H. Pham, X. Dong, T. Luong, C. Hsieh, Y. Lu, Q. V. Le,
// "Symbolic discovery of optimization algorithms", NeurIPS 2023, Program 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Lion {
    static constexpr const char* name = "lion";
    enum Hyperparameter { lr, beta1, beta2, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "weight_decay"};
    static constexpr StateName states[] = {{"exp_avg", true}};

    T lr_, beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, decay_;

    static Lion prepare(const Moment& now) {
        return {T(now.h[lr]),    T(now.h[beta1]),       T(1.0 - now.h[beta1]),
                T(now.h[beta2]), T(1.0 - now.h[beta2]), decay_factor<T>(now.h[lr], now.h[weight_decay], true)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m) const {
        p = p * decay_;
        p = p - lr_ * sign(beta1_ * m + one_minus_beta1_ * g);
        m = beta2_ * m + one_minus_beta2_ * g;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
