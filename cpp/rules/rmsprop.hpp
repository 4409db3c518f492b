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
    enum Hyperparameter { lr, alpha, eps, momentum };
    static constexpr const char* hyperparameters[] = {"lr", "alpha", "eps", "momentum"};
    static constexpr const char* options[] = {"centered", "momentum", "eps_inside_sqrt"};
    static constexpr bool centered = Options & 1, has_momentum = Options & 2;
    static constexpr unsigned eps_inside_sqrt = 4, scalar_options = eps_inside_sqrt;
    static constexpr bool hot = Options == 0;
    static constexpr StateName states[] = {
        {"square_avg", true}, {"grad_avg", centered}, {"momentum_buffer", has_momentum}};

    T lr_, alpha_, one_minus_alpha_, eps_inside_, eps_outside_, momentum_;

    static RMSprop prepare(const double* h, std::int64_t /* t */, unsigned chosen) {
        const bool inside = (chosen & eps_inside_sqrt) != 0;
        return {T(h[lr]),      T(h[alpha]), T(1.0 - h[alpha]), inside ? T(h[eps]) : T(0), inside ? T(0) : T(h[eps]),
                T(h[momentum])};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& v, T& a, T& b) const {
        v = alpha_ * v + one_minus_alpha_ * (g * g);
        T u = v;
        if constexpr (centered) {
            a = alpha_ * a + one_minus_alpha_ * g;
            u = maximum(v - a * a, T(0));
        }
        // Adding 0 changes no bit, since neither u nor the root is ever -0.
        const T d = square_root(u + eps_inside_) + eps_outside_;
        if constexpr (has_momentum) {
            b = momentum_ * b + g / d;
            p = p - lr_ * b;
        } else {
            p = p - lr_ * (g / d);
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
