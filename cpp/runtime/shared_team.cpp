#include "runtime/shared_team.hpp"

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#endif

namespace instep::team {

namespace {

// These threads are awake while the library computes, so waking one costs less than in instep's own team
// (bench/threads.py --host torch).
constexpr std::int64_t usual_work_a_shared_thread = std::int64_t{1} << 18;

#if defined(RTLD_NOLOAD)

constexpr int only_if_loaded = RTLD_NOLOAD | RTLD_LAZY;

// The file that a function was loaded from; empty if it is unknown.
std::string file_of(void* function) {
    Dl_info info{};
    return dladdr(function, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

// Looks a function up as the dynamic linker does for the library's own calls: first among what is loaded for everybody
// (LD_PRELOAD, RTLD_GLOBAL), then among the library and what it needs.
void* called_by(void* library, const char* name) {
    void* const needed = dlsym(library, name);
    if (needed == nullptr) return nullptr;  // the library doesn't call it, whoever else has it
    void* const everybody = dlopen(nullptr, RTLD_LAZY);
    void* const found = everybody == nullptr ? nullptr : dlsym(everybody, name);
    return found != nullptr ? found : needed;
}

// Looks functions up in one file alone, since those of two runtimes know nothing of each other.
class LookUp {
public:
    explicit LookUp(const std::string& file) : file_(file), handle_(dlopen(file.c_str(), only_if_loaded)) {}

    template <class Function>
    void find(Function*& function, const char* name) {
        void* const found = handle_ == nullptr ? nullptr : dlsym(handle_, name);
        complete_ = complete_ && found != nullptr && file_of(found) == file_;
        function = reinterpret_cast<Function*>(found);
    }
    bool complete() const { return complete_; }

private:
    const std::string& file_;
    void* handle_;  // never closed: a team keeps its runtime loaded
    bool complete_ = true;
};

bool find(const char* library, Runtime& runtime) {
    void* const handle = dlopen(library, only_if_loaded);
    void* const parallel = handle == nullptr ? nullptr : called_by(handle, "GOMP_parallel");
    if (parallel == nullptr) return false;
    runtime.file = file_of(parallel);
    LookUp look_up(runtime.file);
    look_up.find(runtime.parallel, "GOMP_parallel");
    look_up.find(runtime.barrier, "GOMP_barrier");
    look_up.find(runtime.thread_num, "omp_get_thread_num");
    look_up.find(runtime.limits.in_parallel, "omp_in_parallel");
    look_up.find(runtime.limits.max_threads, "omp_get_max_threads");
    look_up.find(runtime.limits.max_active_levels, "omp_get_max_active_levels");
    look_up.find(runtime.limits.thread_limit, "omp_get_thread_limit");
    return look_up.complete();
}

#else

bool find(const char* /*library*/, Runtime& /*runtime*/) { return false; }

#endif

struct Region {
    const Runtime* runtime;
    int threads;
    Team::Part part;
    void* context;
};

void take_part(void* data) {
    const Region& region = *static_cast<const Region*>(data);
    region.part(region.context, region.runtime->thread_num() >= region.threads);
}

}  // namespace

const SharedTeam* SharedTeam::of(const char* library) {
    Runtime runtime{};
    if (!find(library, runtime)) return nullptr;
    static std::mutex mutex;
    static auto& teams = *new std::vector<std::unique_ptr<SharedTeam>>;  // threads may step as the process ends
    const std::scoped_lock lock(mutex);
    const auto known =
        std::find_if(teams.begin(), teams.end(), [&](const auto& team) { return team->file() == runtime.file; });
    if (known != teams.end()) return known->get();
    return teams.emplace_back(std::make_unique<SharedTeam>(std::move(runtime))).get();
}

SharedTeam::SharedTeam(Runtime runtime) : runtime_(std::move(runtime)) {}

int SharedTeam::threads() const {
    if (forked()) return 1;
    int count = runtime_.limits.max_threads();
    if (wanted() > 0) count = std::min(count, wanted());
    return std::max(1, std::min(count, runtime_.limits.most_of_a_region()));
}

std::int64_t SharedTeam::least_share() const { return threads_are_fixed() ? least_work() : usual_work_a_shared_thread; }

// The region has all threads that the library's own regions have, also if few are to work: if a region has fewer, GNU's
// runtime ends the other threads, and the library's next region starts new ones. Affinity and idle waiting are those of
// the library.
void SharedTeam::run_region(int threads, std::int64_t /*work*/, Part part, void* context) const {
    Region region{&runtime_, threads, part, context};
    constexpr unsigned all_threads = 0;
    constexpr unsigned no_flags = 0;
    runtime_.parallel(take_part, &region, all_threads, no_flags);
}

}  // namespace instep::team
