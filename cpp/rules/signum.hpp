// Signum: the sign of the momentum; without momentum the sign of the gradient.
//
// J. Bernstein, Y. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: compressed optimisation for non-convex problems",
// ICML 2018, Algorithm 2.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Signum {
    static constexpr const char* name = "signum";
    enum Hyperparameter { lr, momentum, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "momentum", "weight_decay"};
    static constexpr const char* options[] = {"momentum"};
    static constexpr bool has_momentum = Options & 1;
    static constexpr StateName states[] = {{"momentum_buffer", has_momentum}};

    T lr_, momentum_, one_minus_momentum_, decay_;

    static Signum prepare(const Moment& now) {
        return {T(now.h[lr]), T(now.h[momentum]), T(1.0 - now.h[momentum]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], true)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& b) const {
        p = p * decay_;
        T d = g;
        if constexpr (has_momentum) d = b = momentum_ * b + one_minus_momentum_ * g;
        p = p - lr_ * sign(d);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
