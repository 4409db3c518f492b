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
    enum Hyperparameter { lr, momentum, dampening };
    static constexpr const char* hyperparameters[] = {"lr", "momentum", "dampening"};
    static constexpr const char* options[] = {"momentum", "nesterov", "lr_in_velocity"};
    static constexpr bool has_momentum = Options & 1, nesterov = Options & 2, lr_in_velocity = Options & 4;
    static constexpr bool valid = has_momentum || !(nesterov || lr_in_velocity);
    static constexpr int slots = 1;
    static constexpr StateName states[slots] = {{"momentum_buffer", has_momentum}};

    T lr_, momentum_, undamped_;
    Choice<T> at_first_;

    static SGD prepare(const double* h, std::int64_t t) {
        return {T(h[lr]), T(h[momentum]), T(1.0 - h[dampening]), Choice<T>(t == 1)};
    }

    void operator()(T& p, T g, T& b) const {
        if constexpr (!has_momentum) {
            p = p - lr_ * g;
        } else if constexpr (lr_in_velocity) {
            b = momentum_ * b + lr_ * g;
            p = p - (nesterov ? momentum_ * b + lr_ * g : b);
        } else {
            b = at_first_(g, momentum_ * b + undamped_ * g);
            p = p - lr_ * (nesterov ? g + momentum_ * b : b);
        }
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
