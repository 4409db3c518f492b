#include "runtime/memory_limit.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

#include "kernels/stream.hpp"
#include "runtime/team.hpp"

// The streams of one call never overlap: without this the compiler would compare all of them before each loop.
#if defined(__clang__)
#define INSTEP_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INSTEP_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define INSTEP_INDEPENDENT __pragma(loop(ivdep))
#else
#define INSTEP_INDEPENDENT
#endif

namespace instep {

namespace {

// Elements [begin, end) of Read streams, the first Written of which are written. Returns something that depends on all
// that was read, so that no read can be left out.
template <class Word, std::size_t Read, std::size_t Written>
Word pass(char* const* streams, std::int64_t begin, std::int64_t end) {
    std::array<Word*, Read> words;
    for (std::size_t r = 0; r < Read; ++r) words[r] = reinterpret_cast<Word*>(streams[r]);
    Word seen = 0;
    INSTEP_INDEPENDENT
    for (std::int64_t i = begin; i < end; ++i) {
        Word all = words[0][i];
        for (std::size_t r = 1; r < Read; ++r) all = static_cast<Word>(all ^ words[r][i]);
        if constexpr (Written == 0) seen = static_cast<Word>(seen ^ all);
        for (std::size_t w = 0; w < Written; ++w) words[w][i] = all;
    }
    return seen;
}

template <class Word>
using Pass = Word (*)(char* const*, std::int64_t, std::int64_t);

template <class Word, std::size_t Read, std::size_t... Written>
constexpr auto passes_that_read(std::index_sequence<Written...> /* written */) {
    return std::array<Pass<Word>, max_streams + 1>{pass<Word, Read, Written>...};
}

template <class Word, std::size_t... Fewer>
constexpr auto all_passes(std::index_sequence<Fewer...> /* streams less one */) {
    return std::array<std::array<Pass<Word>, max_streams + 1>, max_streams>{
        passes_that_read<Word, Fewer + 1>(std::make_index_sequence<Fewer + 2>())...};
}

template <class Word>
Pass<Word> pass_for(std::size_t read, std::size_t written) {
    static constexpr auto passes = all_passes<Word>(std::make_index_sequence<max_streams>());
    return passes[read - 1][written];
}

struct Run {
    char* const* streams;
    char* copy;
    Pass<std::uint64_t> words;
    std::int64_t count, words_a_chunk;
    std::atomic<std::int64_t> next{0};
    std::atomic<std::uint64_t> seen{0};
};

// Words [begin, end) of one run; where there is a copy, a few at a time and then half a word each to it.
std::uint64_t take_words(const Run& run, std::int64_t begin, std::int64_t end) {
    if (run.copy == nullptr) return run.words(run.streams, begin, end);
    constexpr std::int64_t few = 256;
    constexpr std::int64_t half = sizeof(std::uint64_t) / 2;
    static constexpr std::array<char, few * half> nothing{};
    std::uint64_t seen = 0;
    for (; begin < end; begin += few) {
        const std::int64_t stop = std::min(begin + few, end);
        seen ^= run.words(run.streams, begin, stop);
        stream(run.copy + begin * half, nothing.data(), (stop - begin) * half);
    }
    return seen;
}

}  // namespace

void memory_limit(const std::vector<char*>& streams, int written, std::int64_t bytes, char* copy, int threads,
                  std::int64_t chunk) {
    constexpr auto word = static_cast<std::int64_t>(sizeof(std::uint64_t));
    const auto kept = static_cast<std::size_t>(written);
    Run run{streams.data(), copy, pass_for<std::uint64_t>(streams.size(), kept), bytes / word,
            std::max<std::int64_t>(1, chunk / word)};
    const std::int64_t work =
        bytes * (static_cast<std::int64_t>(streams.size()) + written) + (copy == nullptr ? 0 : bytes / 2);
    team::run(
        threads, work,
        [](void* context) {
            Run& shared = *static_cast<Run*>(context);
            const auto take = [&shared] {
                return shared.next.fetch_add(shared.words_a_chunk, std::memory_order_relaxed);
            };
            std::uint64_t seen = 0;
            for (std::int64_t begin = take(); begin < shared.count; begin = take())
                seen ^= take_words(shared, begin, std::min(begin + shared.words_a_chunk, shared.count));
            finish_streams();
            shared.seen.fetch_xor(seen, std::memory_order_relaxed);
        },
        &run);
    const std::int64_t rest = run.count * word;  // bytes that fill no word
    run.seen ^= pass_for<unsigned char>(streams.size(), kept)(streams.data(), rest, bytes);
}

}  // namespace instep
