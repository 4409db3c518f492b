// The CPUs on which a thread may run, and the class that keeps them as the program has set them.
#pragma once

#include <cstddef>

#if defined(__linux__)
#include <sched.h>
#endif

namespace instep::team {

// The number of CPUs on which the calling thread may run; 0 if the system doesn't tell.
int allowed_cpus();

// Restores the affinity of the calling thread at the end of a scope. An OpenMP runtime that binds its threads
// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, KMP_AFFINITY) also binds each thread that calls it, and leaves it
// bound. libgomp binds the thread that loads it, and every other thread in its first region; LLVM's runtime binds each
// thread at its first call.
class KeptAffinity {
public:
    // Does nothing unless it is needed, since both ends are system calls.
    explicit KeptAffinity(bool needed);
    ~KeptAffinity();
    KeptAffinity(const KeptAffinity&) = delete;
    KeptAffinity& operator=(const KeptAffinity&) = delete;
    KeptAffinity(KeptAffinity&&) = delete;
    KeptAffinity& operator=(KeptAffinity&&) = delete;

private:
#if defined(__linux__)
    friend int allowed_cpus();
    static constexpr std::size_t most_cpus = 8192;  // Linux can't be built for more

    struct Cpus {
        bool read();
        cpu_set_t bits[most_cpus / 8 / sizeof(cpu_set_t)];
    };

    Cpus before_;
    bool known_;
#endif
};

}  // namespace instep::team
