#include "runtime/team.hpp"

#include <algorithm>
#include <atomic>
#include <climits>
#include <vector>

#include "runtime/affinity.hpp"
#include "runtime/placement.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#define INSTEP_POSIX 1
#endif

namespace instep::team {

namespace {

// With less work than this for each thread, waking a thread costs more than it gains, even if the other cores are idle
// (bench/threads.py).
constexpr std::int64_t usual_work_a_thread = std::int64_t{1} << 20;
std::atomic<std::int64_t> work_a_thread{usual_work_a_thread};

std::atomic<int> default_threads{1};
std::atomic<int> wanted_threads{0};
std::atomic<bool> idle_threads_spin{false};
std::atomic<std::uint64_t> forks{0};
std::atomic<std::uint64_t> regions{0};

#if defined(_OPENMP)

// If idle threads spin: work for several times as long as they spin.
constexpr std::int64_t work_a_spinning_thread = std::int64_t{1} << 29;

std::atomic<int> bound_to{0};  // the number of CPUs to which the runtime binds its threads; 0: it binds none

bool runtime_binds() { return bound_to.load(std::memory_order_relaxed) != 0; }

// The number of CPUs in all places of the runtime, if it binds threads to places; else 0.
int cpus_to_bind_to() {
#if _OPENMP >= 201511
    if (omp_get_proc_bind() == omp_proc_bind_false) return 0;
    std::vector<int> cpus;
    for (int place = 0; place < omp_get_num_places(); ++place) {
        std::vector<int> ids(static_cast<std::size_t>(std::max(0, omp_get_place_num_procs(place))));
        if (!ids.empty()) omp_get_place_proc_ids(place, ids.data());
        cpus.insert(cpus.end(), ids.begin(), ids.end());
    }
    std::sort(cpus.begin(), cpus.end());
    return static_cast<int>(std::unique(cpus.begin(), cpus.end()) - cpus.begin());
#else
    return 0;
#endif
}

Limits own_limits() {
#if _OPENMP >= 200805
    return {omp_in_parallel, omp_get_max_threads, omp_get_max_active_levels, omp_get_thread_limit};
#else
    return {omp_in_parallel, omp_get_max_threads, [] { return 1; }, [] { return INT_MAX; }};
#endif
}

// While it exists, regions of the calling thread get as many threads as they ask for. With OMP_DYNAMIC, libgomp would
// subtract the load of the last fifteen minutes, which is the load of this program itself.
class ExactCount {
public:
    ExactCount() : dynamic_(omp_get_dynamic()) {
        if (dynamic_ != 0) omp_set_dynamic(0);
    }
    ~ExactCount() {
        if (dynamic_ != 0) omp_set_dynamic(dynamic_);
    }
    ExactCount(const ExactCount&) = delete;
    ExactCount& operator=(const ExactCount&) = delete;

private:
    int dynamic_;
};

#endif

class Alone final : public Team {
public:
    int threads() const override { return 1; }
    void barrier() const override {}

private:
    std::int64_t least_share() const override { return least_work(); }
    void run_region(int /*threads*/, std::int64_t /*work*/, Part part, void* context) const override {
        part(context, false);
    }
};

#if defined(_OPENMP)

class Own final : public Team {
public:
    int threads() const override;
    void barrier() const override {
#pragma omp barrier
    }

private:
    std::int64_t least_share() const override {
        return idle_threads_spin.load(std::memory_order_relaxed) ? work_a_spinning_thread : least_work();
    }
    void run_region(int threads, std::int64_t work, Part part, void* context) const override;
};

int Own::threads() const {
    if (forked()) return 1;
    const KeptAffinity kept(runtime_binds());
    const Limits limits = own_limits();
    int count = wanted();
    if (count == 0) {
        // This is asked each time, because limits of threadpoolctl and later changes of the affinity apply to instep,
        // too. A runtime that binds threads may have bound this thread, for another library; its team goes to the
        // places of the runtime.
        const int cpus = runtime_binds() ? bound_to.load(std::memory_order_relaxed) : allowed_cpus();
        count = std::min(default_threads.load(std::memory_order_relaxed), limits.max_threads());
        if (cpus > 0) count = std::min(count, cpus);
    }
    return std::max(1, std::min(count, limits.most_of_a_region()));
}

void Own::run_region(int threads, std::int64_t work, Part part, void* context) const {
    const KeptAffinity kept(runtime_binds());
    const ExactCount exact;
    const Caller caller(work);
#pragma omp parallel num_threads(threads)
    {
        caller.make_way();
        part(context, false);
    }
}

#else

using Own = Alone;

#endif

}  // namespace

void set_default_threads(int count) { default_threads = count; }

void set_threads(int count) { wanted_threads = count; }

int wanted() { return wanted_threads.load(std::memory_order_relaxed); }

void set_least_work(std::int64_t work) { work_a_thread = std::max<std::int64_t>(1, work); }

std::int64_t least_work() { return work_a_thread.load(std::memory_order_relaxed); }

bool threads_are_fixed() { return least_work() != usual_work_a_thread; }

void set_idle_threads_spin(bool spin) { idle_threads_spin = spin; }

int Team::threads_for(std::int64_t work) const {
    const std::int64_t share = least_share();
    if (work < 2 * share) return 1;
    return static_cast<int>(std::min<std::int64_t>(work / share, threads()));
}

void Team::run(int threads, std::int64_t work, Part part, void* context) const {
    if (threads <= 1) return part(context, false);
    regions.fetch_add(1, std::memory_order_relaxed);
    run_region(threads, work, part, context);
}

const Team& own() {
    static constexpr Own team;
    return team;
}

const Team& alone() {
    static constexpr Alone team;
    return team;
}

int Limits::most_of_a_region() const {
    if (in_parallel() != 0) return 1;  // the other threads of this region are already at work
    return max_active_levels() < 1 ? 1 : std::max(1, thread_limit());
}

bool forked() { return fork_generation() != 0; }

std::uint64_t fork_generation() { return forks.load(std::memory_order_relaxed); }

void watch_forks() {
#if defined(INSTEP_POSIX)
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
#endif
}

void start_runtime() {
#if defined(_OPENMP)
    static_cast<void>(omp_get_max_threads());
    bound_to = cpus_to_bind_to();
#endif
}

Counters counters() { return {regions.load(std::memory_order_relaxed)}; }

int openmp_version() {
#if defined(_OPENMP)
    return _OPENMP;
#else
    return 0;
#endif
}

const char* openmp_library() {
#if defined(_OPENMP) && defined(INSTEP_POSIX)
    Dl_info info;
    if (dladdr(reinterpret_cast<const void*>(&omp_get_max_threads), &info) != 0) return info.dli_fname;
#endif
    return "";
}

}  // namespace instep::team
