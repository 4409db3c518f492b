// RMSprop.
//
// T. Tieleman, G. Hinton, "Lecture 6.5 - rmsprop", Neural Networks for Machine Learning, 2012.
// A. Graves, "Generating sequences with recurrent neural networks", 2013 (centred, with momentum).
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct RMSprop {
    static constexpr const char* name = "rmsprop";
    enum Hyperparameter { lr, alpha, eps, momentum, initial_square_avg, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr",          "alpha", "eps", "momentum", "initial_square_avg",
                                                      "weight_decay"};
    static constexpr const char* options[] = {"centered", "momentum", "eps_inside_sqrt", "lr_in_velocity",
                                              "decoupled_decay"};
    static constexpr bool centered = Options & 1, has_momentum = Options & 2;
    static constexpr unsigned eps_inside_sqrt = 4, lr_in_velocity = 8, decoupled_decay = 16;
    static constexpr unsigned scalar_options = eps_inside_sqrt | lr_in_velocity | decoupled_decay;
    static constexpr bool valid = has_momentum || (Options & lr_in_velocity) == 0;
    static constexpr bool hot = (Options & ~scalar_options) == 0;
    // With centered, v - a * a vanishes if the two are rounded.
    static constexpr Narrow narrow = centered ? Narrow::none : Narrow::any;
    static constexpr StateName states[] = {{"square_avg", true, of_squares.with(narrow)},
                                           {"grad_avg", centered, of_both_signs.wide().with(narrow)},
                                           {"momentum_buffer", has_momentum, of_both_signs.with(narrow)}};

    // within_: factor of the quotient in the buffer. outer_: factor of what the parameter loses.
    T within_, outer_, alpha_, one_minus_alpha_, eps_inside_, eps_outside_, momentum_, initial_, decay_;
    Choice<T> at_first_;

    static RMSprop prepare(const Moment& now) {
        const bool inside = has(now, eps_inside_sqrt);
        const bool in_velocity = has(now, lr_in_velocity);
        return {in_velocity ? T(now.h[lr]) : T(1),
                in_velocity ? T(1) : T(now.h[lr]),
                T(now.h[alpha]),
                T(1.0 - now.h[alpha]),
                inside ? T(now.h[eps]) : T(0),
                inside ? T(0) : T(now.h[eps]),
                T(now.h[momentum]),
                T(now.h[initial_square_avg]),
                decay_factor<T>(now.h[lr], now.h[weight_decay], has(now, decoupled_decay)),
                Choice<T>(now.t == 1 && now.h[initial_square_avg] != 0)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& v, T& a, T& b) const {
        p = p * decay_;
        v = alpha_ * at_first_(initial_, v) + one_minus_alpha_ * (g * g);
        T u = v;
        if constexpr (centered) {
            a = alpha_ * a + one_minus_alpha_ * g;
            u = maximum(v - a * a, T(0));
        }
        // Adding 0 changes no bit, since neither u nor the root is ever -0.
        const T d = square_root(u + eps_inside_) + eps_outside_;
        if constexpr (has_momentum) {
            b = momentum_ * b + within_ * (g / d);
            p = p - outer_ * b;
        } else {
            p = p - outer_ * (g / d);
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
