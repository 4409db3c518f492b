// Rectified Adam.
//
// L. Liu, H. Jiang, P. He, W. Chen, X. Liu, J. Gao, J. Han, "On the variance of the adaptive learning rate and beyond",
// ICLR 2020, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct RAdam {
    static constexpr const char* name = "radam";
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};
    static constexpr const char* options[] = {"decoupled_decay"};
    static constexpr unsigned decoupled_decay = 1, scalar_options = decoupled_decay;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true, of_squares}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, step_size_, eps_, decay_;
    Choice<T> rectified_;

    static RAdam prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double power2 = power(now.h[beta2], now.t);
        const double correction2 = 1.0 - power2;
        const double longest = 2.0 / (1.0 - now.h[beta2]) - 1.0;
        const double length = longest - 2.0 * static_cast<double>(now.t) * power2 / correction2;
        const bool rectified = length > 5.0;
        double step_size = now.h[lr] / correction1;
        if (rectified) {
            const double r =
                square_root((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length));
            step_size = now.h[lr] * r * square_root(correction2) / correction1;
        }
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(step_size),
                T(now.h[eps]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], has(now, decoupled_decay)),
                Choice<T>(rectified)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v) const {
        p = p * decay_;
        m = beta1_ * m + one_minus_beta1_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        p = p - step_size_ * m / rectified_(square_root(v) + eps_, T(1));  // dividing by 1 changes no bit
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
