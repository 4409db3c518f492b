// Serialises the steps of one optimizer, and never holds the GIL while waiting.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace instep {

class StepLock {
public:
    // Holds the lock for a scope. Called with the GIL held; throws RuntimeError if the waiting could never end.
    class Guard {
    public:
        explicit Guard(StepLock& lock);
        ~Guard();
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        Guard(Guard&&) = delete;
        Guard& operator=(Guard&&) = delete;

    private:
        StepLock& lock_;
    };

    // Lets this thread's own readers in for a scope, in which the call that has the lock changes nothing.
    class Readable {
    public:
        explicit Readable(StepLock& lock) : lock_(lock), before_(lock.readable_) { lock_.readable_ = true; }
        ~Readable() { lock_.readable_ = before_; }
        Readable(const Readable&) = delete;
        Readable& operator=(const Readable&) = delete;
        Readable(Readable&&) = delete;
        Readable& operator=(Readable&&) = delete;

    private:
        StepLock& lock_;
        bool before_;  // scopes may lie in one another
    };
    bool lets_read() const { return is_mine() && readable_; }

    // Whether this thread holds the lock, and whether any thread does. Read with the GIL held: a thread may hold the
    // lock already, and wait for the GIL before it says so.
    bool is_mine() const { return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }
    bool is_taken() const { return owner_.load(std::memory_order_relaxed) != std::thread::id{}; }

private:
    // Whether the thread that holds this lock waits for a lock of this thread, directly or through other threads'
    // locks.
    bool waits_for_this_thread() const;

    std::mutex mutex_;
    std::atomic<std::thread::id> owner_{};
    bool readable_ = false;                          // read and changed by the thread that holds the lock
    std::atomic<std::uint64_t> fork_generation_{0};  // of the process when the lock was last taken
};

}  // namespace instep
