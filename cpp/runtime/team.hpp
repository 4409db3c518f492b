// The thread team: how many threads a step may use, and one parallel region around its work.
//
// With OpenMP the threads belong to its runtime, which python/instep/machine/openmp.py loads such that idle ones go to
// sleep. Without OpenMP everything here runs on the calling thread.
#pragma once

#include <cstdint>

namespace instep::team {

// Makes the first call of the OpenMP runtime. LLVM's reads the environment and the affinity only then, not when it is
// loaded: python/instep/machine/openmp.py prepares both.
void start_runtime();

// What affinity and the cgroup's quota granted as instep was loaded.
void set_default_threads(int count);
// The program's own choice; 0 goes back to the default.
void set_threads(int count);
int wanted();
// Most threads a step on this thread would use now: 1 without OpenMP, in a forked child, in somebody's parallel region.
int threads();

// Idle threads of the OpenMP runtime spin: it was loaded, by somebody else, with its default wait policy. Then a
// parallel step costs whoever computes next a core for milliseconds, so only steps longer than that go parallel.
void set_idle_threads_spin(bool spin);

// Work, as Stepper::work counts it, that a thread must find to be worth waking. Set by tests, and by bench/threads.py
// which measures it: any other than the usual is meant as said, and steps try no other number of threads.
void set_least_work(std::int64_t work);
std::int64_t least_work();
bool threads_are_fixed();

// Most threads worth waking for a step of so much work.
int threads_for(std::int64_t work);

// Calls part(context) on that many threads, this one included, and returns when all have finished. How much work there
// is in all decides on which cores they go.
void run(int threads, std::int64_t work, void (*part)(void*), void* context);
// Inside run: waits until all its threads are here.
void barrier();

// Whether this process was forked from one that had loaded instep. Its OpenMP runtime may believe in threads that are
// gone, so it steps on the calling thread only.
bool forked();
// How often this process's ancestors have forked since loading instep.
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
