// The parts that the schedule-free rules share.
//
// A. Defazio, X. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The road less scheduled", NeurIPS 2024. The
// parameter holds y, at which the gradient is taken; x, the average to be used, follows from y and z.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// The share of z in the average of this step; the scalar states are the largest learning rate and the sum of the
// weights.
inline double share_of_average(const Moment& now, double lr, double r, double weight_lr_power) {
    const double most = lr > now.states[0] ? lr : now.states[0];
    const double weight = pow(static_cast<double>(now.t), r) * pow(most, weight_lr_power);
    const double sum = now.states[1] + weight;
    now.states[0] = most;
    now.states[1] = sum;
    return sum == 0.0 ? 0.0 : weight / sum;
}

template <class T>
struct ScheduleFree {
    T share_, of_update_, lr_, weight_decay_, towards_x_;
    Choice<T> at_first_, decays_;

    static ScheduleFree prepare(const Moment& now, double lr, double momentum, double weight_decay, double share) {
        return {T(share),
                T(lr * (1.0 - momentum * (1.0 - share))),
                T(lr),
                T(weight_decay),
                T(1.0 - 1.0 / momentum),
                Choice<T>(now.t == 1),
                Choice<T>(weight_decay != 0.0)};
    }

    // y and z before the update, which is computed from the gradient.
    INSTEP_INLINE void start(T y, T& z) const { z = at_first_(y, z); }

    INSTEP_INLINE void move(T& y, T& z, T u) const {
        u = decays_(u + weight_decay_ * y, u);
        y = y + share_ * (z - y);
        y = y - of_update_ * u;
        z = z - lr_ * u;
    }

    INSTEP_INLINE T average(T y, T z) const { return y + towards_x_ * (z - y); }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
