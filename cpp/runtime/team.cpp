#include "runtime/team.hpp"

#include <algorithm>
#include <atomic>

#include "runtime/placement.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#define INSTEP_POSIX 1
#endif

namespace instep::team {

namespace {

// Below this much work a thread, waking it costs more than it helps, even where the other cores have nothing to do
// (bench/threads.py).
constexpr std::int64_t usual_work_a_thread = std::int64_t{1} << 20;
std::atomic<std::int64_t> work_a_thread{usual_work_a_thread};
// With spinning idle threads, several times as long as they go on spinning.
constexpr std::int64_t work_a_spinning_thread = std::int64_t{1} << 29;

std::atomic<int> default_threads{1};
std::atomic<int> wanted_threads{0};
std::atomic<bool> idle_threads_spin{false};
std::atomic<std::uint64_t> forks{0};
std::atomic<std::uint64_t> regions{0};

}  // namespace

void set_default_threads(int count) { default_threads = count; }

void set_threads(int count) { wanted_threads = count; }

int wanted() { return wanted_threads.load(std::memory_order_relaxed); }

int threads() {
    if (forked()) return 1;
    if (const int count = wanted()) return count;
    // omp_get_max_threads is asked each time so that threadpoolctl's limits hold for instep too.
    return std::max(1, std::min(default_threads.load(std::memory_order_relaxed), openmp_max_threads()));
}

void set_least_work(std::int64_t work) { work_a_thread = std::max<std::int64_t>(1, work); }

std::int64_t least_work() { return work_a_thread.load(std::memory_order_relaxed); }

bool threads_are_fixed() { return least_work() != usual_work_a_thread; }

void set_idle_threads_spin(bool spin) { idle_threads_spin = spin; }

int threads_for(std::int64_t work) {
    const std::int64_t share =
        idle_threads_spin.load(std::memory_order_relaxed) ? work_a_spinning_thread : least_work();
    if (work < 2 * share || openmp_version() == 0 || forked()) return 1;
    return static_cast<int>(std::min<std::int64_t>(work / share, threads()));
}

void run(int threads, std::int64_t work, void (*part)(void*), void* context) {
#if defined(_OPENMP)
    if (threads > 1) {
        regions.fetch_add(1, std::memory_order_relaxed);
        const Caller caller(work);
#pragma omp parallel num_threads(threads)
        {
            caller.make_way();
            part(context);
        }
        return;
    }
#endif
    static_cast<void>(threads);
    static_cast<void>(work);
    part(context);
}

void barrier() {
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

bool forked() { return fork_generation() != 0; }

std::uint64_t fork_generation() { return forks.load(std::memory_order_relaxed); }

void watch_forks() {
#if defined(INSTEP_POSIX)
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
#endif
}

Counters counters() { return {regions.load(std::memory_order_relaxed)}; }

int openmp_version() {
#if defined(_OPENMP)
    return _OPENMP;
#else
    return 0;
#endif
}

int openmp_max_threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

const char* openmp_library() {
#if defined(_OPENMP) && defined(INSTEP_POSIX)
    Dl_info info;
    if (dladdr(reinterpret_cast<const void*>(&omp_get_max_threads), &info) != 0) return info.dli_fname;
#endif
    return "";
}

}  // namespace instep::team
