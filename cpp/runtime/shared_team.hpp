// A team whose threads belong to another library in the process.
//
// A library that computes with OpenMP has threads that wait for it. If its steps run on these threads, too, they take
// no core from it, and the process has no second set of threads. A runtime is found, never loaded: its functions are
// looked up where the calls of the library go, so nothing has to be known of them when instep is compiled.
#pragma once

#include <string>

#include "runtime/team.hpp"

namespace instep::team {

// The functions of an OpenMP runtime that offers the entry points of GNU's: GNU's own, LLVM's and Intel's.
struct Runtime {
    void (*parallel)(void (*part)(void*), void* data, unsigned threads, unsigned flags);
    void (*barrier)();
    int (*thread_num)();
    Limits limits;
    std::string file;
};

class SharedTeam final : public Team {
public:
    // The team of the OpenMP runtime that a loaded library calls, given by the library's path; null if the library is
    // not loaded, or if it has no such runtime. A team exists until the process ends.
    static const SharedTeam* of(const char* library);
    explicit SharedTeam(Runtime runtime);

    // As many threads as the runtime gives to the library on the calling thread, but no more than the program has
    // allowed instep by set_threads. Whoever limits the library's threads limits these.
    int threads() const override;
    void barrier() const override { runtime_.barrier(); }
    // Where the runtime was loaded from.
    const std::string& file() const { return runtime_.file; }

private:
    std::int64_t least_share() const override;
    void run_region(int threads, std::int64_t work, Part part, void* context) const override;

    Runtime runtime_;
};

}  // namespace instep::team
