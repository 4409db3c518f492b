// Inlining that is not left to the compiler's judgement.
//
// A rule's loop becomes vectors only when everything that it calls is inlined. Compilers inline within a budget for a
// function and for a file. Once, a change elsewhere used up this budget: every rule became eight times slower, with the
// right bits and without a warning. So every function that a loop calls is marked as always inline. The attribute
// flatten, which should inline everything that a function calls, has no effect in GCC once the budget is used up. nox
// -s levels compiles without any budget.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define INSTEP_INLINE __forceinline
#define INSTEP_NOINLINE __declspec(noinline)
#else
#define INSTEP_INLINE __attribute__((always_inline)) inline
#define INSTEP_NOINLINE __attribute__((noinline))
#endif
