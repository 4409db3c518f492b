#include "python/step_lock.hpp"

#include <stdexcept>

#include "python/gil.hpp"
#include "runtime/team.hpp"

namespace instep {

StepLock::Guard::Guard(StepLock& lock) : lock_(lock) {
    if (lock.owner_.load(std::memory_order_relaxed) == std::this_thread::get_id())
        throw std::runtime_error(
            "this optimizer is in the middle of a step on this very thread: "
            "a schedule or a signal handler can not step it or load its state");
    if (!lock.mutex_.try_lock()) {
        if (lock.fork_generation_.load(std::memory_order_relaxed) != team::fork_generation())
            throw std::runtime_error(
                "this process was forked while another thread was stepping this optimizer: "
                "its arrays are partly updated here and the thread that would finish is gone");
        // A thread that wants the GIL back after a step stops for good during finalization, its lock held.
        if (interpreter_is_finalizing())
            throw std::runtime_error("another thread is stepping this optimizer, and the interpreter is shutting down");
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
