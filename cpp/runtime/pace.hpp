// How many threads a step of middling length takes, found out while training.
//
// Waking a thread pays or not depending on what the caller's loop leaves on the other cores: NumPy's matrix products
// keep threads of their own awake there for a while, other processes compute, or nobody does. No fixed size tells. The
// bits of a step don't depend on the number of threads, so it can be tried: now and then a few steps take half or twice
// as many, and what was quicker stays. Trials become rare while they change nothing, one step in some three hundred,
// or, where steps are interrupted so often that a trial has to be long, one in seventeen.
#pragma once

#include <array>
#include <cstdint>

namespace instep {

class Pace {
public:
    // Threads for the next step, of at most so many; work as Stepper::work counts it.
    int choose(int most, std::int64_t work);
    // Whether that step is to be timed, and how long it took in nanoseconds.
    bool timed() const { return timed_; }
    void took(std::int64_t nanoseconds);

private:
    static constexpr int first_interval = 4, longest_interval = 1024;
    static constexpr int trial_steps = 3;
    static constexpr int long_phase = 512, long_trial_steps = 64;  // whose means say something

    void restart(int most, std::int64_t work);
    int threads(int level) const { return most_ >> level; }
    bool exists(int level) const { return level >= 0 && threads(level) >= 1; }
    void begin(bool trial);
    void begin_trial();
    void finish_trial();

    int most_ = 0;
    int level_ = 0;                  // threads are halved so often
    int direction_ = 1;              // of the next trial: 1 half as many threads, -1 twice as many
    int interval_ = first_interval;  // timed steps between trials
    bool trial_ = false;
    bool long_ = false;     // the trial, for means to decide
    bool settled_ = false;  // the first step after a change finds its data in other caches and doesn't count
    int steps_ = 0;         // timed since the phase began
    bool timed_ = false;
    double work_ = 1;
    double usual_ = 0;  // time for a unit of work, smoothed and without interruptions
    double mean_ = 0;   // of all before the trial
    double sum_ = 0;    // of the times in this phase
    std::array<double, trial_steps> tried_{};
};

}  // namespace instep
