#include "runtime/memory_limit.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

#include "kernels/stream.hpp"
#include "runtime/team.hpp"

// The streams of one call never overlap. Without this, the compiler would compare all of them before each loop.
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

// Elements [begin, end) of Read streams, of which the first Written are written. The numbers written depend on the
// numbers that were there, and the result depends on the other streams, so that the compiler can't leave out a read.
template <class Word, std::size_t Read, std::size_t Written>
Word pass(const std::array<char*, max_streams>& streams, std::int64_t begin, std::int64_t end, Word flip) {
    std::array<Word*, Read> words;
    for (std::size_t r = 0; r < Read; ++r) words[r] = reinterpret_cast<Word*>(streams[r]);
    Word seen = 0;
    if constexpr (Read == 1 && Written == 0) {  // a core reads a single stream more slowly than several
        const std::int64_t quarter = (end - begin) / 4;
        for (const Word *word = words[0] + begin, *const last = word + quarter; word < last; ++word)
            seen = static_cast<Word>(seen ^ word[0] ^ word[quarter] ^ word[2 * quarter] ^ word[3 * quarter]);
        begin += 4 * quarter;
    }
    INSTEP_INDEPENDENT
    for (std::int64_t i = begin; i < end; ++i) {
        for (std::size_t r = 0; r < Read; ++r) {
            const Word word = words[r][i];
            if (r < Written)
                words[r][i] = static_cast<Word>(word ^ flip);
            else
                seen = static_cast<Word>(seen ^ word);
        }
    }
    return seen;
}

template <class Word>
using Pass = Word (*)(const std::array<char*, max_streams>&, std::int64_t, std::int64_t, Word);

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

constexpr auto word_bytes = static_cast<std::int64_t>(sizeof(std::uint64_t));

// The words of all pieces, with numbers that go on from one piece to the next.
struct Run {
    const std::vector<Streams>& pieces;
    std::vector<std::int64_t> ends;  // the end of the words of each piece
    Pass<std::uint64_t> words;
    std::uint64_t flip;
    std::int64_t words_a_chunk;
    std::atomic<std::int64_t> next{0};
    std::atomic<std::uint64_t> seen{0};
};

// Words [begin, end) of one piece. If there is a copy, this takes a few words at a time, and then writes half a word
// for each to the copy.
std::uint64_t take_words(const Run& run, const Streams& piece, std::int64_t begin, std::int64_t end) {
    if (piece.copy == nullptr) return run.words(piece.data, begin, end, run.flip);
    constexpr std::int64_t few = 256;
    constexpr std::int64_t half = word_bytes / 2;
    static constexpr std::array<char, few * half> nothing{};
    std::uint64_t seen = 0;
    for (; begin < end; begin += few) {
        const std::int64_t stop = std::min(begin + few, end);
        seen ^= run.words(piece.data, begin, stop, run.flip);
        stream(piece.copy + begin * half, nothing.data(), (stop - begin) * half);
    }
    return seen;
}

// Words [begin, end) of all pieces.
std::uint64_t take_chunk(const Run& run, std::int64_t begin, std::int64_t end) {
    std::uint64_t seen = 0;
    auto piece = static_cast<std::size_t>(std::upper_bound(run.ends.begin(), run.ends.end(), begin) - run.ends.begin());
    for (; begin < end; ++piece) {
        const std::int64_t before = piece == 0 ? 0 : run.ends[piece - 1];
        const std::int64_t stop = std::min(end, run.ends[piece]);
        seen ^= take_words(run, run.pieces[piece], begin - before, stop - before);
        begin = stop;
    }
    return seen;
}

void work_through(void* context, bool /*idle*/) {
    Run& run = *static_cast<Run*>(context);
    const std::int64_t count = run.ends.back();
    const auto take = [&run] { return run.next.fetch_add(run.words_a_chunk, std::memory_order_relaxed); };
    std::uint64_t seen = 0;
    for (std::int64_t begin = take(); begin < count; begin = take())
        seen ^= take_chunk(run, begin, std::min(begin + run.words_a_chunk, count));
    finish_streams();
    run.seen.fetch_xor(seen, std::memory_order_relaxed);
}

unsigned char bytes_together(std::uint64_t word) {
    for (const int half : {32, 16, 8}) word ^= word >> half;
    return static_cast<unsigned char>(word);
}

}  // namespace

unsigned char memory_limit(const std::vector<Streams>& pieces, int read, int written, unsigned char flip, int threads,
                           std::int64_t chunk) {
    if (pieces.empty()) return 0;
    const auto [reads, writes] = std::pair(static_cast<std::size_t>(read), static_cast<std::size_t>(written));
    constexpr std::uint64_t every_byte = 0x0101010101010101;
    Run run{pieces,
            {},
            pass_for<std::uint64_t>(reads, writes),
            every_byte * flip,
            std::max<std::int64_t>(1, chunk / word_bytes)};
    std::int64_t words = 0;
    std::int64_t work = 0;
    for (const Streams& piece : pieces) {
        run.ends.push_back(words += piece.bytes / word_bytes);
        work += piece.bytes * (read + written) + (piece.copy == nullptr ? 0 : piece.bytes / 2);
    }
    team::own().run(threads, work, work_through, &run);
    unsigned char seen = bytes_together(run.seen);
    const auto rest = pass_for<unsigned char>(reads, writes);
    for (const Streams& piece : pieces)  // the last bytes, which don't fill a word
        seen ^= rest(piece.data, piece.bytes / word_bytes * word_bytes, piece.bytes, flip);
    return seen;
}

}  // namespace instep
