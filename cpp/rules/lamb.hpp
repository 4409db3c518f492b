// LAMB: Adam whose step is as long as a share of the tensor that it changes.
//
// Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR 2020, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct LAMB {
    static constexpr const char* name = "lamb";
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay, trust_clip };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "weight_decay", "trust_clip"};
    static constexpr const char* options[] = {"trust_ratio"};
    static constexpr unsigned trust_ratio = 1, scalar_options = trust_ratio;
    static constexpr bool squares = true;
    static constexpr int most_sums = 2, sum_count = (Options & trust_ratio) != 0 ? most_sums : 0;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true, of_squares}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, mean_correction_, root_correction_, eps_, weight_decay_,
        rate_;
    Choice<T> decays_;

    static LAMB prepare(const Moment& now) {
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        double ratio = 1.0;
        if (now.sums != nullptr) {
            const double of_param = now.sums[0];
            const double of_update = now.sums[1];
            if (of_param > 0.0 && of_update > 0.0) ratio = square_root(of_param) / square_root(of_update);
            ratio = now.h[trust_clip] < ratio ? now.h[trust_clip] : ratio;
        }
        return {T(now.h[beta1]),      T(1.0 - now.h[beta1]),
                T(now.h[beta2]),      T(1.0 - now.h[beta2]),
                T(1.0 / correction1), T(1.0 / square_root(correction2)),
                T(now.h[eps]),        T(now.h[weight_decay]),
                T(now.h[lr] * ratio), Choice<T>(now.h[weight_decay] != 0.0)};
    }

    // The update, from the states after the step.
    INSTEP_INLINE T update(T p, T g, T& m, T& v) const {
        m = beta1_ * m + one_minus_beta1_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        const T u = mean_correction_ * m / (square_root(v) * root_correction_ + eps_);
        return decays_(u + weight_decay_ * p, u);
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v) const { p = p - rate_ * update(p, g, m, v); }

    INSTEP_INLINE void terms(T p, T g, T m, T v, T* to) const {
        to[0] = p;
        to[1] = update(p, g, m, v);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
