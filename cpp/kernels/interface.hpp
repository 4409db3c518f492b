// The interface between the runtime and the kernels.
//
// The kernels are compiled once for each instruction-set level, so this header has only plain data and function
// pointers. Nothing here may be emitted into an object file, since the linker could merge code of one level into
// another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace instep {

static_assert(sizeof(void*) == sizeof(std::int64_t), "instep needs a 64-bit machine");

// How an element is stored. The arithmetic is done in the compute type: double for float64, float for the others.
// (kernels/codecs.hpp says how a format is added.)
enum class Format : unsigned char {
    float64,
    float32,
    float16,
    bfloat16,
    root16,   // the square root, in float16
    signed8,  // signed and unsigned codes in blocks of 64 elements, with a unit for each block
    unsigned8,
    bfloat16_8,  // bfloat16 with the next 8 or 16 bits of the number in a second array
    bfloat16_16,
    rest16  // that second array itself, which no step reads alone
};
constexpr int format_count = 10;
constexpr int parameter_format_count = 4;  // the first ones: of arrays of parameters and gradients

enum class Compute : unsigned char { float32, float64 };
constexpr int compute_count = 2;

constexpr int max_hyperparameters = 12;
constexpr int max_states = 4;
constexpr int max_scalar_states = 4;
constexpr int max_sums = 2;
constexpr int max_scalar_bytes = 128;  // enough for the largest rule, with all its precomputed scalars

// Elements in a chunk. This is part of the arithmetic: the norm's order of summation follows from it
// (docs/semantics.md).
constexpr std::int64_t chunk_elements = 16384;
// The number of running sums in a chunk of the norm; part of the arithmetic, too.
constexpr int norm_lanes = 16;
constexpr std::int64_t cache_line = 64;
// Elements that share a unit: in logical order, so that it is part of the arithmetic, too. A chunk has whole blocks.
constexpr std::int64_t code_block = 64;
static_assert(chunk_elements % code_block == 0);

// A strided view of one tensor, outermost axis first, with neighbouring axes merged where memory allows. Strides are in
// bytes.
struct View {
    int ndim;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// One array that takes part in a step, and the data that belong to it.
struct Operand {
    char* data;  // of element (0, 0, ...)
    Format format;
    const View* view;           // null: the elements lie side by side in the order of the step
    char* companion = nullptr;  // the second array of some formats: units of codes, remainders of parameters
    const View* companion_view = nullptr;
    bool constant = false;  // a loop only reads it
    // Whether it is rounded by random numbers, of which stream, and by which part of them: 0 is the lower.
    bool stochastic = false;
    unsigned char stream = 0, part = 0;
};

// Streams of random numbers: one for each two states, and one for the parameter.
constexpr int stream_count = 3;
constexpr unsigned char parameter_stream = 1;

// The operations on the gradient before the rule; each is done only if its flag is set.
struct GradientTerms {
    bool scaled, clipped, negated, l2, l1;
    double scale, clip_value, l2_factor, l1_factor;  // scale is 1 if the gradient is not scaled
};

// The arrays of one tensor. Operands without data are left out.
struct Operands {
    Operand param, grad, states[max_states];  // in the place after its states, what a rule gets besides them
    Operand accumulated;                      // gradient of earlier micro-batches: the rule gets the sum of both
    Operand average;                          // exponential moving average of the parameter
    Operand copy;                             // the parameter, rounded to another format
    Operand kept;                             // what a rule keeps of the pass before its sweep
    std::int64_t first = 0;                   // the place of the first element in the whole parameter
    std::uint64_t number = 0;                 // of the parameter, for its random numbers
};

// ---- the loops of a rule ----------------------------------------------------------------------------------------

struct Recipe;

template <std::size_t /* K */>
struct OfState {
    using Array = void*;
    using Constant = const void*;
};
template <class Places>
struct LoopOver;
template <std::size_t... K>
struct LoopOver<std::index_sequence<K...>> {
    using Type = void (*)(const Recipe&, std::int64_t count, void* param, const void* grad, void* average,
                          typename OfState<K>::Array... states);
    using OfTerms = void (*)(const Recipe&, std::int64_t count, const void* param, const void* grad, void* first,
                             void* second, typename OfState<K>::Constant... states);
};
using StatePlaces = std::make_index_sequence<max_states>;

// A rule over `count` elements of arrays in which the elements lie side by side. Each array is a parameter of its own,
// because compilers honour __restrict only there. Arrays that the rule or the loop doesn't use are not read.
using Loop = LoopOver<StatePlaces>::Type;

// The terms of a rule's sums over `count` elements in the compute type, of each sum in an array of its own.
using TermLoop = LoopOver<StatePlaces>::OfTerms;

// States that a loop reads and writes itself though they are not in float, and the random numbers of their rounding.
struct OwnStates {
    void* data[max_states];
    float* units[max_states];  // of codes
    bool stochastic;
    std::uint32_t keys[stream_count][2];
    std::uint32_t counter;  // of the first element, or of the first pair of elements that are coded
};

// A rule over `count` elements, of which the parameters and gradients lie side by side in float. Its states are those
// from element `begin` of `states` on.
using StateLoop = void (*)(const Recipe&, std::int64_t begin, std::int64_t count, float* param, const float* grad,
                           const OwnStates& states);

// The work of a loop besides its rule, as bits.
constexpr unsigned with_l2 = 1;       // L2 regularisation, the last of the gradient's terms
constexpr unsigned with_average = 2;  // the parameter's moving average, after the rule
constexpr unsigned extra_count = 4;

// The ways of storage in which a loop may go over arrays where they lie. Other arrays are worked on in blocks of the
// compute type.
enum class Storage : unsigned char {
    native,            // in the compute type
    bfloat16,          // all in bfloat16
    bfloat16_states,   // parameter and gradient in float32
    bfloat16_weights,  // states in float32
    codes,             // all states in 8 bits: they alone are gone over where they lie,
    random_bfloat16,   // and so are states in bfloat16 that are rounded at random
    other
};
constexpr int storage_count = 4;  // those whose loops go over all arrays

// A variant's loops in one compute type, by the storage of the arrays and by the work besides the rule. Null means that
// blocks are used. The first loop is always there, and goes over the blocks, too.
struct Loops {
    Loop by[storage_count][extra_count];
    StateLoop of_codes, of_random_bfloat16;  // null: such states are read into blocks, too
    TermLoop terms;                          // of the rule's sums; null if it has none
    bool squares;                            // the terms are squared, in double
    Loop shown;  // puts what averaged() shows into the parameter; null if these are the averages
};

// A loop over arrays where they lie, and its assumptions about these arrays.
struct InPlace {
    Loop loop;                               // null if nothing can be done in place
    Format weights;                          // of parameter and gradient
    std::int64_t weight_bytes, state_bytes;  // of an element
    std::int64_t piece;                      // elements in the cache lines that are claimed at a time
};

// The work of a step, the same for all tensors that share a rule, hyperparameters, a step count and the way of storage.
struct Recipe {
    GradientTerms terms;
    float single_scale;   // terms.scale, rounded once here: in short tensors the rounding would take noticeable time
    double average_rate;  // 1 - decay, rounded to the compute type
    double decay_factor;  // weight decay after the rule, if it decays: the parameters are multiplied by this
    double shrink;        // decoupled L1, if it shrinks: then they are shrunk towards 0 by so much
    bool decays, shrinks;
    bool claims;       // the parameters' cache lines are fetched for writing ahead of use
    bool past_caches;  // the copies are written past the caches: the step is too large for them
    bool of_matrices;  // the rule gets what has been kept, from blocks
    std::uint64_t seed;
    std::int64_t t;       // the parameters' own step
    StateLoop of_states;  // null: states are read into blocks
    bool only_states;     // that loop does all the work of the step
    TermLoop terms_of_sums;
    bool squares;
    int sum_count;
    unsigned extras;  // the work of the loop over blocks besides the rule
    Loop in_blocks;
    InPlace in_place;
    alignas(16) unsigned char scalars[max_scalar_bytes];  // as Variant::prepare wrote them
};

// ---- rules -------------------------------------------------------------------------------------------------------

// Which formats narrower than the compute type may hold a state; docs/semantics.md says why.
enum class Narrow : unsigned char {
    any,
    bfloat16,  // but not float16, whose range is too small
    none,      // a difference of states would vanish in the rounding
    iterate    // none: it is as exact as the parameter, and stays in the compute type if the others are narrowed
};

// How a state in 16 bits is rounded: as the caller chooses, or always in one way, since it would be useless in the
// other: a maximum would keep every rounding up, and a sum rounded to nearest ceases to grow.
enum class Rounding : unsigned char { chosen, nearest, stochastic };

// How a state may be stored, besides in the compute type.
struct StateKind {
    Narrow narrow = Narrow::any;
    bool is_signed = true;   // else it is never negative
    bool eight_bits = true;  // else it stays in the compute type where the others are coded
    bool root = false;       // float16 holds its square root
    Rounding in_16_bits = Rounding::chosen;

    constexpr StateKind with(Narrow other) const { return {other, is_signed, eight_bits, root, in_16_bits}; }
    constexpr StateKind with(Rounding other) const { return {narrow, is_signed, eight_bits, root, other}; }
    constexpr StateKind never_negative() const { return {narrow, false, eight_bits, root, in_16_bits}; }
    constexpr StateKind wide() const { return {narrow, is_signed, false, root, in_16_bits}; }
};
constexpr StateKind of_both_signs{};
constexpr StateKind of_magnitudes{Narrow::any, false};
constexpr StateKind of_squares{Narrow::any, false, true, true};
constexpr StateKind of_iterates{Narrow::iterate, true, false};

struct StateName {
    const char* name;
    bool used;  // by this variant
    StateKind kind = {};
};

// A state that is one double.
struct ScalarStateName {
    const char* name;
    bool used;  // by this variant
};

// All that a rule's scalars follow from, at a step of one tensor.
struct Moment {
    const double* h;  // the hyperparameters, in the rule's order
    std::int64_t t;   // the parameter's own step, from 1
    unsigned options;
    double* states;      // the scalar states before the step; the rule leaves those after the step there
    const double* sums;  // the rule's sums; null if they have not been taken yet
    std::int64_t size;   // elements of the tensor
    std::int64_t rows = 0, columns = 0;  // of a matrix
};

// A rule with one choice of options.
struct Variant {
    bool valid;
    int state_count;
    StateName states[max_states];
    ScalarStateName scalar_states[max_scalar_states];
    int sum_count;        // over a tensor, before its sweep
    bool joint;           // the sums are over all tensors, which share the scalar states
    bool of_each_tensor;  // tensors can't share the rule's scalars
    bool of_matrices;     // the rule takes tensors with two axes, and something is done with what it keeps
    // Computes the rule's scalars; options that change nothing else have no loops of their own.
    void (*prepare[compute_count])(const Moment&, void* scalars);
    // The rate of decoupled L1; NaN if the step has none. Null for the first hyperparameter, lr.
    double (*rate)(const Moment&);
    // Whether a tensor takes part in sums over all tensors. Null: each does.
    bool (*takes_part)(const Moment&);
    const Loops* loops[compute_count];
};

// A rule. In variant k, option i is on if bit i of k is set.
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
    const char* compiled_for;  // the compiler's description of its target for this level
    int family_count;
    const RuleFamily* const* families;  // the same rules, in the same order, at every level
    // Applies a rule to elements [begin, begin + count).
    void (*sweep[compute_count])(const Operands&, const Recipe&, std::int64_t begin, std::int64_t count);
    // The rule's sums over the chunks of a stretch, max_sums for each; the arrays in logical order.
    void (*rule_sums[compute_count])(const Operands&, const Recipe&, std::int64_t begin, std::int64_t count,
                                     double* sums);
    // All of the following functions go over elements [begin, begin + count) of the gradient, rounded to the compute
    // type and, if there is an accumulated gradient, added to it. Sums of squares in double, one for each chunk:
    // `begin` is the first element of a chunk.
    void (*sums_of_squares[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                           std::int64_t count, double* sums);
    // The same with each element times 2^exponent, for squares that would otherwise overflow or vanish.
    void (*sums_of_scaled_squares[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                                  std::int64_t count, int exponent, double* sums);
    // The largest magnitude; every element must be finite.
    double (*largest[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                     std::int64_t count);
    // Whether every element is finite.
    bool (*all_finite[compute_count])(const Operand& accumulated, const Operand& grad, std::int64_t begin,
                                      std::int64_t count);
    // into = grad, or into = accumulated + grad.
    void (*accumulate[compute_count])(const Operand& accumulated, const Operand& grad, const Operand& into,
                                      std::int64_t begin, std::int64_t count);
};

}  // namespace instep
