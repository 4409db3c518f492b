// Schedule-free AdamW.
//
// A. Defazio et al., "The road less scheduled", NeurIPS 2024; schedule_free.hpp has the shared lines.
#pragma once

#include "rules/schedule_free.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct ScheduleFreeAdamW {
    static constexpr const char* name = "schedule_free_adamw";
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay, r, weight_lr_power };
    static constexpr const char* hyperparameters[] = {"lr",           "beta1", "beta2",          "eps",
                                                      "weight_decay", "r",     "weight_lr_power"};
    static constexpr StateName states[] = {{"z", true, of_iterates}, {"exp_avg_sq", true, of_squares}};
    static constexpr ScalarStateName scalar_states[] = {{"lr_max", true}, {"weight_sum", true}};

    ScheduleFree<T> free_;
    T beta2_, one_minus_beta2_, root_correction_, eps_;

    static ScheduleFreeAdamW prepare(const Moment& now) {
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        const double share = share_of_average(now, now.h[lr], now.h[r], now.h[weight_lr_power]);
        return {ScheduleFree<T>::prepare(now, now.h[lr], now.h[beta1], now.h[weight_decay], share), T(now.h[beta2]),
                T(1.0 - now.h[beta2]), T(1.0 / square_root(correction2)), T(now.h[eps])};
    }

    INSTEP_INLINE void operator()(T& y, T g, T& z, T& v) const {
        free_.start(y, z);
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        free_.move(y, z, g / (square_root(v) * root_correction_ + eps_));
    }

    INSTEP_INLINE T shown(T y, T z, T /* v */) const { return free_.average(y, z); }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
