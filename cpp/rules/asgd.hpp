// Averaged stochastic gradient descent.
//
// B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with the rates of
// PyTorch and of L. Bottou's sgd.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct ASGD {
    static constexpr const char* name = "asgd";
    enum Hyperparameter { lr, lambd, alpha, t0 };
    static constexpr const char* hyperparameters[] = {"lr", "lambd", "alpha", "t0"};
    static constexpr StateName states[] = {{"ax", true, of_iterates}};
    static constexpr ScalarStateName scalar_states[] = {{"eta", true}, {"mu", true}};

    T eta_, decay_, mu_;
    Choice<T> is_new_;

    static double rate(const Moment& now) { return now.t == 1 ? now.h[lr] : now.states[0]; }

    static ASGD prepare(const Moment& now) {
        const double eta = rate(now);
        const double mu = now.t == 1 ? 1.0 : now.states[1];
        const auto t = static_cast<double>(now.t);
        now.states[0] = now.h[lr] / pow(1.0 + now.h[lambd] * now.h[lr] * t, now.h[alpha]);
        now.states[1] = 1.0 / (t - now.h[t0] > 1.0 ? t - now.h[t0] : 1.0);
        return {T(eta), T(1.0 - now.h[lambd] * eta), T(mu), Choice<T>(mu == 1.0)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& a) const {
        p = p * decay_;
        p = p - eta_ * g;
        a = is_new_(p, a + mu_ * (p - a));
    }

    INSTEP_INLINE T shown(T /* p */, T a) const { return a; }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
