// What a rule is.
//
// A struct template over the compute type T (float or double) and a bit set of its options, holding its scalars:
//
//   name, hyperparameters, options, states   as Python and the registry see them; option i is bit i
//   valid                                    whether this choice of options makes sense
//   slots                                    how many states operator() takes, the length of states
//   prepare(h, t)                            the rule's scalars from hyperparameters and the parameter's step t >= 1,
//                                            computed in double and rounded to T once
//   operator()(p, g, states...)              the formula for one element, in the paper's notation; a state that the
//                                            options leave unused must not be touched
//
// No loop, no threads, no formats. A new rule needs its header here, a line in kernels/registry.hpp, a class in
// python/instep/rules and its NumPy form in tests/helpers/reference.py.
#pragma once

#include "kernels/arithmetic.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// beta^t as Python's ** computes it: the C library's pow.
inline double power(double base, std::int64_t exponent) { return pow(base, static_cast<double>(exponent)); }

}  // namespace
}  // namespace instep::INSTEP_LEVEL
