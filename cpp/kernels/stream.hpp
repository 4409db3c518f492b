// Stores that go past the caches, for arrays that a step writes without reading them. An ordinary store would fetch the
// line that it overwrites, and out of cache a step waits for every fetch. The memory limit writes its copies in this
// way, too. Each level has these functions in its own namespace, like everything that is compiled for a level.
#pragma once

#include <stdint.h>
#include <string.h>

#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define INSTEP_STREAMS 1
#else
#define INSTEP_STREAMS 0
#endif

#if defined(INSTEP_LEVEL)
namespace instep::INSTEP_LEVEL {
#else
namespace instep {
#endif
namespace {

inline void stream(char* to, const char* from, std::int64_t bytes) {
#if INSTEP_STREAMS
    constexpr std::int64_t wide = sizeof(__m128i);
    const auto place = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % sizeof(__m128i));
    const std::int64_t to_place = (wide - place) % wide;
    const std::int64_t head = bytes < to_place ? bytes : to_place;
    memcpy(to, from, static_cast<std::size_t>(head));
    std::int64_t i = head;
    for (; i + wide <= bytes; i += wide)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    memcpy(to + i, from + i, static_cast<std::size_t>(bytes - i));
#else
    memcpy(to, from, static_cast<std::size_t>(bytes));
#endif
}

// Other threads see what was streamed before they see anything stored after this call.
inline void finish_streams() {
#if INSTEP_STREAMS
    _mm_sfence();
#endif
}

}  // namespace
}  // namespace instep, or the level's
