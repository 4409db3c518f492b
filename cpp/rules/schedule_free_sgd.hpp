// Schedule-free stochastic gradient descent.
//
// A. Defazio et al., "The road less scheduled", NeurIPS 2024; schedule_free.hpp has the shared lines.
#pragma once

#include "rules/schedule_free.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct ScheduleFreeSGD {
    static constexpr const char* name = "schedule_free_sgd";
    enum Hyperparameter { lr, momentum, weight_decay, r, weight_lr_power };
    static constexpr const char* hyperparameters[] = {"lr", "momentum", "weight_decay", "r", "weight_lr_power"};
    static constexpr StateName states[] = {{"z", true, of_iterates}};
    static constexpr ScalarStateName scalar_states[] = {{"lr_max", true}, {"weight_sum", true}};

    ScheduleFree<T> free_;

    static ScheduleFreeSGD prepare(const Moment& now) {
        const double share = share_of_average(now, now.h[lr], now.h[r], now.h[weight_lr_power]);
        return {ScheduleFree<T>::prepare(now, now.h[lr], now.h[momentum], now.h[weight_decay], share)};
    }

    INSTEP_INLINE void operator()(T& y, T g, T& z) const {
        free_.start(y, z);
        free_.move(y, z, g);
    }

    INSTEP_INLINE T shown(T y, T z) const { return free_.average(y, z); }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
