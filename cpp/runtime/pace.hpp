// The number of threads of a step of medium length, found by trials during training.
//
// Whether a further thread makes a step faster depends on the load of the other cores: NumPy's matrix products keep
// NumPy's threads awake there for a while, other processes may compute, or the cores are idle. So no fixed size of a
// step can decide it. The bits of a step don't depend on the number of threads, so numbers can be tried: from time to
// time, a few steps take half or twice as many threads, and the faster number stays. If trials change nothing, they
// become rare: about one step in three hundred is a trial. If steps are interrupted so often that a trial must be long,
// one step in seventeen is a trial.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "runtime/float_environment.hpp"
#include "runtime/team.hpp"

namespace instep {

class Pace {
public:
    // The number of threads for the next step, at most `most`; work is counted as in Stepper::work.
    int choose(int most, std::int64_t work);
    // Whether this step is to be timed; and the time that it took, in nanoseconds.
    bool timed() const { return timed_; }
    void took(std::int64_t nanoseconds);
    // Calls body(threads) with the number that it chooses, and notes the time if body returns that the whole work was
    // done. A fixed number of threads is `most` itself.
    template <class Body>
    void keep(int most, std::int64_t work, Body body) {
        const int threads = team::threads_are_fixed() ? most : choose(most, work);
        if (team::threads_are_fixed() || !timed()) {
            body(threads);
            return;
        }
        using Clock = std::chrono::steady_clock;
        const FloatEnvironment environment;  // choosing computes, too
        const auto begin = Clock::now();
        const bool whole = body(threads);
        if (whole) took(std::chrono::nanoseconds(Clock::now() - begin).count());
    }

private:
    static constexpr int first_interval = 4, longest_interval = 1024;
    static constexpr int trial_steps = 3;
    static constexpr int long_phase = 512, long_trial_steps = 64;  // long enough for means

    void restart(int most, std::int64_t work);
    int threads(int level) const { return most_ >> level; }
    bool exists(int level) const { return level >= 0 && threads(level) >= 1; }
    void begin(bool trial);
    void begin_trial();
    void finish_trial();

    int most_ = 0;
    int level_ = 0;                  // how often the number of threads is halved
    int direction_ = 1;              // of the next trial: 1 half as many threads, -1 twice as many
    int interval_ = first_interval;  // timed steps between trials
    bool trial_ = false;
    bool long_ = false;     // whether the trial is long, so that means decide
    bool settled_ = false;  // false at the first step after a change, which doesn't count: its data are in other caches
    int steps_ = 0;         // steps timed since the phase began
    bool timed_ = false;
    double work_ = 1;
    double usual_ = 0;  // time for a unit of work, smoothed and without interruptions
    double mean_ = 0;   // mean of all times before the trial
    double sum_ = 0;    // of the times in this phase
    std::array<double, trial_steps> tried_{};
};

}  // namespace instep
