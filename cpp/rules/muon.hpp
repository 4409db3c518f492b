// Muon: momentum whose step over a matrix is made orthogonal.
//
// K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; J. Liu et al., "Muon is scalable
// for LLM training", 2025 (the decay, and the factor that matches AdamW's). The direction u is kept in the first pass,
// made orthogonal outside (instep/optimizers/newton_schulz.py), and comes back as x.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Muon {
    static constexpr const char* name = "muon";
    enum Hyperparameter { lr, momentum, weight_decay };
    static constexpr const char* hyperparameters[] = {
        "lr", "momentum", "weight_decay", "ns_steps", "ns_coefficient1", "ns_coefficient2", "ns_coefficient3", "eps"};
    static constexpr const char* options[] = {"nesterov", "adjust_lr"};
    static constexpr unsigned nesterov = 1, original = 2, scalar_options = nesterov | original;
    static constexpr bool squares = true, of_matrices = true;
    static constexpr int most_sums = 1, sum_count = most_sums;
    static constexpr StateName states[] = {{"momentum_buffer", true}};

    T momentum_, one_minus_momentum_, decay_, rate_;
    Choice<T> looks_ahead_;

    // Of "match_rms_adamw" or, with the option, "original".
    static double adjustment(const Moment& now) {
        const auto rows = static_cast<double>(now.rows);
        const auto columns = static_cast<double>(now.columns);
        if (has(now, original)) return square_root(rows > columns ? rows / columns : 1.0);
        return 0.2 * square_root(rows > columns ? rows : columns);
    }

    static Muon prepare(const Moment& now) {
        return {T(now.h[momentum]), T(1.0 - now.h[momentum]), T(1.0 - now.h[lr] * now.h[weight_decay]),
                T(now.h[lr] * adjustment(now)), Choice<T>(has(now, nesterov))};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& b, T x) const {
        b = momentum_ * b + one_minus_momentum_ * g;
        p = p * decay_;
        p = p - rate_ * x;
    }

    // The direction, which is kept.
    INSTEP_INLINE void terms(T /* p */, T g, T b, T* to) const {
        b = momentum_ * b + one_minus_momentum_ * g;
        to[0] = looks_ahead_(one_minus_momentum_ * g + momentum_ * b, b);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
