// Adadelta: the step is in the units of the parameter.
//
// M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, Algorithm 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Adadelta {
    static constexpr const char* name = "adadelta";
    enum Hyperparameter { lr, rho, eps };
    static constexpr const char* hyperparameters[] = {"lr", "rho", "eps"};
    static constexpr StateName states[] = {{"square_avg", true, of_squares}, {"acc_delta", true, of_squares}};

    T lr_, rho_, one_minus_rho_, eps_;

    static Adadelta prepare(const Moment& now) {
        return {T(now.h[lr]), T(now.h[rho]), T(1.0 - now.h[rho]), T(now.h[eps])};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& v, T& u) const {
        v = rho_ * v + one_minus_rho_ * (g * g);
        const T d = square_root(u + eps_) / square_root(v + eps_) * g;
        u = rho_ * u + one_minus_rho_ * (d * d);
        p = p - lr_ * d;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
