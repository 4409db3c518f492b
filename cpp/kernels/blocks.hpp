// Blocks: short runs of an operand in the compute type, so that a rule's loop need not know how the operand is stored.
//
// If an operand is dense and already in the compute type, its blocks are used where they lie. Any other block is read
// into a small buffer that stays in the L1 cache, and is written back if it changed. So memory is still read and
// written once.
#pragma once

#include "kernels/codecs.hpp"
#include "kernels/fetching.hpp"
#include "kernels/stream.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Elements in a block: 1 KiB of the compute type, a multiple of the norm's lanes. Beyond the caches, each pass over a
// block waits for other arrays than the pass before it. With long blocks, the memory is idle between the passes. With
// short blocks, the core already loads the next block meanwhile (bench/extras.py).
template <class T>
constexpr std::int64_t block_elements = 1024 / sizeof(T);

// With longer blocks, the loops that read states themselves have fewer ends, at which the CPU has nothing else to do.
constexpr std::int64_t long_block_elements = 1024;

// Whether the elements lie side by side in the compute type.
template <class T>
inline bool lies_ready(const Operand& operand) {
    return operand.view == nullptr && operand.format == Native<T>::format;
}

template <class T>
inline T* in_place(const Operand& operand, std::int64_t begin) {
    return reinterpret_cast<T*>(operand.data) + begin;
}

template <class T>
inline void store_block(const Operand& operand, std::int64_t begin, std::int64_t count, const T* buffer,
                        const std::uint32_t* numbers = nullptr) {
    codec_of<T>(operand).store(operand, begin, count, buffer, numbers);
}

// The random numbers of a block, made when an operand asks for them: one for each element, or one for each pair of
// elements that are coded.
template <class T, std::int64_t Size = block_elements<T>>
class RandomNumbers {
public:
    RandomNumbers(const Operands& of, const Recipe& recipe) : of_(of), recipe_(recipe) {}

    void move_to(std::int64_t begin, std::int64_t count) {
        begin_ = of_.first + begin;
        count_ = count;
        for (bool& made : made_) made = false;
    }

    // Null if the operand is rounded to nearest.
    const std::uint32_t* of(const Operand& operand) {
        if (!operand.stochastic) return nullptr;
        const bool in_pairs = codec_of<T>(operand).together > 1;
        const int place = operand.stream + (in_pairs ? stream_count : 0);
        if (!made_[place]) {
            const std::uint64_t counter = in_pairs ? pair_counter(begin_) : static_cast<std::uint64_t>(begin_);
            const std::int64_t count = in_pairs ? (count_ + code_block - 1) / code_block * code_pairs : count_;
            fill_random(numbers_[place], counter, count, Keys(of_, recipe_), operand.stream);
            made_[place] = true;
        }
        return numbers_[place];
    }

private:
    const Operands& of_;
    const Recipe& recipe_;
    std::int64_t begin_ = 0, count_ = 0;
    bool made_[2 * stream_count] = {};
    alignas(64) std::uint32_t numbers_[2 * stream_count][static_cast<std::size_t>(Size)];
};

// Like store_block, but past the caches if the elements lie side by side; finish_streams must follow.
template <class T>
void stream_block(const Operand& operand, std::int64_t begin, std::int64_t count, const T* buffer) {
    if (operand.view != nullptr) return store_block(operand, begin, count, buffer);
    alignas(64) char rounded[block_elements<T> * sizeof(T)];
    const std::int64_t bytes = codec_of<T>(operand).bytes;
    for (std::int64_t done = 0; done < count; done += block_elements<T>) {
        const std::int64_t length = count - done < block_elements<T> ? count - done : block_elements<T>;
        store_block(Operand{rounded, operand.format, nullptr}, 0, length, buffer + done);
        stream(operand.data + (begin + done) * bytes, rounded, length * bytes);
    }
}

// The length of a first block, from element `begin` on, after which all other blocks stream whole cache lines of the
// operand.
template <class T>
std::int64_t to_next_line(const Operand& operand, std::int64_t begin) {
    const std::int64_t bytes = codec_of<T>(operand).bytes;
    const auto place = reinterpret_cast<std::uintptr_t>(operand.data + begin * bytes) % 64;
    const std::int64_t count = static_cast<std::int64_t>(64 - place) % 64 / bytes;
    return count > 0 ? count : block_elements<T>;
}

// One operand's current block: its address, and whether it must be written back. An operand without data has a null
// block.
template <class T, std::int64_t Size = block_elements<T>>
class Block {
public:
    explicit Block(const Operand& operand) : operand_(operand), ready_(lies_ready<T>(operand)) {}

    bool there() const { return operand_.data != nullptr; }
    // Elements that must stay in one block.
    std::int64_t together() const { return there() ? codec_of<T>(operand_).together : 1; }

    T* load(std::int64_t begin, std::int64_t count) {
        if (!there()) return nullptr;
        return ready_ ? in_place<T>(operand_, begin) : load_copy(begin, count);
    }

    // A copy that may be changed without changing the operand.
    T* load_copy(std::int64_t begin, std::int64_t count) {
        codec_of<T>(operand_).load(operand_, begin, count, buffer_);
        return buffer_;
    }

    // Where the elements are to be written, all of them, before store.
    T* target(std::int64_t begin) {
        if (!there()) return nullptr;
        return ready_ ? in_place<T>(operand_, begin) : buffer_;
    }

    void store(std::int64_t begin, std::int64_t count) const {
        if (there() && !ready_ && !operand_.constant) store_block(operand_, begin, count, buffer_);
    }
    void store(std::int64_t begin, std::int64_t count, RandomNumbers<T, Size>& numbers) const {
        if (there() && !ready_ && !operand_.constant)
            store_block(operand_, begin, count, buffer_, numbers.of(operand_));
    }

private:
    const Operand& operand_;
    bool ready_;
    alignas(64) T buffer_[static_cast<std::size_t>(Size)];
};

// The gradient in the form in which the arithmetic begins: rounded to the compute type and added to the accumulated
// gradient.
template <class T, std::int64_t Size = block_elements<T>>
class GradientBlock {
public:
    GradientBlock(const Operand& accumulated, const Operand& grad) : accumulated_(accumulated), grad_(grad) {}

    std::int64_t together() const {
        return accumulated_.together() > grad_.together() ? accumulated_.together() : grad_.together();
    }

    const T* load(std::int64_t begin, std::int64_t count) {
        return accumulated_.there() ? load_copy(begin, count) : grad_.load(begin, count);
    }

    T* load_copy(std::int64_t begin, std::int64_t count) {
        T* __restrict g = grad_.load_copy(begin, count);
        if (accumulated_.there()) {
            const T* __restrict a = accumulated_.load(begin, count);
            for (std::int64_t i = 0; i < count; ++i) g[i] = a[i] + g[i];
        }
        return g;
    }

private:
    Block<T, Size> accumulated_;
    Block<T, Size> grad_;
};

// Calls action(begin, count) for each block of elements [begin, begin + count), where the first block has another
// length.
template <class T, std::int64_t Size = block_elements<T>, class Action>
inline void for_each_block(std::int64_t begin, std::int64_t count, std::int64_t first, Action action) {
    const std::int64_t end = begin + count;
    for (std::int64_t length = first; begin < end; begin += length, length = Size)
        action(begin, end - begin < length ? end - begin : length);
}

template <class T, class Action>
inline void for_each_block(std::int64_t begin, std::int64_t count, Action action) {
    for_each_block<T>(begin, count, block_elements<T>, action);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
