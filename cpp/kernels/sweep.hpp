// A rule over a stretch of a tensor: over the arrays where they lie or by blocks. Compiled once a compute type, for all
// rules.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/gradient_terms.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Element `begin` of an array, each so many bytes long. Of an array that is not there it is no address, and never read:
// the sum is made of integers because nothing may be added to a null pointer.
inline void* element(const Operand& operand, std::int64_t begin, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(operand.data) + static_cast<std::uintptr_t>(begin * bytes);
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// Runs the rule over the arrays themselves. Where parameters are claimed, it does so in pieces, and claims one while it
// works on an earlier one: their cache lines were read by other cores too, in the forward pass, and on some CPUs taking
// them back one store at a time costs a loop of 235,146 parameters a third of its step, on others nothing
// (docs/speed.md). Out of the caches claiming costs a few in a hundred.
template <std::size_t... K>
void sweep_in_place(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count,
                    std::index_sequence<K...> /* states */) {
    const InPlace& in = settings.in_place;
    const auto run = [&](std::int64_t from, std::int64_t length) {
        in.loop(settings, length, element(of.param, from, in.weight_bytes), element(of.grad, from, in.weight_bytes),
                element(of.average, from, in.weight_bytes), element(of.states[K], from, in.state_bytes)...);
    };
    const std::int64_t end = begin + count;
    if (settings.claims) {
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

// The blocks of a tensor's arrays, wherever and however these lie.
template <class T, class Places = StatePlaces>
class Blocks;

template <class T, std::size_t... K>
class Blocks<T, std::index_sequence<K...>> {
public:
    explicit Blocks(const Operands& of)
        : param_(of.param), grad_(of.accumulated, of.grad), states_{Block<T>(of.states[K])...}, average_(of.average) {}

    // Reads the blocks; the gradient into a copy where it is to be changed.
    void load(std::int64_t begin, std::int64_t count, bool changes_gradient) {
        p = param_.load(begin, count);
        if (changes_gradient)
            g = changed = grad_.load_copy(begin, count);
        else
            g = grad_.load(begin, count);
        ((s[K] = states_[K].load(begin, count)), ...);
        e = average_.load(begin, count);
    }

    void store(std::int64_t begin, std::int64_t count) const {
        param_.store(begin, count);
        (states_[K].store(begin, count), ...);
        average_.store(begin, count);
    }

    void run(Loop loop, const Settings& settings, std::int64_t count) const { loop(settings, count, p, g, e, s[K]...); }

    // Whether some elements have to stay in one block.
    bool together() const {
        return param_.together() > 1 || grad_.together() > 1 || ((states_[K].together() > 1) || ...);
    }

    T* p = nullptr;
    const T* g = nullptr;
    T* changed = nullptr;  // g, where it was to be changed
    T* e = nullptr;
    T* s[max_states] = {};

private:
    Block<T> param_;
    GradientBlock<T> grad_;
    Block<T> states_[max_states];
    Block<T> average_;
};

// Anything may lie anywhere: block after block is read into the compute type, where it isn't already, and taken through
// the gradient's terms, the rule and what follows it while it is in the L1 cache.
template <class T>
void sweep_in_blocks(const Operands& of, Settings settings, std::int64_t chunk_begin, std::int64_t chunk_count) {
    GradientTerms terms = settings.terms;
    terms.l2 = terms.l2 && (settings.extras & with_l2) == 0;
    const bool has_terms = terms.clipped || terms.negated || terms.l2 || terms.l1;
    if (has_terms) settings.terms.scale = settings.single_scale = 1;  // for the loop: it is done before the other terms
    const bool follows = of.average.data != nullptr && (settings.extras & with_average) == 0;
    const auto average_rate = static_cast<T>(settings.average_rate);
    Blocks<T> blocks(of);
    const bool shifted = settings.past_caches && !blocks.together();
    const std::int64_t first = shifted ? to_next_line<T>(of.copy, chunk_begin) : block_elements<T>;
    for_each_block<T>(chunk_begin, chunk_count, first, [&](std::int64_t begin, std::int64_t count) {
        blocks.load(begin, count, has_terms);
        if (has_terms) apply_terms(terms, blocks.changed, blocks.p, count);
        blocks.run(settings.in_blocks, settings, count);
        if (follows) follow_all(blocks.e, average_rate, blocks.p, count);
        blocks.store(begin, count);
        if (of.copy.data != nullptr)
            (settings.past_caches ? stream_block<T> : store_block<T>)(of.copy, begin, count, blocks.p);
    });
    if (settings.past_caches) finish_streams();
}

template <class T>
void sweep(const Operands& of, const Settings& settings, std::int64_t begin, std::int64_t count) {
    const bool lies =
        of.grad.view == nullptr && of.grad.format == settings.in_place.weights && of.accumulated.data == nullptr;
    if (lies && settings.in_place.loop != nullptr)
        sweep_in_place(of, settings, begin, count, StatePlaces{});
    else
        sweep_in_blocks<T>(of, settings, begin, count);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
