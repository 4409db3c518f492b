#include "python/step_lock.hpp"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <unordered_map>

#include "python/gil.hpp"
#include "runtime/team.hpp"

namespace instep {

namespace {

// The lock for which each waiting thread waits. Read and changed with the GIL held. The object stays until the end of
// the process, when threads may still wait.
using WaitingThreads = std::unordered_map<std::thread::id, const StepLock*>;
WaitingThreads& waiting() {
    static auto* const threads = std::make_unique<WaitingThreads>().release();
    static std::uint64_t generation = team::fork_generation();
    if (generation != team::fork_generation()) {  // those threads aren't here, and their ids may be used again
        threads->clear();
        generation = team::fork_generation();
    }
    return *threads;
}

class Waiting {
public:
    explicit Waiting(const StepLock& lock) { waiting()[std::this_thread::get_id()] = &lock; }
    ~Waiting() { waiting().erase(std::this_thread::get_id()); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    Waiting(Waiting&&) = delete;
    Waiting& operator=(Waiting&&) = delete;
};

}  // namespace

bool StepLock::waits_for_this_thread() const {
    const StepLock* lock = this;
    for (std::size_t turns = waiting().size(); turns > 0; --turns) {
        const auto found = waiting().find(lock->owner_.load(std::memory_order_relaxed));
        if (found == waiting().end()) return false;
        lock = found->second;
        if (lock->is_mine()) return true;
    }
    return false;
}

StepLock::Guard::Guard(StepLock& lock) : lock_(lock) {
    if (lock.is_mine())
        throw std::runtime_error(
            "an optimizer must be left alone in the middle of its own step, got a call on the same thread, from a "
            "schedule or a signal handler; make the call between steps");
    if (!lock.mutex_.try_lock()) {
        if (lock.fork_generation_.load(std::memory_order_relaxed) != team::fork_generation())
            throw std::runtime_error(
                "the fork must come between steps, got a fork while another thread stepped this optimizer; its arrays "
                "are partly updated in this process: make a new optimizer here");
        // During finalization, a thread that wants the GIL back after a step stops for good while it holds its lock.
        if (interpreter_is_finalizing())
            throw std::runtime_error(
                "a step must come before the interpreter shuts down, got one while another thread's step can't end");
        if (lock.waits_for_this_thread())
            throw std::runtime_error(
                "schedules must not step each other's optimizers, got two steps on two threads that wait for each "
                "other");
        const Waiting waiting(lock);
        const GilReleased released;
        lock.mutex_.lock();
    }
    lock.owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    lock.fork_generation_.store(team::fork_generation(), std::memory_order_relaxed);
}

StepLock::Guard::~Guard() {
    lock_.owner_.store(std::thread::id{}, std::memory_order_relaxed);
    lock_.mutex_.unlock();
}

}  // namespace instep
