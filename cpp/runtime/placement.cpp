#include "runtime/placement.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace instep::team {

#if defined(__linux__)

namespace {

// Up to here a step is over before a thread on somebody else's core has to share it (bench/threads.py).
constexpr std::int64_t most_brief_work = std::int64_t{1} << 26;

thread_local bool stays_off_a_core = false;

bool cores_of(pthread_t thread, cpu_set_t& cores) {
    return pthread_getaffinity_np(thread, sizeof cores, &cores) == 0;  // fails where there are more than it can hold
}

}  // namespace

Caller::Caller(std::int64_t work) : brief_(work < most_brief_work), core_(sched_getcpu()), thread_(pthread_self()) {}

void Caller::make_way() const {
    const bool collides = brief_ && core_ >= 0 && sched_getcpu() == core_;
    const bool returns = !brief_ && stays_off_a_core;
    const pthread_t self = pthread_self();
    if ((!collides && !returns) || pthread_equal(self, thread_) != 0) return;
    cpu_set_t all;
    cpu_set_t mine;
    if (!cores_of(thread_, all) || !cores_of(self, mine)) return;
    // A thread of the team begins with the cores of whoever made it, less one at most after it was here before.
    cpu_set_t common;
    CPU_AND(&common, &all, &mine);
    if (CPU_EQUAL(&common, &mine) == 0 || CPU_COUNT(&mine) + 1 < CPU_COUNT(&all)) return;
    if (brief_) CPU_CLR(static_cast<unsigned>(core_), &all);
    if (CPU_COUNT(&all) > 0 && pthread_setaffinity_np(self, sizeof all, &all) == 0) stays_off_a_core = brief_;
}

#else

Caller::Caller(std::int64_t) {}
void Caller::make_way() const {}

#endif

}  // namespace instep::team
