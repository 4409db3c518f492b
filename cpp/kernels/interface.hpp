// What the runtime and the kernels tell each other.
//
// The kernels are compiled once per instruction-set level, so this header holds plain data and function pointers
// only: nothing here may be emitted into an object file, or the linker could merge code of one level into another.
#pragma once

#include <cstdint>

#if defined(_MSC_VER)
#define INSTEP_NOINLINE __declspec(noinline)
#else
#define INSTEP_NOINLINE __attribute__((noinline))
#endif

namespace instep {

static_assert(sizeof(void*) == sizeof(std::int64_t), "instep needs a 64-bit machine");

// How an element is stored. The arithmetic is done in the compute type: double for float64, float for the others.
enum class Format : unsigned char { float64, float32, float16, bfloat16 };
constexpr int format_count = 4;

enum class Compute : unsigned char { float32, float64 };
constexpr int compute_count = 2;

constexpr int max_hyperparameters = 8;
constexpr int max_states = 4;
constexpr int max_scalar_bytes = 128;  // the largest rule, with all its precomputed scalars

// Elements a chunk. Part of the arithmetic: the norm's order of summation follows from it (docs/semantics.md).
constexpr std::int64_t chunk_elements = 16384;
// Running sums a chunk of the norm keeps side by side; part of the arithmetic like the above.
constexpr int norm_lanes = 16;

// A strided view of one tensor, outermost axis first, neighbouring axes merged where memory allows. Strides in bytes.
struct View {
    int ndim;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// One array taking part in a step.
struct Operand {
    char* data;  // of element (0, 0, ...)
    Format format;
    const View* view;  // null: the elements lie side by side in the order of the step
};

// What happens to the gradient before the rule; each line only where its flag is set.
struct GradientTerms {
    bool scaled, clipped, negated, l2, l1;
    double scale, clip_value, l2_factor, l1_factor;
};

// The arrays of one tensor. Operands without data are left out.
struct Operands {
    Operand param, grad, states[max_states];
    Operand accumulated;  // of earlier micro-batches: the gradient is the sum of both
    Operand average;      // exponential moving average of the parameter
    Operand copy;         // the parameter once more, rounded to another format
};

// What a step does, alike for all tensors that share a rule, its hyperparameters and a step count.
struct Settings {
    GradientTerms terms;
    double average_rate;                                  // 1 - decay
    bool claims;                                          // parameters' cache lines are taken for writing ahead of use
    bool past_caches;                                     // where the copies go: the step leaves nothing there
    alignas(16) unsigned char scalars[max_scalar_bytes];  // as Variant::prepare left them
};

struct StateName {
    const char* name;
    bool used;  // by this variant
};

// A rule with one choice of its options.
struct Variant {
    bool valid;
    int state_count;
    StateName states[max_states];
    void (*prepare[compute_count])(const double* hyperparameters, std::int64_t t, void* scalars);
    // Applies the rule to elements [begin, begin + count).
    void (*sweep[compute_count])(const Operands&, const Settings&, std::int64_t begin, std::int64_t count);
};

// A rule. Variant k has option i switched on where bit i of k is set.
struct RuleFamily {
    const char* name;
    int hyperparameter_count;
    const char* hyperparameters[max_hyperparameters];
    int option_count;
    const char* const* options;
    const Variant* variants;
};

struct Level {
    const char* name;
    const char* compiled_for;  // what the compiler said of its target while it compiled this level
    int family_count;
    const RuleFamily* families;
    // All over elements [begin, begin + count), the gradient rounded to the compute type and, where there is one, added
    // to what was accumulated before.
    // Sums of squares in double, one a chunk: `begin` is a chunk's first element.
    void (*sums_of_squares[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                           std::int64_t count, double* sums);
    // The same of each element times 2^exponent, where the squares themselves would overflow or vanish.
    void (*sums_of_scaled_squares[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                                  std::int64_t count, int exponent, double* sums);
    // The largest magnitude; every element is finite.
    double (*largest[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                     std::int64_t count);
    // Whether each is finite.
    bool (*all_finite[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                      std::int64_t count);
    // into = grad, or into = accumulated + grad.
    void (*accumulate[compute_count])(const Operand& accumulated, const Operand& grad, const Operand& into,
                                      std::int64_t begin, std::int64_t count);
};

}  // namespace instep
