// Blocks: short runs of an operand in the compute type, so that a rule's loop need not know how anything is stored.
//
// A block of an operand that is dense and already in the compute type is used where it lies. Any other is read into a
// small buffer that stays in the L1 cache and, where it changed, written back: memory is still read and written once.
#pragma once

#include "kernels/formats.hpp"
#include "kernels/stream.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Elements a block: 1 KiB of the compute type, a multiple of the norm's lanes. Out of the caches each pass over a block
// waits for other arrays than the one before, so that long blocks leave the memory idle in between; short ones are all
// within reach of a core that works ahead (bench/extras.py).
template <class T>
constexpr std::int64_t block_elements = 1024 / sizeof(T);

// Starts to fetch a cache line such that it may be written when it arrives.
inline void claim_for_writing(const void* address) {
#if defined(__x86_64__)
    // GCC turns __builtin_prefetch(address, 1) into a prefetch for reading unless the level includes this instruction,
    // which none does; where a CPU lacks it, it does nothing.
    __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#elif defined(__GNUC__)
    __builtin_prefetch(address, 1);
#else
    static_cast<void>(address);
#endif
}

template <class F, class T>
void load_dense(const char* data, T* out, std::int64_t count) {
    const auto* stored = reinterpret_cast<const typename F::Stored*>(data);
    for (std::int64_t i = load_vectors(F{}, stored, out, count); i < count; ++i)
        out[i] = static_cast<T>(F::load(stored[i]));
}

template <class F, class T>
void load_strided(const char* data, std::int64_t stride, T* out, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<T>(F::load(*reinterpret_cast<const typename F::Stored*>(data + i * stride)));
}

template <class F, class T>
void store_dense(char* data, const T* in, std::int64_t count) {
    auto* stored = reinterpret_cast<typename F::Stored*>(data);
    for (std::int64_t i = store_vectors(F{}, stored, in, count); i < count; ++i) stored[i] = F::store(in[i]);
}

template <class F, class T>
void store_strided(char* data, std::int64_t stride, const T* in, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        *reinterpret_cast<typename F::Stored*>(data + i * stride) = F::store(in[i]);
}

// Calls action(byte offset, elements done so far, elements in this run) for each run along the innermost axis that
// elements [begin, begin + count) of the view are made of.
template <class Action>
inline void for_each_run(const View& view, std::int64_t begin, std::int64_t count, Action action) {
    constexpr int max_dimensions = 64;  // NumPy's own limit
    std::int64_t index[max_dimensions];
    std::int64_t offset = 0;
    std::int64_t rest = begin;
    for (int axis = view.ndim - 1; axis >= 0; --axis) {
        index[axis] = rest % view.shape[axis];
        rest /= view.shape[axis];
        offset += index[axis] * view.strides[axis];
    }
    const int inner = view.ndim - 1;
    std::int64_t done = 0;
    while (done < count) {
        const std::int64_t room = view.shape[inner] - index[inner];
        const std::int64_t run = room < count - done ? room : count - done;
        action(offset, done, run);
        done += run;
        if (done == count) return;
        offset -= index[inner] * view.strides[inner];  // the run ended at the end of the axis
        index[inner] = 0;
        for (int axis = inner - 1; axis >= 0; --axis) {
            offset += view.strides[axis];
            if (++index[axis] < view.shape[axis]) break;
            offset -= view.shape[axis] * view.strides[axis];
            index[axis] = 0;
        }
    }
}

// Whether the elements lie side by side in format F.
template <class F>
inline bool lies_in(const Operand& operand) {
    return operand.view == nullptr && operand.format == F::format;
}

template <class T>
inline T* in_place(const Operand& operand, std::int64_t begin) {
    return reinterpret_cast<T*>(operand.data) + begin;
}

// These are kept out of line, once for all rules: inlined into some of them they made up a third of the module.
template <class T>
INSTEP_NOINLINE void load_block(const Operand& operand, std::int64_t begin, std::int64_t count, T* buffer) {
    with_format(operand.format, [&](auto format) {
        using F = decltype(format);
        constexpr std::int64_t size = sizeof(typename F::Stored);
        if (operand.view == nullptr) return load_dense<F>(operand.data + begin * size, buffer, count);
        const View& view = *operand.view;
        const std::int64_t stride = view.strides[view.ndim - 1];
        for_each_run(view, begin, count, [&](std::int64_t offset, std::int64_t done, std::int64_t run) {
            if (stride == size)
                load_dense<F>(operand.data + offset, buffer + done, run);
            else
                load_strided<F>(operand.data + offset, stride, buffer + done, run);
        });
    });
}

template <class T>
INSTEP_NOINLINE void store_block(const Operand& operand, std::int64_t begin, std::int64_t count, const T* buffer) {
    with_format(operand.format, [&](auto format) {
        using F = decltype(format);
        constexpr std::int64_t size = sizeof(typename F::Stored);
        if (operand.view == nullptr) return store_dense<F>(operand.data + begin * size, buffer, count);
        const View& view = *operand.view;
        const std::int64_t stride = view.strides[view.ndim - 1];
        for_each_run(view, begin, count, [&](std::int64_t offset, std::int64_t done, std::int64_t run) {
            if (stride == size)
                store_dense<F>(operand.data + offset, buffer + done, run);
            else
                store_strided<F>(operand.data + offset, stride, buffer + done, run);
        });
    });
}

// The same past the caches, where the elements lie side by side; finish_streams has to follow.
template <class T>
INSTEP_NOINLINE void stream_block(const Operand& operand, std::int64_t begin, std::int64_t count, const T* buffer) {
    if (operand.view != nullptr) return store_block(operand, begin, count, buffer);
    with_format(operand.format, [&](auto format) {
        using F = decltype(format);
        using Stored = typename F::Stored;
        alignas(64) Stored rounded[block_elements<T>];
        auto* const bytes = reinterpret_cast<char*>(rounded);
        store_dense<F>(bytes, buffer, count);
        constexpr std::int64_t size = sizeof(Stored);
        stream(operand.data + begin * size, bytes, count * size);
    });
}

// How long a first block has to be, from element `begin` on, so that all others stream whole cache lines of the
// operand.
template <class T>
std::int64_t to_next_line(const Operand& operand, std::int64_t begin) {
    std::int64_t count = 0;
    with_format(operand.format, [&](auto format) {
        constexpr std::int64_t size = sizeof(typename decltype(format)::Stored);
        const auto place = reinterpret_cast<std::uintptr_t>(operand.data + begin * size) % 64;
        count = static_cast<std::int64_t>(64 - place) % 64 / size;
    });
    return count > 0 ? count : block_elements<T>;
}

// Where one operand's current block lies, and whether it has to be written back.
template <class T>
class Block {
public:
    explicit Block(const Operand& operand) : operand_(operand), ready_(lies_in<Native<T>>(operand)) {}

    T* load(std::int64_t begin, std::int64_t count) {
        if (ready_) return in_place<T>(operand_, begin);
        return load_copy(begin, count);
    }

    // A copy that may be changed without changing the operand.
    T* load_copy(std::int64_t begin, std::int64_t count) {
        load_block(operand_, begin, count, buffer_);
        return buffer_;
    }

    void store(std::int64_t begin, std::int64_t count) const {
        if (!ready_) store_block(operand_, begin, count, buffer_);
    }

private:
    const Operand& operand_;
    bool ready_;
    alignas(64) T buffer_[block_elements<T>];
};

// The gradient as the arithmetic sees it first: rounded to the compute type and added to what was accumulated.
template <class T>
class GradientBlock {
public:
    GradientBlock(const Operand& accumulated, const Operand& grad)
        : accumulated_(accumulated), has_accumulated_(accumulated.data != nullptr), grad_(grad) {}

    const T* load(std::int64_t begin, std::int64_t count) {
        return has_accumulated_ ? load_copy(begin, count) : grad_.load(begin, count);
    }

    T* load_copy(std::int64_t begin, std::int64_t count) {
        T* __restrict g = grad_.load_copy(begin, count);
        if (has_accumulated_) {
            const T* __restrict a = accumulated_.load(begin, count);
            for (std::int64_t i = 0; i < count; ++i) g[i] = a[i] + g[i];
        }
        return g;
    }

private:
    Block<T> accumulated_;
    bool has_accumulated_;
    Block<T> grad_;
};

// Calls action(begin, count) for each block of elements [begin, begin + count), of which the first has another length.
template <class T, class Action>
inline void for_each_block(std::int64_t begin, std::int64_t count, std::int64_t first, Action action) {
    const std::int64_t end = begin + count;
    for (std::int64_t length = first; begin < end; begin += length, length = block_elements<T>)
        action(begin, end - begin < length ? end - begin : length);
}

template <class T, class Action>
inline void for_each_block(std::int64_t begin, std::int64_t count, Action action) {
    for_each_block<T>(begin, count, block_elements<T>, action);
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
