// Keeps a team's threads off the core of whoever calls it.
//
// NumPy's matrix products leave threads of their own spinning on the other cores for a while. A thread that wakes for a
// step then finds no core idle, and Linux may put it on the caller's, where it waits until the caller has done all the
// work alone. On another core it runs at once: a spinning thread yields, and a guest that is mostly asleep goes first.
// Only that one does: a step of milliseconds would have to share the core half and half, and is left to the system.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <pthread.h>
#endif

namespace instep::team {

// The thread that calls the team, the core it is on, and whether the work it has for the team is brief.
class Caller {
public:
    explicit Caller(std::int64_t work);
    // On a thread of the team, as it begins: for brief work it moves off the caller's core, if it may go to another.
    // On which cores it may run stays as it was.
    void make_way() const;

private:
#if defined(__linux__)
    bool brief_;
    int core_;
    pthread_t thread_;
#endif
};

}  // namespace instep::team
