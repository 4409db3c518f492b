// Starts to fetch memory before it is used.
#pragma once

#include <cstdint>

#include "kernels/inlining.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Starts to fetch a cache line for writing.
inline void claim_for_writing(const void* address) {
#if defined(__x86_64__)
    // GCC turns __builtin_prefetch(address, 1) into a prefetch for reading, unless the level includes prefetchw, which
    // no level does. On a CPU that lacks the instruction, it does nothing.
    __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#elif defined(__GNUC__)
    __builtin_prefetch(address, 1);
#else
    static_cast<void>(address);
#endif
}

// Starts to fetch cache lines that begin so many bytes after an address. The CPU's own prefetching stops at the end of
// each page; where the work on a line takes long, what lies behind it would not be asked for in time.
INSTEP_INLINE void fetch([[maybe_unused]] const void* from, [[maybe_unused]] std::int64_t first,
                         [[maybe_unused]] std::int64_t bytes) {
#if defined(__GNUC__)
    const auto address = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(first);
    for (std::int64_t at = 0; at < bytes; at += cache_line)
        // NOLINTNEXTLINE(performance-no-int-to-ptr): it may lie beyond the array, where no address may be computed
        __builtin_prefetch(reinterpret_cast<const void*>(address + static_cast<std::uintptr_t>(at)));
#endif
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
