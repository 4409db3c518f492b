// What the runtime and the kernels tell each other.
//
// The kernels are compiled once per instruction-set level, so this header holds plain data and function pointers
// only: nothing here may be emitted into an object file, or the linker could merge code of one level into another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace instep {

static_assert(sizeof(void*) == sizeof(std::int64_t), "instep needs a 64-bit machine");

// How an element is stored. The arithmetic is done in the compute type: double for float64, float for the others.
// (kernels/codecs.hpp says how a format is added.)
enum class Format : unsigned char { float64, float32, float16, bfloat16 };
constexpr int format_count = 4;

enum class Compute : unsigned char { float32, float64 };
constexpr int compute_count = 2;

constexpr int max_hyperparameters = 12;
constexpr int max_states = 4;
constexpr int max_scalar_bytes = 128;  // the largest rule, with all its precomputed scalars

// Elements a chunk. Part of the arithmetic: the norm's order of summation follows from it (docs/semantics.md).
constexpr std::int64_t chunk_elements = 16384;
// Running sums a chunk of the norm keeps side by side; part of the arithmetic like the above.
constexpr int norm_lanes = 16;
constexpr std::int64_t cache_line = 64;

// A strided view of one tensor, outermost axis first, neighbouring axes merged where memory allows. Strides in bytes.
struct View {
    int ndim;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// One array taking part in a step, and what belongs to it.
struct Operand {
    char* data;  // of element (0, 0, ...)
    Format format;
    const View* view;           // null: the elements lie side by side in the order of the step
    char* companion = nullptr;  // a second array without which some formats can't be read; none of today's has one
};

// What happens to the gradient before the rule; each line only where its flag is set.
struct GradientTerms {
    bool scaled, clipped, negated, l2, l1;
    double scale, clip_value, l2_factor, l1_factor;  // scale is 1 where the gradient is not scaled
};

// The arrays of one tensor. Operands without data are left out.
struct Operands {
    Operand param, grad, states[max_states];
    Operand accumulated;  // of earlier micro-batches: the gradient is the sum of both
    Operand average;      // exponential moving average of the parameter
    Operand copy;         // the parameter once more, rounded to another format
};

// ---- the loops of a rule ----------------------------------------------------------------------------------------

struct Recipe;

template <std::size_t /* K */>
struct OfState {
    using Array = void*;
};
template <class Places>
struct LoopOver;
template <std::size_t... K>
struct LoopOver<std::index_sequence<K...>> {
    using Type = void (*)(const Recipe&, std::int64_t count, void* param, const void* grad, void* average,
                          typename OfState<K>::Array... states);
};
using StatePlaces = std::make_index_sequence<max_states>;

// A rule over so many elements of arrays in which they lie side by side. Each array is a parameter of its own because
// that is where compilers honour __restrict. Those that the rule or the loop does without are not looked at.
using Loop = LoopOver<StatePlaces>::Type;

// What a loop does beside its rule, as bits.
constexpr unsigned with_l2 = 1;       // L2 regularisation, the last of the gradient's terms
constexpr unsigned with_average = 2;  // the parameter's moving average follows
constexpr unsigned extra_count = 4;

// How arrays are stored that a loop may go over where they lie. Others are worked on in blocks of the compute type.
enum class Storage : unsigned char {
    native,            // in the compute type
    bfloat16,          // all in bfloat16
    bfloat16_states,   // parameter and gradient in float32
    bfloat16_weights,  // states in float32
    other
};
constexpr int storage_count = 4;  // without `other`

// A variant's loops in one compute type, by how arrays are stored and by what is done beside the rule; null: done by
// blocks. The first is always there, and goes over the blocks too.
struct Loops {
    Loop by[storage_count][extra_count];
};

// A loop over arrays where they lie, and of the arrays what it takes for granted.
struct InPlace {
    Loop loop;                               // null where nothing can be done in place
    Format weights;                          // of parameter and gradient
    std::int64_t weight_bytes, state_bytes;  // of an element
    std::int64_t piece;                      // elements in so many cache lines as are claimed at a time
};

// What a step does, alike for all tensors that share a rule, its hyperparameters, a step count and how they are stored.
struct Recipe {
    GradientTerms terms;
    float single_scale;   // terms.scale once more: of a short tensor, rounding it shows
    double average_rate;  // 1 - decay
    bool claims;          // parameters' cache lines are taken for writing ahead of use
    bool past_caches;     // where the copies go: the step leaves nothing there
    unsigned extras;      // what the loop over blocks does beside the rule
    Loop in_blocks;
    InPlace in_place;
    alignas(16) unsigned char scalars[max_scalar_bytes];  // as Variant::prepare left them
};

// ---- rules -------------------------------------------------------------------------------------------------------

struct StateName {
    const char* name;
    bool used;  // by this variant
};

// A rule with one choice of its options.
struct Variant {
    bool valid;
    int state_count;
    StateName states[max_states];
    // The rule's scalars; options that change nothing else have no loops of their own.
    void (*prepare[compute_count])(const double* hyperparameters, std::int64_t t, unsigned options, void* scalars);
    const Loops* loops[compute_count];
};

// A rule. Variant k has option i switched on where bit i of k is set.
struct RuleFamily {
    const char* name;
    int hyperparameter_count;
    const char* const* hyperparameters;
    int option_count;
    const char* const* options;
    const Variant* variants;
};

struct Level {
    const char* name;
    const char* compiled_for;  // what the compiler said of its target while it compiled this level
    int family_count;
    const RuleFamily* const* families;  // alike at every level
    // Applies a rule to elements [begin, begin + count).
    void (*sweep[compute_count])(const Operands&, const Recipe&, std::int64_t begin, std::int64_t count);
    // All of the following go over elements [begin, begin + count) of the gradient, rounded to the compute type and,
    // where there is one, added to what was accumulated before.
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
