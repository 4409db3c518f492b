// The memory's own limit: what a step would take if it had nothing to compute. For measurements only.
#pragma once

#include <cstdint>
#include <vector>

namespace instep {

constexpr int max_streams = 5;

// Reads `bytes` of each stream and writes as many to the first `written` of them, once, in one pass: one XOR a word
// read. The streams keep no value. Threads take `chunk` bytes of every stream at a time, whoever is free the next.
// Where there is a copy, it gets half of each whole word of a stream, past the caches as a step writes its copies.
void memory_limit(const std::vector<char*>& streams, int written, std::int64_t bytes, char* copy, int threads,
                  std::int64_t chunk);

}  // namespace instep
