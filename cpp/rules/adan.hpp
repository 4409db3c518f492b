// Adan: adaptive Nesterov momentum.
//
// X. Xie, P. Zhou, H. Li, Z. Lin, S. Yan, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep
// models", 2022, Algorithm 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Adan {
    static constexpr const char* name = "adan";
    enum Hyperparameter { lr, beta1, beta2, beta3, eps, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "beta3", "eps", "weight_decay"};
    static constexpr StateName states[] = {
        {"exp_avg", true}, {"exp_avg_diff", true}, {"exp_avg_sq", true, of_squares}, {"previous_grad", true}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, beta3_, one_minus_beta3_;
    T of_mean_, of_difference_, root_correction_, eps_, decay_;
    Choice<T> at_first_;

    static Adan prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        const double correction3 = 1.0 - power(now.h[beta3], now.t);
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(now.h[beta3]),
                T(1.0 - now.h[beta3]),
                T(now.h[lr] / correction1),
                T(now.h[lr] * now.h[beta2] / correction2),
                T(1.0 / square_root(correction3)),
                T(now.h[eps]),
                T(1.0 / (1.0 + now.h[lr] * now.h[weight_decay])),
                Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& w, T& n, T& b) const {
        const T e = g - at_first_(g, b);
        m = beta1_ * m + one_minus_beta1_ * g;
        w = beta2_ * w + one_minus_beta2_ * e;
        const T q = g + beta2_ * e;
        n = beta3_ * n + one_minus_beta3_ * (q * q);
        p = p - (of_mean_ * m + of_difference_ * w) / (square_root(n) * root_correction_ + eps_);
        p = p * decay_;  // proximal: after the step
        b = g;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
