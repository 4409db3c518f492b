// LARS: momentum whose step is as long as a share of the tensor that it changes.
//
// Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017, Algorithm 1.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct LARS {
    static constexpr const char* name = "lars";
    enum Hyperparameter { lr, momentum, dampening, weight_decay, trust_coefficient, eps };
    static constexpr const char* hyperparameters[] = {"lr",           "momentum",          "dampening",
                                                      "weight_decay", "trust_coefficient", "eps"};
    static constexpr const char* options[] = {"momentum", "nesterov", "trust_ratio"};
    static constexpr bool has_momentum = Options & 1, nesterov = Options & 2;
    static constexpr unsigned trust_ratio = 4, scalar_options = trust_ratio;
    static constexpr bool valid = has_momentum || !nesterov;
    static constexpr bool squares = true;
    static constexpr int most_sums = 2, sum_count = (Options & trust_ratio) != 0 ? most_sums : 0;
    static constexpr StateName states[] = {{"momentum_buffer", has_momentum}};

    T lr_, momentum_, within_, weight_decay_, ratio_;
    Choice<T> at_first_, decays_;

    static LARS prepare(const Moment& now) {
        double ratio = 1.0;
        if (now.sums != nullptr && now.sums[0] > 0.0 && now.sums[1] > 0.0) {
            const double of_param = square_root(now.sums[0]);
            const double of_gradient = square_root(now.sums[1]);
            ratio = now.h[trust_coefficient] * of_param / (of_gradient + now.h[weight_decay] * of_param + now.h[eps]);
        }
        return {T(now.h[lr]),
                T(now.h[momentum]),
                T(1.0 - now.h[dampening]),
                T(now.h[weight_decay]),
                T(ratio),
                Choice<T>(now.t == 1),
                Choice<T>(now.h[weight_decay] != 0.0)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& b) const {
        const T h = decays_(g + weight_decay_ * p, g) * ratio_;
        T d = h;
        if constexpr (has_momentum) {
            b = at_first_(h, momentum_ * b + within_ * h);
            d = nesterov ? h + momentum_ * b : b;
        }
        p = p - lr_ * d;
    }

    INSTEP_INLINE void terms(T p, T g, T /* b */, T* to) const {
        to[0] = p;
        to[1] = g;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
