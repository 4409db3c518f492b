// Keeps the threads of a team off the caller's core.
//
// NumPy's matrix products leave threads of their own spinning on the other cores for a while. A thread that wakes for a
// step then finds no core idle, and Linux may put it on the caller's core, where it waits until the caller has done all
// the work alone. On another core it runs at once: a spinning thread yields, and Linux prefers a thread that is mostly
// asleep. This holds only for brief work: in a step of milliseconds, the two threads would each get half of the core,
// so such a step is left to the system.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <pthread.h>
#endif

namespace instep::team {

// The thread that calls the team, its core, and whether its work for the team is brief.
class Caller {
public:
    explicit Caller(std::int64_t work);
    // Called on a thread of the team as it begins: for brief work, the thread moves off the caller's core, if it may
    // run on another core. The set of cores on which it may run stays as it was.
    void make_way() const;

private:
#if defined(__linux__)
    bool brief_;
    int core_;
    pthread_t thread_;
#endif
};

}  // namespace instep::team
