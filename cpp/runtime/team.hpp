// The thread team: how many threads a step may use, and one parallel region around its work.
//
// With OpenMP, the threads belong to its runtime, which python/instep/machine/openmp.py loads so that idle threads
// sleep. Without OpenMP, everything here runs on the calling thread.
#pragma once

#include <cstdint>

namespace instep::team {

// Makes the first call of the OpenMP runtime. LLVM's runtime reads the environment and the affinity only at this call,
// not when it is loaded: python/instep/machine/openmp.py prepares both.
void start_runtime();

// Sets the number of threads that affinity and the cgroup's quota granted when instep was loaded.
void set_default_threads(int count);
// Sets the program's own choice; 0 restores the default.
void set_threads(int count);
int wanted();
// The most threads that a step on this thread would use now: 1 without OpenMP, in a forked child, in a parallel region.
int threads();

// Says whether idle threads of the OpenMP runtime spin, because another library has loaded it with its default wait
// policy. Then a parallel step takes a core from the next computation for milliseconds, so only longer steps run in
// parallel.
void set_idle_threads_spin(bool spin);

// Sets the least work, counted as in Stepper::work, for which waking a thread makes a step faster. Tests set it, and
// bench/threads.py, which measures it. With any other value than the usual one, steps try no other number of threads.
void set_least_work(std::int64_t work);
std::int64_t least_work();
bool threads_are_fixed();

// The most threads that are worth waking for a step of so much work.
int threads_for(std::int64_t work);

// Calls part(context) on this many threads, including the calling thread, and returns when all have finished. The total
// work decides whether the threads are moved to other cores.
void run(int threads, std::int64_t work, void (*part)(void*), void* context);
// Inside run: waits until all threads of the region have called it.
void barrier();

// Whether this process was forked from a process that had loaded instep. The OpenMP runtime may rely on threads that no
// longer exist, so steps stay on the calling thread.
bool forked();
// The number of forks between the process that loaded instep and this process.
std::uint64_t fork_generation();
void watch_forks();

struct Counters {
    std::uint64_t parallel_regions;
};
Counters counters();

// For config(): the OpenMP version compiled against (0 without), and where its library was loaded from.
int openmp_version();
const char* openmp_library();

}  // namespace instep::team
