// Where the compiler's own judgement about inlining is not asked.
//
// A rule's loop becomes vectors only when everything that it calls is inlined. Compilers do that within a budget for a
// function and for a file: when a change elsewhere used it up, every rule was eight times slower, with the right bits
// and without a warning. So what a loop calls is inlined by order, each function by its own: flatten, which is to
// inline all that a function calls, GCC leaves undone where its budget is used up. nox -s levels starves it of any.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define INSTEP_INLINE __forceinline
#define INSTEP_NOINLINE __declspec(noinline)
#else
#define INSTEP_INLINE __attribute__((always_inline)) inline
#define INSTEP_NOINLINE __attribute__((noinline))
#endif
