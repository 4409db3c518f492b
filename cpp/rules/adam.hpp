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
    enum Hyperparameter { lr, beta1, beta2, eps, weight_decay, clip_update };
    static constexpr const char* hyperparameters[] = {"lr", "beta1", "beta2", "eps", "weight_decay", "clip_update"};
    static constexpr const char* options[] = {"amsgrad", "decoupled_decay", "eps_hat", "clip_update"};
    static constexpr bool amsgrad = Options & 1;
    static constexpr unsigned decoupled_decay = 2, eps_hat = 4, clips_update = 8;
    static constexpr unsigned scalar_options = decoupled_decay | eps_hat | clips_update;
    static constexpr bool squares = false;
    static constexpr int most_sums = 1, sum_count = (Options & clips_update) != 0 ? most_sums : 0;
    static constexpr bool hot = !amsgrad;
    static constexpr StateName states[] = {{"exp_avg", true},
                                           {"exp_avg_sq", true, of_squares},
                                           {"max_exp_avg_sq", amsgrad, of_squares.wide().with(Rounding::nearest)}};

    T beta1_, one_minus_beta1_, beta2_, one_minus_beta2_, step_size_, root_correction_, eps_, decay_;
    T square_correction_;  // only for the sum

    // With clip_update the rate is lowered if the updates, as a root mean square, exceed this limit.
    static double rate(const Moment& now) {
        if (now.sums == nullptr || now.size == 0) return now.h[lr];
        const double above = square_root(now.sums[0] / static_cast<double>(now.size)) / now.h[clip_update];
        return now.h[lr] / (above > 1.0 ? above : 1.0);
    }

    static Adam prepare(const Moment& now) {
        const double lr_now = rate(now);
        const double correction1 = 1.0 - power(now.h[beta1], now.t);
        const double correction2 = 1.0 - power(now.h[beta2], now.t);
        const bool hat = has(now, eps_hat);  // the paper's "epsilon hat": the root itself, not corrected
        return {T(now.h[beta1]),
                T(1.0 - now.h[beta1]),
                T(now.h[beta2]),
                T(1.0 - now.h[beta2]),
                T((hat ? lr_now * square_root(correction2) : lr_now) / correction1),
                hat ? T(1) : T(1.0 / square_root(correction2)),
                T(now.h[eps]),
                decay_factor<T>(lr_now, now.h[weight_decay], has(now, decoupled_decay)),
                T(1.0 / correction2)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v, T& w) const {
        p = p * decay_;
        m = beta1_ * m + one_minus_beta1_ * g;
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        T u = v;
        if constexpr (amsgrad) u = w = maximum(w, v);
        p = p - step_size_ * m / (square_root(u) * root_correction_ + eps_);
    }

    // M. Wortsman et al., "Stable and low-precision training for large-scale vision-language models", NeurIPS 2023.
    INSTEP_INLINE void terms(T /* p */, T g, T /* m */, T v, T /* w */, T* to) const {
        v = beta2_ * v + one_minus_beta2_ * (g * g);
        to[0] = (g * g) / maximum(v * square_correction_, eps_ * eps_);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
