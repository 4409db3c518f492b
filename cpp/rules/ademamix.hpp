// AdEMAMix: AdamW with a second, slower mean of the gradients.
//
// M. Pagliardini, P. Ablin, D. Grangier, "The AdEMAMix optimizer: better, faster, older", ICLR 2025, Algorithm 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct AdEMAMix {
    static constexpr const char* name = "ademamix";
    enum Hyperparameter { lr, beta1, beta2, beta3, alpha, eps, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "beta3", "alpha", "eps", "weight_decay"};
    static constexpr StateName states[] = {
        {"exp_avg_fast", true}, {"exp_avg_slow", true, of_both_signs.wide()}, {"exp_avg_sq", true, of_squares}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, beta3_, one_minus_beta3_;
    T fast_, slow_, root_correction_, eps_, decay_;

    static AdEMAMix prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(now.h[beta3]),
                T(1.0 - now.h[beta3]),
                T(now.h[lr] / correction1),
                T(now.h[lr] * now.h[alpha]),
                T(1.0 / square_root(correction2)),
                T(now.h[eps]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], true)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& a, T& b, T& v) const {
        p = p * decay_;
        a = beta1_ * a + one_minus_beta1_ * g;
        b = beta3_ * b + one_minus_beta3_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        p = p - (fast_ * a + slow_ * b) / (square_root(v) * root_correction_ + eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
