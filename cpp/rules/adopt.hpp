// ADOPT: Adam that divides each gradient by the root mean square of the gradients before it.
//
// S. Taniguchi, K. Harada, G. Minegishi, Y. Oshima, S. C. Jeong, G. Nagahara, T. Iiyama, M. Suzuki, Y. Iwasawa, Y.
// Matsuo, "ADOPT: modified Adam can converge with any beta2 with the optimal rate", NeurIPS 2024, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct ADOPT {
    static constexpr const char* name = "adopt";
    enum Hyperparameter { lr, beta1, beta2, eps, clip_exponent, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "clip_exponent", "weight_decay"};
    static constexpr const char* options[] = {"decoupled_decay"};
    static constexpr unsigned decoupled_decay = 1, scalar_options = decoupled_decay;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true, of_squares}};

    T lr_, beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, eps_, limit_, decay_;
    Choice<T> at_first_;

    // The first step changes no parameter.
    static double rate(const Moment& now) { return now.t == 1 ? not_a_number : now.h[lr]; }

    // Without a clip_exponent (NaN) the limit is infinite, and changes no bit.
    static ADOPT prepare(const Moment& now) {
        const double exponent = now.h[clip_exponent];
        const double limit = exponent == exponent ? pow(static_cast<double>(now.t - 1), exponent) : unlimited;
        const bool decays = has(now, decoupled_decay) && now.t > 1;
        return {T(now.h[lr]),
                T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(now.h[eps]),
                T(limit),
                decay_factor<T>(now.h[lr], now.h[weight_decay], decays),
                Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v) const {
        const T n = clamp(g / maximum(square_root(v), eps_), limit_);
        const T mean = beta1_ * m + one_minus_beta1_ * n;
        m = at_first_(m, mean);
        p = at_first_(p, p * decay_ - lr_ * mean);
        v = at_first_(g * g, beta2_ * v + one_minus_beta2_ * (g * g));
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
