// The CPUs that a thread may run on, and how they stay as the program set them.
#pragma once

#include <cstddef>

#if defined(__linux__)
#include <sched.h>
#endif

namespace instep::team {

// CPUs that the calling thread may run on; 0 where the system doesn't tell.
int allowed_cpus();

// Gives the calling thread's affinity back when it ends. An OpenMP runtime that binds its threads (OMP_PROC_BIND,
// OMP_PLACES, GOMP_CPU_AFFINITY, KMP_AFFINITY) binds each thread that calls it too, and leaves it so: libgomp the
// thread that loads it and every other one in its first region, LLVM's each at its first call.
class KeptAffinity {
public:
    // Does nothing unless there is something to keep: both ends are system calls.
    explicit KeptAffinity(bool needed);
    ~KeptAffinity();
    KeptAffinity(const KeptAffinity&) = delete;
    KeptAffinity& operator=(const KeptAffinity&) = delete;
    KeptAffinity(KeptAffinity&&) = delete;
    KeptAffinity& operator=(KeptAffinity&&) = delete;

private:
#if defined(__linux__)
    friend int allowed_cpus();
    static constexpr std::size_t most_cpus = 8192;  // Linux can be built for no more

    struct Cpus {
        bool read();
        cpu_set_t bits[most_cpus / 8 / sizeof(cpu_set_t)];
    };

    Cpus before_;
    bool known_;
#endif
};

}  // namespace instep::team
