#include "runtime/pace.hpp"

#include <algorithm>

namespace instep {

namespace {

// From this much work on a step begins in parallel before anything has been tried (bench/threads.py).
constexpr std::int64_t work_to_begin_parallel = std::int64_t{1} << 24;
// From this much on nothing is tried: a step takes milliseconds, and a thread that wakes late costs it little.
constexpr std::int64_t work_beyond_doubt = std::int64_t{1} << 28;
// A change has to be worth more than what two timings of the same differ by.
constexpr double worthwhile = 0.95;

}  // namespace

int Pace::choose(int most, std::int64_t work) {
    timed_ = most > 1 && work < work_beyond_doubt;
    if (!timed_) return most;
    if (most != most_) restart(most, work);
    work_ = static_cast<double>(work);
    return threads(trial_ ? level_ + direction_ : level_);
}

void Pace::restart(int most, std::int64_t work) {
    most_ = most;
    level_ = 0;
    if (work < work_to_begin_parallel)
        while (threads(level_) > 1) ++level_;
    interval_ = first_interval;
    begin(false);
}

void Pace::begin(bool trial) {
    trial_ = trial;
    settled_ = false;
    steps_ = 0;
    if (trial && !exists(level_ + direction_)) direction_ = -direction_;
}

void Pace::took(std::int64_t nanoseconds) {
    if (!settled_) {
        settled_ = true;
        return;
    }
    const double time = static_cast<double>(nanoseconds) / work_;
    if (trial_) {
        tried_[static_cast<std::size_t>(steps_++)] = time;
        if (static_cast<std::size_t>(steps_) == trial_steps) finish_trial();
        return;
    }
    // An interruption by the system says nothing about threads.
    usual_ = steps_ == 0 ? time : usual_ + (std::min(time, 2 * usual_) - usual_) / 4;
    if (++steps_ >= interval_) begin(true);
}

void Pace::finish_trial() {
    std::sort(tried_.begin(), tried_.end());
    if (tried_[trial_steps / 2] < worthwhile * usual_) {
        level_ += direction_;
        interval_ = first_interval;
    } else {
        direction_ = -direction_;
        interval_ = std::min(2 * interval_, longest_interval);
    }
    begin(false);
}

}  // namespace instep
