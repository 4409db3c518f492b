// Codecs: how an operand is read into the compute type and written back, one pair of functions for each format.
//
// A new format needs an enumerator of Format and a line in the table below. If its elements are stored one after
// another, it also needs a struct in formats.hpp, from which ElementCodec makes the functions. Two kinds of formats
// need functions of their own: those whose elements are read or written together, such as codes in blocks of 64 with a
// unit for each block, and those that are stored in two arrays, such as a parameter with a remainder. `begin` is the
// place of the first element in the order of the step, and Operand::companion is the second array. Anything else that
// the functions need, such as a key for random rounding, becomes a field of Operand. `together` keeps blocks from being
// cut. Neither the rules nor the callers of these functions know any format. If a rule's loop is to read the elements
// of a format itself, the format also needs a place in Storage.
#pragma once

#include "kernels/format_vectors.hpp"
#include "kernels/runs.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T>
struct Codec {
    std::int64_t bytes;     // of an element
    std::int64_t together;  // elements that are read and written together; stretches begin at multiples of it
    void (*load)(const Operand&, std::int64_t begin, std::int64_t count, T* to);
    void (*store)(const Operand&, std::int64_t begin, std::int64_t count, const T* from);
};

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

template <class F, class T>
struct ElementCodec {
    static constexpr std::int64_t size = sizeof(typename F::Stored);

    static void load(const Operand& operand, std::int64_t begin, std::int64_t count, T* to) {
        if (operand.view == nullptr) return load_dense<F>(operand.data + begin * size, to, count);
        const View& view = *operand.view;
        const std::int64_t stride = view.strides[view.ndim - 1];
        for_each_run(view, begin, count, [&](std::int64_t offset, std::int64_t done, std::int64_t run) {
            if (stride == size)
                load_dense<F>(operand.data + offset, to + done, run);
            else
                load_strided<F>(operand.data + offset, stride, to + done, run);
        });
    }

    static void store(const Operand& operand, std::int64_t begin, std::int64_t count, const T* from) {
        if (operand.view == nullptr) return store_dense<F>(operand.data + begin * size, from, count);
        const View& view = *operand.view;
        const std::int64_t stride = view.strides[view.ndim - 1];
        for_each_run(view, begin, count, [&](std::int64_t offset, std::int64_t done, std::int64_t run) {
            if (stride == size)
                store_dense<F>(operand.data + offset, from + done, run);
            else
                store_strided<F>(operand.data + offset, stride, from + done, run);
        });
    }

    static constexpr Codec<T> codec = {size, 1, load, store};
};

// In the order of the enumerators of Format.
template <class T>
constexpr Codec<T> codecs[format_count] = {
    ElementCodec<Float64, T>::codec,
    ElementCodec<Float32, T>::codec,
    ElementCodec<Float16, T>::codec,
    ElementCodec<BFloat16, T>::codec,
};

template <class T>
const Codec<T>& codec_of(const Operand& operand) {
    return codecs<T>[static_cast<int>(operand.format)];
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
