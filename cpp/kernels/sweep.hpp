// A rule over a stretch of a tensor: over the arrays where they lie, or by blocks. Compiled once for each compute type,
// for all rules.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/gradient_terms.hpp"
#include "kernels/gradients.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// The address of element `begin` of an array whose elements have `bytes` bytes. If there is no array, the result is not
// an address and is never read: the sum is one of integers, because nothing may be added to a null pointer.
inline void* element(const Operand& operand, std::int64_t begin, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(operand.data) + static_cast<std::uintptr_t>(begin * bytes);
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// Runs the rule over the arrays themselves. If the recipe claims the parameters, this is done in pieces, and one piece
// is claimed while an earlier one is computed. Other cores have read the parameters' cache lines, too, in the forward
// pass. On some CPUs, taking them back one store at a time costs a third of the step in a training loop with 235,146
// parameters, on others nothing (docs/speed.md). Out of the caches, claiming costs a few per cent.
template <std::size_t... K>
void sweep_in_place(const Operands& of, const Recipe& recipe, std::int64_t begin, std::int64_t count,
                    std::index_sequence<K...> /* states */) {
    const InPlace& in = recipe.in_place;
    const auto run = [&](std::int64_t from, std::int64_t length) {
        in.loop(recipe, length, element(of.param, from, in.weight_bytes), element(of.grad, from, in.weight_bytes),
                element(of.average, from, in.weight_bytes), element(of.states[K], from, in.state_bytes)...);
    };
    const std::int64_t end = begin + count;
    if (recipe.claims) {
        const std::int64_t ahead = 2 * in.piece;
        for (; begin + ahead < end; begin += in.piece) {
            const std::int64_t first = begin + ahead;
            const std::int64_t last = first + in.piece < end ? first + in.piece : end;
            const char* const stop = of.param.data + last * in.weight_bytes;
            for (const char* at = of.param.data + first * in.weight_bytes; at < stop; at += cache_line)
                claim_for_writing(at);
            run(begin, in.piece);
        }
    }
    run(begin, end - begin);
}

// The blocks of a tensor's arrays, in any layout.
template <class T, std::int64_t Size = block_elements<T>, class Places = StatePlaces>
class Blocks;

template <class T, std::int64_t Size, std::size_t... K>
class Blocks<T, Size, std::index_sequence<K...>> {
public:
    explicit Blocks(const Operands& of)
        : param_(of.param),
          grad_(of.accumulated, of.grad),
          states_{Block<T, Size>(of.states[K])...},
          average_(of.average) {}

    // Reads the blocks; the gradient is copied if it is to be changed.
    void load(std::int64_t begin, std::int64_t count, bool changes_gradient) {
        p = param_.load(begin, count);
        if (changes_gradient)
            g = changed = grad_.load_copy(begin, count);
        else
            g = grad_.load(begin, count);
        ((s[K] = states_[K].load(begin, count)), ...);
        e = average_.load(begin, count);
    }

    void store(std::int64_t begin, std::int64_t count, RandomNumbers<T, Size>& numbers) const {
        param_.store(begin, count, numbers);
        (states_[K].store(begin, count, numbers), ...);
        average_.store(begin, count);
    }

    void run(Loop loop, const Recipe& recipe, std::int64_t count) const { loop(recipe, count, p, g, e, s[K]...); }

    // Whether some elements must stay in one block.
    bool together() const {
        return param_.together() > 1 || grad_.together() > 1 || ((states_[K].together() > 1) || ...);
    }

    T* p = nullptr;
    const T* g = nullptr;
    T* changed = nullptr;  // g, if it is to be changed
    T* e = nullptr;
    T* s[max_states] = {};

private:
    Block<T, Size> param_;
    GradientBlock<T, Size> grad_;
    Block<T, Size> states_[max_states];
    Block<T, Size> average_;
};

// The states of a tensor for a loop that reads and writes them itself, from the element on that begins a chunk.
inline OwnStates own_states(const Operands& of, const Recipe& recipe, std::int64_t begin) {
    OwnStates own{};
    bool in_pairs = false;
    for (int k = 0; k < max_states; ++k) {
        const Operand& state = of.states[k];
        if (state.data == nullptr) continue;
        const Codec<float>& codec = codec_of<float>(state);
        own.data[k] = state.data + begin * codec.bytes;
        own.stochastic = own.stochastic || state.stochastic;
        if (codec.together == 1) continue;
        own.units[k] = reinterpret_cast<float*>(state.companion) + begin / code_block;
        in_pairs = true;
    }
    if (!own.stochastic) return own;
    const std::int64_t first = of.first + begin;
    const std::uint64_t counter = in_pairs ? pair_counter(first) : static_cast<std::uint64_t>(first);
    own.counter = static_cast<std::uint32_t>(counter);
    const Keys keys(of, recipe);
    for (int stream = 0; stream < stream_count; ++stream) {
        const Key key = keys.of(stream, counter);
        own.keys[stream][0] = key.low;
        own.keys[stream][1] = key.high;
    }
    return own;
}

// What is done with the blocks of a stretch, besides reading and writing them. Each block is read into the compute
// type, if it isn't in it already. While it is in the L1 cache, it goes through the gradient's terms, the rule and the
// work after the rule. `arrays` are those that are read into blocks.
template <class T, std::int64_t Size, class Update>
void sweep_blocks(const Operands& arrays, const Recipe& recipe, std::int64_t chunk_begin, std::int64_t chunk_count,
                  const GradientTerms& terms, bool has_terms, bool may_shift, Update update) {
    const bool follows = arrays.average.data != nullptr && (recipe.extras & with_average) == 0;
    const auto average_rate = static_cast<T>(recipe.average_rate);
    Blocks<T, Size> blocks(arrays);
    RandomNumbers<T, Size> numbers(arrays, recipe);
    const bool shifted = recipe.past_caches && may_shift && !blocks.together();
    const std::int64_t first = shifted ? to_next_line<T>(arrays.copy, chunk_begin) : Size;
    for_each_block<T, Size>(chunk_begin, chunk_count, first, [&](std::int64_t begin, std::int64_t count) {
        numbers.move_to(begin, count);
        blocks.load(begin, count, has_terms);
        if (has_terms) apply_terms(terms, blocks.changed, blocks.p, count);
        update(blocks, begin, count);
        if (recipe.decays) decay_all(blocks.p, static_cast<T>(recipe.decay_factor), count);
        if (recipe.shrinks) shrink_all(blocks.p, static_cast<T>(recipe.shrink), count);
        if (follows) follow_all(blocks.e, average_rate, blocks.p, count);
        blocks.store(begin, count, numbers);
        if (arrays.copy.data != nullptr)
            recipe.past_caches ? stream_block(arrays.copy, begin, count, blocks.p)
                               : store_block(arrays.copy, begin, count, blocks.p);
    });
    if (recipe.past_caches) finish_streams();
}

// For arrays of any format and layout.
template <class T>
void sweep_in_blocks(const Operands& of, Recipe recipe, std::int64_t begin, std::int64_t count) {
    GradientTerms terms = recipe.terms;
    terms.l2 = terms.l2 && (recipe.extras & with_l2) == 0;
    const bool has_terms = terms.clipped || terms.negated || terms.l2 || terms.l1;
    if (has_terms) recipe.terms.scale = recipe.single_scale = 1;  // for the loop: this comes before the other terms
    if (recipe.of_states == nullptr)
        return sweep_blocks<T, block_elements<T>>(
            of, recipe, begin, count, terms, has_terms, true,
            [&](const Blocks<T>& blocks, std::int64_t /* first */, std::int64_t length) {
                blocks.run(recipe.in_blocks, recipe, length);
            });
    if constexpr (sizeof(T) == sizeof(float)) {
        Operands arrays = of;
        for (Operand& state : arrays.states) state.data = nullptr;
        const std::int64_t end = begin + count;
        for (std::int64_t chunk = begin; chunk < end; chunk += chunk_elements) {
            const std::int64_t length = end - chunk < chunk_elements ? end - chunk : chunk_elements;
            const OwnStates states = own_states(of, recipe, chunk);
            sweep_blocks<T, long_block_elements>(
                arrays, recipe, chunk, length, terms, has_terms, false,
                [&](const Blocks<T, long_block_elements>& blocks, std::int64_t first, std::int64_t part) {
                    recipe.of_states(recipe, first - chunk, part, blocks.p, blocks.g, states);
                });
        }
    }
}

// The same if there is nothing to do but the rule, over parameters and gradients where they lie.
inline void sweep_states(const Operands& of, const Recipe& recipe, std::int64_t begin, std::int64_t count) {
    const std::int64_t end = begin + count;
    for (; begin < end; begin += chunk_elements) {
        const std::int64_t length = end - begin < chunk_elements ? end - begin : chunk_elements;
        recipe.of_states(recipe, 0, length, in_place<float>(of.param, begin), in_place<float>(of.grad, begin),
                         own_states(of, recipe, begin));
    }
}

// The rule's sums over each chunk of a stretch that begins with a chunk: max_sums numbers for each, added up in the
// order of the norm. The gradient has gone through all its terms. What the rule keeps is written.
template <class T>
void rule_sums(const Operands& of, const Recipe& recipe, std::int64_t begin, std::int64_t count, double* sums) {
    const GradientTerms& terms = recipe.terms;
    const bool has_terms = terms.scaled || terms.clipped || terms.negated || terms.l2 || terms.l1;
    Blocks<T> blocks(of);
    Block<T> kept(of.kept);
    alignas(64) T room[max_sums][block_elements<T>];
    for (; count > 0; begin += chunk_elements, count -= chunk_elements, sums += max_sums) {
        double lanes[max_sums][norm_lanes] = {};
        for_each_block<T>(
            begin, count < chunk_elements ? count : chunk_elements, [&](std::int64_t from, std::int64_t length) {
                blocks.load(from, length, has_terms);
                if (has_terms) apply_terms(terms, blocks.changed, blocks.p, length);
                T* const first = kept.there() ? kept.target(from) : room[0];
                recipe.terms_of_sums(recipe, length, blocks.p, blocks.g, first, room[1], blocks.s[0], blocks.s[1],
                                     blocks.s[2], blocks.s[3]);
                for (int k = 0; k < recipe.sum_count; ++k)
                    (recipe.squares ? add_to_lanes<true, T> : add_to_lanes<false, T>)(k == 0 ? first : room[k], length,
                                                                                      lanes[k]);
                kept.store(from, length);
            });
        for (int k = 0; k < max_sums; ++k) sums[k] = sum_of_lanes(lanes[k]);
    }
}

template <class T>
void sweep(const Operands& of, const Recipe& recipe, std::int64_t begin, std::int64_t count) {
    const bool given = of.accumulated.data == nullptr;
    const bool lies = given && of.grad.view == nullptr && of.grad.format == recipe.in_place.weights;
    if (lies && recipe.in_place.loop != nullptr) return sweep_in_place(of, recipe, begin, count, StatePlaces{});
    if (recipe.only_states && given && of.copy.data == nullptr && lies_ready<float>(of.grad) &&
        lies_ready<float>(of.param))
        return sweep_states(of, recipe, begin, count);
    sweep_in_blocks<T>(of, recipe, begin, count);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
