#include "runtime/levels.hpp"

#include <atomic>

#include "runtime/cpu.hpp"

namespace instep {

#if defined(INSTEP_X86_64_LEVELS)
namespace x86_64_v4 {
extern const Level level;
}
namespace x86_64_v3 {
extern const Level level;
}
namespace x86_64_v2 {
extern const Level level;
}
#else
namespace baseline {
extern const Level level;
}
#endif

namespace {

std::atomic<const Level*> chosen{nullptr};

}  // namespace

std::vector<const Level*> compiled_levels() {
#if defined(INSTEP_X86_64_LEVELS)
    return {&x86_64_v4::level, &x86_64_v3::level, &x86_64_v2::level};
#else
    return {&baseline::level};
#endif
}

std::vector<const Level*> usable_levels() {
    std::vector<const Level*> levels = compiled_levels();
#if defined(INSTEP_X86_64_LEVELS)
    const int supported = x86_64_level(read_cpu_words());
    levels.erase(levels.begin(), levels.begin() + (supported >= 4 ? 0 : supported == 3 ? 1 : supported == 2 ? 2 : 3));
#endif
    return levels;
}

const Level& current_level() { return *chosen.load(std::memory_order_relaxed); }

void set_level(const Level& level) { chosen.store(&level, std::memory_order_relaxed); }

int find_family(const Level& level, const std::string& name) {
    for (int i = 0; i < level.family_count; ++i)
        if (name == level.families[i]->name) return i;
    return -1;
}

}  // namespace instep
