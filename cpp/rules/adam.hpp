// Adam, AMSGrad and AdamW.
//
// D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1. S. J. Reddi, S. Kale, S.
// Kumar, "On the convergence of Adam and beyond", ICLR 2018 (AMSGrad; here, as in PyTorch and Keras, the maximum is
// that of the uncorrected average). I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019
// (AdamW; the decay is multiplied by the learning rate, as in other libraries).
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Adam {
    static constexpr const char* name = "adam";
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};
    static constexpr const char* options[] = {"amsgrad", "decoupled_decay", "eps_hat"};
    static constexpr bool amsgrad = Options & 1;
    static constexpr unsigned decoupled_decay = 2, eps_hat = 4, scalar_options = decoupled_decay | eps_hat;
    static constexpr bool hot = !amsgrad;
    static constexpr StateName states[] = {{"exp_avg", true}, {"exp_avg_sq", true}, {"max_exp_avg_sq", amsgrad}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, step_size_, root_correction_, eps_, decay_;

    static Adam prepare(const double* h, std::int64_t t, unsigned chosen) {
        const double correction1 = 1.0 - power(h[beta1], t);
        const double correction2 = 1.0 - power(h[beta2], t);
        const bool hat = (chosen & eps_hat) != 0;  // the paper's "epsilon hat": the root itself, not corrected
        return {T(h[beta1]),
                T(1.0 - h[beta1]),
                T(h[beta2]),
                T(1.0 - h[beta2]),
                T((hat ? h[lr] * square_root(correction2) : h[lr]) / correction1),
                hat ? T(1) : T(1.0 / square_root(correction2)),
                T(h[eps]),
                decay_factor<T>(h[lr], h[weight_decay], (chosen & decoupled_decay) != 0)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v, T& w) const {
        p = p * decay_;
        m = beta1_ * m + one_minus_beta1_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        T u = v;
        if constexpr (amsgrad) u = w = maximum(w, v);
        p = p - step_size_ * m / (square_root(u) * root_correction_ + eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
