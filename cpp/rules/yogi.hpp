// Yogi: Adam whose mean square changes by a limited amount.
//
// M. Zaheer, S. Reddi, D. Sachan, S. Kale, S. Kumar, "Adaptive methods for nonconvex optimization", NeurIPS 2018,
// Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Yogi {
    static constexpr const char* name = "yogi";
    enum Hyperparameter { lr, beta1, beta2, eps, initial_accumulator_value };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "initial_accumulator_value"};
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true, of_squares}};

    T beta1_, one_minus_beta1_, one_minus_beta2_, step_size_, root_correction_, eps_, initial_;
    Choice<T> at_first_;

    static Yogi prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(1.0 - now.h[beta2]),
                T(now.h[lr] / correction1),
                T(1.0 / square_root(correction2)),
                T(now.h[eps]),
                T(now.h[initial_accumulator_value]),
                Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v) const {
        m = beta1_ * at_first_(initial_, m) + one_minus_beta1_ * g;
        v = at_first_(initial_, v);
        const T q = g * g;
        v = v - one_minus_beta2_ * (sign(v - q) * q);
        p = p - step_size_ * m / (square_root(v) * root_correction_ + eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
