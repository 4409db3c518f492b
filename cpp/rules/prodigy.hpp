// Prodigy: Adam that estimates the distance to the solution, and so its own learning rate.
//
// K. Mishchenko, A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024, Algorithm 4, with
// the lines of the authors' package.
#pragma once

#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned Options>
struct Prodigy {
    static constexpr const char* name = "prodigy";
    enum Hyperparameter { lr, beta1, beta2, beta3, eps, weight_decay, d0, d_coef, growth_rate };
    static constexpr const char* hyperparameters[] = {"lr",           "beta1", "beta2",  "beta3",      "eps",
                                                      "weight_decay", "d0",    "d_coef", "growth_rate"};
    static constexpr const char* options[] = {"use_bias_correction", "safeguard_warmup"};
    static constexpr unsigned use_bias_correction = 1, safeguard_warmup = 2;
    static constexpr unsigned scalar_options = use_bias_correction | safeguard_warmup;
    static constexpr bool squares = false, joint = true;
    static constexpr int most_sums = 2, sum_count = most_sums;
    static constexpr StateName states[] = {{"exp_avg", true, of_both_signs.with(Narrow::bfloat16)},
                                           {"exp_avg_sq", true, of_magnitudes.with(Narrow::bfloat16)},
                                           {"s", true, of_both_signs.wide().with(Narrow::bfloat16)},
                                           {"p0", true, of_iterates}};
    enum ScalarState { d_now, d_max, d_numerator, steps };
    static constexpr ScalarStateName scalar_states[] = {
        {"d", true}, {"d_max", true}, {"d_numerator", true}, {"k", true}};

    T beta1_, of_mean_, beta2_, of_square_, beta3_, of_sum_, decay_, rate_, eps_;
    Choice<T> at_first_, states_move_, param_moves_;

    static bool takes_part(const Moment& now) { return now.h[lr] != 0.0; }

    // The scalars of a step in double: with the old d, and the estimate that follows from the sums.
    struct Estimate {
        double d, e, share;            // before the step; e is the step size, share its part in the sums
        double next, most, numerator;  // afterwards
        double k;
        bool moves;
    };

    static double third_beta(const Moment& now) {
        return now.h[beta3] == now.h[beta3] ? now.h[beta3] : square_root(now.h[beta2]);  // NaN: not given
    }

    static Estimate estimate(const Moment& now) {
        const double k = now.states[steps] + 1.0;
        const bool starts = k == 1.0;
        const double d = starts ? now.h[d0] : now.states[d_now];
        const double most = starts ? now.h[d0] : now.states[d_max];
        const double numerator = starts ? 0.0 : now.states[d_numerator];
        const double bias = has(now, use_bias_correction)
                                ? square_root(1.0 - pow(now.h[beta2], k)) / (1.0 - pow(now.h[beta1], k))
                                : 1.0;
        const double e = d * now.h[lr] * bias;
        const double share = d / now.h[d0] * e;
        Estimate found{d, e, share, d, most, numerator, k, false};
        if (now.sums == nullptr || now.sums[1] == 0.0) return found;
        found.moves = true;
        found.numerator = third_beta(now) * numerator + share * now.sums[0];
        const double hat = now.h[d_coef] * found.numerator / now.sums[1];
        const double from = d == now.h[d0] && hat > d ? hat : d;
        found.most = hat > most ? hat : most;
        const double grown = from * now.h[growth_rate];
        found.next = grown < found.most ? grown : found.most;
        return found;
    }

    static double rate(const Moment& now) {
        const Estimate found = estimate(now);
        const bool may_move = now.sums == nullptr ? takes_part(now) : found.moves;
        return may_move ? found.e : not_a_number;
    }

    static Prodigy prepare(const Moment& now) {
        const Estimate found = estimate(now);
        const double d = found.d;
        now.states[d_now] = found.next;
        now.states[d_max] = found.most;
        now.states[d_numerator] = found.numerator;
        now.states[steps] = found.k;
        const double beta3_now = third_beta(now);
        return {T(now.h[beta1]),
                T(d * (1.0 - now.h[beta1])),
                T(now.h[beta2]),
                T(d * d * (1.0 - now.h[beta2])),
                T(beta3_now),
                T(has(now, safeguard_warmup) ? d / now.h[d0] * d : found.share),
                T(1.0 - now.h[weight_decay] * found.e),
                T(found.e),
                T(found.next * now.h[eps]),
                Choice<T>(now.t == 1),
                Choice<T>(takes_part(now)),
                Choice<T>(found.moves)};
    }

    INSTEP_INLINE void operator()(T& p, T g, T& m, T& v, T& s, T& p0) const {
        p0 = at_first_(p, p0);
        m = states_move_(beta1_ * m + of_mean_ * g, m);
        v = states_move_(beta2_ * v + of_square_ * (g * g), v);
        s = states_move_(beta3_ * s + of_sum_ * g, s);
        p = param_moves_(p * decay_ - rate_ * m / (square_root(v) + eps_), p);
    }

    INSTEP_INLINE void terms(T p, T g, T /* m */, T /* v */, T s, T p0, T* to) const {
        to[0] = g * (at_first_(p, p0) - p);
        to[1] = magnitude(beta3_ * s + of_sum_ * g);
    }
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
