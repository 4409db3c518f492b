#include "runtime/pace.hpp"

#include <algorithm>

namespace instep {

namespace {

// From this much work on, a step begins in parallel before anything has been tried (bench/threads.py).
constexpr std::int64_t work_to_begin_parallel = std::int64_t{1} << 24;
// From this much work on, nothing is tried: a step takes milliseconds, and a thread that wakes late costs little.
constexpr std::int64_t work_beyond_doubt = std::int64_t{1} << 28;
// A change must gain more than the difference between two timings of the same steps.
constexpr double worthwhile = 0.95;
// If a mean exceeds the usual time by this factor, interruptions cost more than threads gain or lose.
constexpr double much_interrupted = 1.25;

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
    sum_ = 0;
}

// A few interruptions by the system say nothing about threads. Many interruptions over a long phase do: if other
// programs compute, too, every further thread may have to wait for a core. Then the trial is long, means decide, and
// the decision holds for long.
void Pace::begin_trial() {
    mean_ = sum_ / steps_;
    long_ = steps_ >= long_phase && mean_ > much_interrupted * usual_;
    if (!exists(level_ + direction_)) direction_ = -direction_;
    begin(true);
}

void Pace::took(std::int64_t nanoseconds) {
    if (!settled_) {
        settled_ = true;
        return;
    }
    const double time = static_cast<double>(nanoseconds) / work_;
    sum_ += time;
    ++steps_;
    if (!trial_) {
        usual_ = steps_ == 1 ? time : usual_ + (std::min(time, 2 * usual_) - usual_) / 4;
        if (steps_ >= interval_) begin_trial();
        return;
    }
    if (!long_) tried_[static_cast<std::size_t>(steps_ - 1)] = time;
    if (steps_ == (long_ ? long_trial_steps : trial_steps)) finish_trial();
}

void Pace::finish_trial() {
    std::sort(tried_.begin(), tried_.end());
    const bool better = long_ ? sum_ / steps_ < worthwhile * mean_ : tried_[trial_steps / 2] < worthwhile * usual_;
    if (better) {
        level_ += direction_;
        interval_ = long_ ? 8 * longest_interval : first_interval;
    } else {
        direction_ = -direction_;
        interval_ = long_ ? longest_interval : std::min(2 * interval_, longest_interval);
    }
    begin(false);
}

}  // namespace instep
