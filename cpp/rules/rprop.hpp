// Rprop: each element has a step size of its own, which grows while the gradient keeps its sign.
//
// M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", ICNN
// 1993; here in the form without backtracking, as in PyTorch (iRprop-).
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Rprop {
    static constexpr const char* name = "rprop";
    enum Hyperparameter { lr, eta1, eta2, step_size1, step_size2 };
    static constexpr const char* hyperparameters[] = {"lr", "eta1", "eta2", "step_size1", "step_size2"};
    static constexpr StateName states[] = {{"prev", true, of_both_signs.wide().with(Narrow::bfloat16)},
                                           {"step_size", true, of_magnitudes.wide().with(Narrow::bfloat16)}};

    T lr_, shorter_, longer_, least_, most_;
    Choice<T> at_first_;

    static Rprop prepare(const Moment& now) {
        return {T(now.h[lr]),         T(now.h[eta1]),       T(now.h[eta2]),
                T(now.h[step_size1]), T(now.h[step_size2]), Choice<T>(now.t == 1)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& b, T& k) const {
        const T direction = sign(g);
        const T s = direction * sign(b);
        T factor = s > T(0) ? longer_ : T(1);
        factor = s < T(0) ? shorter_ : factor;
        k = clamp(at_first_(lr_, k) * factor, least_, most_);
        const T q = where(s < T(0), T(0), g);
        p = p - where(s < T(0), T(0), direction) * k;  // the sign of q
        b = q;
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
