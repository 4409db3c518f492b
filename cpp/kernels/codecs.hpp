// Codecs: how an operand is read into the compute type and written back, one pair of functions for each format.
//
// A new format needs an enumerator of Format and a line in the table below. If its elements are stored one after
// another, it also needs a struct in formats.hpp, from which ElementCodec makes the functions. Formats of two arrays
// have functions of their own: codes (codes.hpp), whose elements are read and written together, in blocks, and
// parameters with a remainder. `begin` is the place of the first element in the order of the step, and
// Operand::companion is the second array. `together` keeps blocks from being cut. Neither the rules nor the callers of
// these functions know any format. If a rule's loop is to read the elements of a format itself, the format also needs a
// place in Storage.
#pragma once

#include "kernels/codes.hpp"
#include "kernels/format_vectors.hpp"
#include "kernels/runs.hpp"
#include "kernels/split.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T>
struct Codec {
    std::int64_t bytes;     // of an element
    std::int64_t together;  // elements that are read and written together; stretches begin at multiples of it
    void (*load)(const Operand&, std::int64_t begin, std::int64_t count, T* to);
    // With random numbers, one for each element or for each pair of a block of codes; null: to nearest.
    void (*store)(const Operand&, std::int64_t begin, std::int64_t count, const T* from, const std::uint32_t* numbers);
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

// Rounded as words, which compilers vectorise, and narrowed afterwards.
template <class F, class T>
void store_at_random(char* data, std::int64_t stride, const T* in, std::int64_t count, const std::uint32_t* numbers,
                     int part) {
    constexpr std::int64_t piece = 64;
    std::uint32_t words[piece];
    for (; count > 0; in += piece, numbers += piece, data += piece * stride, count -= piece) {
        const std::int64_t length = count < piece ? count : piece;
        for (std::int64_t i = 0; i < length; ++i) words[i] = F::word_at_random(in[i], half_of(numbers[i], part));
        std::int64_t i = 0;
        if (stride == sizeof(std::uint16_t)) i = narrow_words(words, length, reinterpret_cast<std::uint16_t*>(data));
        for (; i < length; ++i)
            *reinterpret_cast<std::uint16_t*>(data + i * stride) = static_cast<std::uint16_t>(words[i]);
    }
}

template <class F, class T>
struct ElementCodec {
    static constexpr std::int64_t size = sizeof(typename F::Stored);

    static void load(const Operand& operand, std::int64_t begin, std::int64_t count, T* to) {
        for_each_part(operand.data, operand.view, size, begin, count,
                      [&](char* data, std::int64_t stride, std::int64_t done, std::int64_t run) {
                          if (stride == size)
                              load_dense<F>(data, to + done, run);
                          else
                              load_strided<F>(data, stride, to + done, run);
                      });
    }

    static void store(const Operand& operand, std::int64_t begin, std::int64_t count, const T* from,
                      const std::uint32_t* numbers) {
        for_each_part(operand.data, operand.view, size, begin, count,
                      [&](char* data, std::int64_t stride, std::int64_t done, std::int64_t run) {
                          if constexpr (size == 2)
                              if (numbers != nullptr)
                                  return store_at_random<F>(data, stride, from + done, run, numbers + done,
                                                            operand.part);
                          if (stride == size)
                              store_dense<F>(data, from + done, run);
                          else
                              store_strided<F>(data, stride, from + done, run);
                      });
    }

    static constexpr Codec<T> codec = {size, 1, load, store};
};

// Codes and remainders are for numbers that are computed in float.
template <class T>
struct NoCodec {
    static void load(const Operand& /* operand */, std::int64_t /* begin */, std::int64_t /* count */, T* /* to */) {}
    static void store(const Operand& /* operand */, std::int64_t /* begin */, std::int64_t /* count */,
                      const T* /* from */, const std::uint32_t* /* numbers */) {}
    static constexpr Codec<T> codec = {1, 1, load, store};
};

template <bool Signed, class T>
struct BlockCodec : NoCodec<T> {};
template <bool Signed>
struct BlockCodec<Signed, float> {
    static constexpr Codec<float> codec = {1, code_block, CodeBlocks<Signed>::load, CodeBlocks<Signed>::store};
};

template <class Split, class T>
struct SplitCodec : NoCodec<T> {};
template <class Split>
struct SplitCodec<Split, float> {
    static constexpr Codec<float> codec = {sizeof(std::uint16_t), 1, SplitArrays<Split>::load,
                                           SplitArrays<Split>::store};
};

// In the order of the enumerators of Format.
template <class T>
constexpr Codec<T> codecs[format_count] = {
    ElementCodec<Float64, T>::codec,
    ElementCodec<Float32, T>::codec,
    ElementCodec<Float16, T>::codec,
    ElementCodec<BFloat16, T>::codec,
    ElementCodec<Root16, T>::codec,
    BlockCodec<true, T>::codec,
    BlockCodec<false, T>::codec,
    SplitCodec<Split24, T>::codec,
    SplitCodec<Split32, T>::codec,
    NoCodec<T>::codec,  // rest16
};

template <class T>
const Codec<T>& codec_of(const Operand& operand) {
    return codecs<T>[static_cast<int>(operand.format)];
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
