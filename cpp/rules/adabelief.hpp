// AdaBelief: Adam with the variance of the gradient around its running mean.
//
// J. Zhuang, T. Tang, Y. Ding, S. Tatikonda, N. Dvornek, X. Papademetris, J. Duncan, "AdaBelief optimizer: adapting
// stepsizes by the belief in observed gradients", NeurIPS 2020, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct AdaBelief {
    static constexpr const char* name = "adabelief";
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};
    static constexpr const char* options[] = {"decoupled_decay"};
    static constexpr unsigned decoupled_decay = 1, scalar_options = decoupled_decay;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_var", true, of_squares}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, step_size_, root_correction_, eps_, decay_;

    static AdaBelief prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(now.h[lr] / correction1),
                T(1.0 / square_root(correction2)),
                T(now.h[eps]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], has(now, decoupled_decay))};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& s) const {
        p = p * decay_;
        m = beta1_ * m + one_minus_beta1_ * g;
        const T r = g - m;
        s = beta2_ * s + one_minus_beta2_ * (r * r) + eps_;
        p = p - step_size_ * m / (square_root(s) * root_correction_ + eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
