#include "runtime/affinity.hpp"

#include <cstring>

namespace instep::team {

#if defined(__linux__)

bool KeptAffinity::Cpus::read() {
    std::memset(bits, 0, sizeof bits);
    return sched_getaffinity(0, sizeof bits, bits) == 0;
}

KeptAffinity::KeptAffinity(bool needed) : known_(needed && before_.read()) {}

KeptAffinity::~KeptAffinity() {
    Cpus now;
    if (!known_ || !now.read() || std::memcmp(now.bits, before_.bits, sizeof now.bits) == 0) return;
    // This fails if the system has taken CPUs away meanwhile; then the thread keeps the CPUs that are left.
    sched_setaffinity(0, sizeof before_.bits, before_.bits);
}

int allowed_cpus() {
    KeptAffinity::Cpus now;
    return now.read() ? CPU_COUNT_S(sizeof now.bits, now.bits) : 0;
}

#else

KeptAffinity::KeptAffinity(bool) {}
KeptAffinity::~KeptAffinity() = default;
int allowed_cpus() { return 0; }

#endif

}  // namespace instep::team
