// The memory's own limit: what a step would take if it had nothing to compute. For measurements only.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace instep {

constexpr int max_streams = 5;

// Arrays of so many bytes that are gone through together, each on a multiple of a word. Where there is a copy, it has
// half as many.
struct Streams {
    std::array<char*, max_streams> data{};
    char* copy = nullptr;
    std::int64_t bytes = 0;
};

// Reads the first `read` streams of every piece and writes to the first `written` of them, in one pass, what was there,
// with the bits of `flip` turned over in every byte; with 0 that changes nothing, which no compiler can know. Returns
// the XOR of all bytes that were only read. Threads take `chunk` bytes of every stream at a time, across pieces,
// whoever is free the next. A copy gets zeros, half a word for each whole word of a stream, past the caches as a step
// writes its copies.
unsigned char memory_limit(const std::vector<Streams>& pieces, int read, int written, unsigned char flip, int threads,
                           std::int64_t chunk);

}  // namespace instep
