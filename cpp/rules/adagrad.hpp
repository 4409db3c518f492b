// Adagrad: the gradient, divided by the root of the sum of its squares so far.
//
// J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR
// 2011.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Adagrad {
    static constexpr const char* name = "adagrad";
    enum Hyperparameter { lr, lr_decay, initial_accumulator_value, eps };
    static constexpr const char* hyperparameters[] = {"lr", "lr_decay", "initial_accumulator_value", "eps"};
    static constexpr const char* options[] = {"eps_inside_sqrt"};
    static constexpr unsigned eps_inside_sqrt = 1, scalar_options = eps_inside_sqrt;
    static constexpr StateName states[] = {{"sum", true, of_squares.wide().with(Rounding::stochastic)}};

    T lr_, initial_, eps_inside_, eps_outside_;
    Choice<T> at_first_;

    static Adagrad prepare(const Moment& now) {
        const bool inside = has(now, eps_inside_sqrt);
        return {T(now.h[lr] / (1.0 + static_cast<double>(now.t - 1) * now.h[lr_decay])),
                T(now.h[initial_accumulator_value]), inside ? T(now.h[eps]) : T(0), inside ? T(0) : T(now.h[eps]),
                Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& s) const {
        s = at_first_(initial_, s) + g * g;
        // Adding 0 changes no bit, since neither s nor the root is ever -0.
        p = p - lr_ * (g / (square_root(s + eps_inside_) + eps_outside_));
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
