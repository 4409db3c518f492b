// The memory limit: the time that a step would take if it had nothing to compute. For measurements only.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace instep {

constexpr int max_streams = 5;

// Arrays of the same number of bytes that are gone through together, each aligned to a word. If there is a copy, it has
// half as many bytes.
struct Streams {
    std::array<char*, max_streams> data{};
    char* copy = nullptr;
    std::int64_t bytes = 0;
};

// In one pass, reads the first `read` streams of every piece, and writes to the first `written` of them the old bytes
// with the bits of `flip` inverted. With a flip of 0 this changes nothing, but no compiler can know it. Returns the XOR
// of all bytes that were only read. Each thread that becomes free takes the next `chunk` bytes of every stream, across
// pieces. A copy gets zeros, half a word for each whole word of a stream, past the caches, like the copies of a step.
unsigned char memory_limit(const std::vector<Streams>& pieces, int read, int written, unsigned char flip, int threads,
                           std::int64_t chunk);

}  // namespace instep
