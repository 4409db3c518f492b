// NAdam: Adam with Nesterov's momentum.
//
// T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016; with the schedule of momentum of its
// Algorithm 8. Without momentum_decay the form of AlgoPerf and timm.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct NAdam {
    static constexpr const char* name = "nadam";
    enum Hyperparameter { lr, beta1, beta2, eps, momentum_decay, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "momentum_decay", "weight_decay"};
    static constexpr const char* options[] = {"momentum_decay", "decoupled_decay"};
    static constexpr bool decays_momentum = Options & 1;
    static constexpr unsigned momentum_decays = 1, decoupled_decay = 2;
    static constexpr unsigned scalar_options = momentum_decays | decoupled_decay;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true, of_squares}};
    static constexpr ScalarStateName scalar_states[] = {{"mu_product", decays_momentum}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, of_gradient_, of_mean_, root_correction_, eps_, decay_;

    static NAdam prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        double of_gradient = now.h[lr] * (1.0 - now.h[beta1]) / correction1;
        double of_mean = now.h[lr] * now.h[beta1] / correction1;
        if (has(now, momentum_decays)) {
            const double mu = momentum_at(now, now.t);
            const double next_mu = momentum_at(now, now.t + 1);
            const double product = (now.t == 1 ? 1.0 : now.states[0]) * mu;
            now.states[0] = product;
            of_gradient = now.h[lr] * (1.0 - mu) / (1.0 - product);
            of_mean = now.h[lr] * next_mu / (1.0 - product * next_mu);
        }
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T(of_gradient),
                T(of_mean),
                T(1.0 / square_root(correction2)),
                T(now.h[eps]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], has(now, decoupled_decay))};
    }

    static double momentum_at(const Moment& now, std::int64_t t) {
        return now.h[beta1] * (1.0 - 0.5 * pow(0.96, static_cast<double>(t) * now.h[momentum_decay]));
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v) const {
        p = p * decay_;
        m = beta1_ * m + one_minus_beta1_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        p = p - (of_gradient_ * g + of_mean_ * m) / (square_root(v) * root_correction_ + eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
