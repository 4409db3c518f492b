#include "runtime/placement.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace instep::team {

#if defined(__linux__)

namespace {

// About a millisecond of a step.
constexpr std::int64_t most_brief_work = std::int64_t{1} << 26;

}  // namespace

Caller::Caller(std::int64_t work) : brief_(work < most_brief_work), core_(sched_getcpu()), thread_(pthread_self()) {}

void Caller::make_way() const {
    const pthread_t self = pthread_self();
    if (!brief_ || core_ < 0 || sched_getcpu() != core_ || pthread_equal(self, thread_) != 0) return;
    cpu_set_t allowed;
    if (pthread_getaffinity_np(self, sizeof allowed, &allowed) != 0) return;  // more cores than the set can hold
    cpu_set_t others = allowed;
    CPU_CLR(static_cast<unsigned>(core_), &others);
    if (pthread_setaffinity_np(self, sizeof others, &others) != 0) return;  // there are none
    // The thread has moved. Its full set is restored: otherwise the system could not use the caller's core for it,
    // which may be the only idle core later.
    pthread_setaffinity_np(self, sizeof allowed, &allowed);
}

#else

Caller::Caller(std::int64_t) {}
void Caller::make_way() const {}

#endif

}  // namespace instep::team
