// The definition of a rule.
//
// A struct template over the compute type T (float or double) and a bit set of its options, holding its scalars:
//
//   name                       the name in Python and in the registry
//   hyperparameters            their names
//   options                    their names; option i is bit i
//   scalar_options             the bits of the options that change only the scalars: they need no loop
//   states                     their names, in the order of operator()'s arguments, which of them these options
//                              use, and how each may be stored (StateKind)
//   scalar_states              the names of states that are one double, and which of them these options use
//   valid                      whether this choice of options makes sense
//   hot                        whether this choice is used so often that its loop is also made with L2, with the
//                              average and for bfloat16 (docs/speed.md says what each is worth); others use blocks
//   prepare(now)               the rule's scalars from the hyperparameters, the parameter's step t >= 1, the bits of
//                              all options that are on, the scalar states, which it replaces, and the sums; computed
//                              in double and rounded to T once
//   operator()(p, g, states...) the formula for one element, in the paper's notation; a state that the options leave
//                              unused must not be touched; INSTEP_INLINE, like all that it calls (inlining.hpp)
//   rate(now)                  the learning rate of decoupled L1, NaN if the step has none; left out if it is lr, the
//                              first hyperparameter
//   sum_count                  the number of sums over the tensor that a step needs before its sweep with these
//                              options; a rule with sums is prepared a second time when they are known
//   terms(p, g, states..., to) an element's terms of the sums; nothing is changed. With `squares` they are squared, in
//                              double; most_sums is their number with any options
//   joint                      whether the sums are over all tensors of the rule together, which then share the scalar
//                              states
//   takes_part(now)            whether a tensor takes part in joint sums; left out if each does
//   of_matrices                whether the rule is for tensors with two axes: the term of its sum is kept, Python
//                              makes something of it, and operator() gets this after the states
//   shown(p, states...)        what averaged() shows in place of p, if this is not the average of ema_decay
//
// A rule leaves out the parts that it doesn't need: then lists are empty, valid is true, and hot is false. An option
// may change only scalars, by a factor that is 1 or a term that is 0 without the option. Unless it is plain that no
// bit changes then, a comment says why: 0 times infinity is NaN, and -0 + 0 is +0.
//
// A rule has no loop, no threads and no formats. A new rule needs a header, a .cpp beside it that makes its table
// (such as sgd.cpp; CMake finds it), and the parts that CONTRIBUTING.md lists under "Adding a rule".
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// beta^t as Python's ** computes it: with pow of the C library.
inline double power(double base, std::int64_t exponent) { return pow(base, static_cast<double>(exponent)); }

inline bool has(const Moment& now, unsigned option) { return (now.options & option) != 0; }

// The factor of decoupled weight decay; without it 1, which changes no bit.
template <class T>
T decay_factor(double lr, double weight_decay, bool decoupled) {
    return decoupled ? T(1.0 - lr * weight_decay) : T(1);
}

constexpr double unlimited = HUGE_VAL;
constexpr double not_a_number = NAN;

}  // namespace
}  // namespace instep::INSTEP_LEVEL
