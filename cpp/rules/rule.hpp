// What a rule is.
//
// A struct template over the compute type T (float or double) and a bit set of its options, holding its scalars:
//
//   name                       as Python and the registry see it
//   hyperparameters            their names
//   options                    their names; option i is bit i
//   scalar_options             the bits of those that change nothing but the scalars: they cost no loop
//   states                     their names in the order of operator()'s arguments, and which of them these options use
//   valid                      whether this choice of options makes sense
//   hot                        whether so many use this choice that its loop is also made with L2, with the average and
//                              for bfloat16 (docs/speed.md says what each is worth); all others go by blocks there
//   prepare(h, t, chosen)      the rule's scalars from hyperparameters, the parameter's step t >= 1 and the bits of all
//                              options that are on, computed in double and rounded to T once
//   operator()(p, g, states...) the formula for one element, in the paper's notation; a state that the options leave
//                              unused must not be touched; INSTEP_INLINE, as all that it calls (inlining.hpp)
//
// What a rule does without it leaves out: lists are empty then, valid is true, hot false. Where an option changes
// scalars only, by a factor that is 1 or a term that is 0 without it, that is said in a comment unless it is plain that
// no bit changes: 0 times infinity is NaN, and -0 + 0 is +0.
//
// No loop, no threads, no formats. A new rule is this header, a .cpp beside it that makes its table (sgd.cpp), which
// CMake finds, a class in python/instep/rules and its NumPy form in tests/helpers/reference.py.
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// beta^t as Python's ** computes it: the C library's pow.
inline double power(double base, std::int64_t exponent) { return pow(base, static_cast<double>(exponent)); }

}  // namespace
}  // namespace instep::INSTEP_LEVEL
