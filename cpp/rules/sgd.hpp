// Stochastic gradient descent with momentum.
//
// B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964 (momentum).
// I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning",
// ICML 2013 (Nesterov's momentum; the form with the learning rate inside the velocity).
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct SGD {
    static constexpr const char* name = "sgd";
    enum Hyperparameter { lr, momentum, dampening, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "momentum", "dampening", "weight_decay"};
    static constexpr const char* options[] = {"momentum", "nesterov", "lr_in_velocity", "decoupled_decay"};
    static constexpr bool has_momentum = Options & 1, nesterov = Options & 2;
    static constexpr unsigned lr_in_velocity = 4, decoupled_decay = 8;
    static constexpr unsigned scalar_options = lr_in_velocity | decoupled_decay;
    static constexpr bool valid = has_momentum || (Options & ~decoupled_decay) == 0;
    static constexpr bool hot = true;
    static constexpr StateName states[] = {{"momentum_buffer", has_momentum}};

    // within_: factor of the gradient in the velocity. beside_: with nesterov, factor of the gradient added to the
    // velocity. outer_: factor of the difference that the parameter loses.
    T within_, beside_, outer_;
    T momentum_, decay_;
    Choice<T> at_first_;

    static SGD prepare(const Moment& now) {
        const T rate = T(now.h[lr]);
        const T decay = decay_factor<T>(now.h[lr], now.h[weight_decay], has(now, decoupled_decay));
        if (has(now, lr_in_velocity)) return {rate, rate, T(1), T(now.h[momentum]), decay, Choice<T>(false)};
        return {T(1.0 - now.h[dampening]), T(1), rate, T(now.h[momentum]), decay, Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& b) const {
        p = p * decay_;
        if constexpr (has_momentum) {
            b = at_first_(g, momentum_ * b + within_ * g);
            p = p - outer_ * (nesterov ? beside_ * g + momentum_ * b : b);
        } else {
            p = p - outer_ * g;
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
