// Teams of threads: how many threads a step may use, and one parallel region around its work.
//
// The threads of instep's own team belong to the OpenMP runtime that the core is linked with, which
// python/instep/machine/openmp.py loads so that idle threads sleep. Without OpenMP, this team is the calling thread.
// A step may use the team of another library instead (shared_team.hpp).
#pragma once

#include <cstdint>

namespace instep::team {

// Makes the first call of the OpenMP runtime. LLVM's runtime reads the environment and the affinity only at this call,
// not when it is loaded: python/instep/machine/openmp.py prepares both.
void start_runtime();

class Team {
public:
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;
    Team(Team&&) = delete;
    Team& operator=(Team&&) = delete;

    // The most threads that a step on this thread would use now: 1 in a forked child, in a parallel region of the same
    // runtime, and without a runtime.
    virtual int threads() const = 0;
    // The most threads that are worth waking for a step of so much work, counted as in Stepper::work.
    int threads_for(std::int64_t work) const;

    // Calls part(context, idle) in one parallel region, and returns when all its threads have finished. The calling
    // thread is one of them. At most so many threads are to work. If the region has more, the others are idle: they
    // only call barrier() as often as those that work.
    using Part = void (*)(void* context, bool idle);
    void run(int threads, std::int64_t work, Part part, void* context) const;
    // Inside run: waits until all threads of the region have called it.
    virtual void barrier() const = 0;

protected:
    constexpr Team() = default;
    ~Team() = default;

private:
    // The least work for which waking a thread makes a step faster.
    virtual std::int64_t least_share() const = 0;
    virtual void run_region(int threads, std::int64_t work, Part part, void* context) const = 0;
};

// instep's own team.
const Team& own();
// The calling thread alone.
const Team& alone();

// Sets the number of threads that affinity and the cgroup's quota granted when instep was loaded.
void set_default_threads(int count);
// Sets the program's own choice; 0 restores the default.
void set_threads(int count);
int wanted();

// Says whether idle threads of the own team spin, because another library has loaded its runtime with the default wait
// policy. Then a parallel step takes a core from the next computation for milliseconds, so only longer steps run in
// parallel.
void set_idle_threads_spin(bool spin);

// Sets the least work for which waking a thread makes a step faster, for every team. Tests set it, and the scripts in
// bench/ that measure it. With any other value than the usual one, steps try no other number of threads.
void set_least_work(std::int64_t work);
std::int64_t least_work();
bool threads_are_fixed();

// What an OpenMP runtime tells about the next region.
struct Limits {
    int (*in_parallel)();
    int (*max_threads)();
    int (*max_active_levels)();
    int (*thread_limit)();

    // The most threads that the runtime would give to a region that begins here.
    int most_of_a_region() const;
};

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
