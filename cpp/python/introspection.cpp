#include "python/introspection.hpp"

#include "python/arrays.hpp"
#include "runtime/cpu.hpp"
#include "runtime/levels.hpp"
#include "runtime/team.hpp"

#define INSTEP_TEXT_OF(x) #x
#define INSTEP_TEXT(x) INSTEP_TEXT_OF(x)

namespace instep {

namespace py = pybind11;

namespace {

std::vector<std::string> names_of(const std::vector<const Level*>& levels) {
    std::vector<std::string> names;
    for (const Level* level : levels) names.emplace_back(level->name);
    return names;
}

// Every state of one kind that some choice of the rule's options has.
template <class State, std::size_t Count>
py::tuple states_of(const RuleFamily& family, State (Variant::*states)[Count]) {
    py::list names;
    for (std::size_t k = 0; k < Count; ++k) {
        for (unsigned options = 0; options < 1U << static_cast<unsigned>(family.option_count); ++options) {
            const Variant& variant = family.variants[options];
            const State& state = (variant.*states)[k];
            if (!variant.valid || !state.used) continue;
            names.append(state.name);
            break;
        }
    }
    return names;
}

// How the states may be stored, by name: of the first choice of options that has them.
py::dict kinds_of(const RuleFamily& family) {
    static constexpr const char* narrow[] = {"any", "bfloat16", "none", "iterate"};
    static constexpr const char* in_16_bits[] = {"chosen", "nearest", "stochastic"};
    py::dict kinds;
    for (unsigned options = 0; options < 1U << static_cast<unsigned>(family.option_count); ++options) {
        const Variant& variant = family.variants[options];
        for (int k = 0; k < max_states; ++k) {
            const StateName& state = variant.states[k];
            if (!variant.valid || !state.used || kinds.contains(state.name)) continue;
            py::dict kind;
            kind["number"] = k;
            kind["signed"] = state.kind.is_signed;
            kind["eight_bits"] = state.kind.eight_bits;
            kind["root"] = state.kind.root;
            kind["narrow"] = narrow[static_cast<int>(state.kind.narrow)];
            kind["in_16_bits"] = in_16_bits[static_cast<int>(state.kind.in_16_bits)];
            kinds[state.name] = kind;
        }
    }
    return kinds;
}

}  // namespace

py::object decoded_path(const char* bytes) {
    PyObject* text = PyUnicode_DecodeFSDefault(bytes);
    if (text == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(text);
}

py::dict rules() {
    py::dict rules;
    const Level& level = current_level();
    for (int i = 0; i < level.family_count; ++i) {
        const RuleFamily& family = *level.families[i];
        py::list hyperparameters;
        for (int k = 0; k < family.hyperparameter_count; ++k) hyperparameters.append(family.hyperparameters[k]);
        py::list options;
        for (int k = 0; k < family.option_count; ++k) options.append(family.options[k]);
        py::dict description;
        description["hyperparameters"] = py::tuple(hyperparameters);
        description["options"] = py::tuple(options);
        description["states"] = states_of(family, &Variant::states);
        description["scalar_states"] = states_of(family, &Variant::scalar_states);
        description["kinds"] = kinds_of(family);
        description["joint_states"] = family.variants[0].joint ? description["scalar_states"] : py::tuple();
        rules[family.name] = description;
    }
    return rules;
}

std::vector<std::string> compiled_level_names() { return names_of(compiled_levels()); }

std::vector<std::string> usable_level_names() { return names_of(usable_levels()); }

std::string level_name() { return current_level().name; }

std::string level_target() { return current_level().compiled_for; }

void set_level_by_name(const std::string& name) {
    for (const Level* level : usable_levels()) {
        if (name != level->name) continue;
        set_level(*level);
        return;
    }
    throw py::value_error(
        refusal("the instruction-set level", "be one of " + joined(usable_level_names()), "'" + name + "'"));
}

int x86_64_level_of(std::uint32_t leaf1_ecx, std::uint32_t leaf7_ebx, std::uint32_t extended1_ecx, std::uint64_t xcr0) {
    return x86_64_level({leaf1_ecx, leaf7_ebx, extended1_ecx, xcr0});
}

py::dict counters() {
    py::dict counters;
    counters["parallel_regions"] = team::counters().parallel_regions;
    return counters;
}

py::dict build() {
    py::dict build;
    build["version"] = INSTEP_VERSION;
#if defined(__clang__)
    build["compiler"] = "Clang " __clang_version__;
#elif defined(__GNUC__)
    build["compiler"] = "GCC " __VERSION__;
#elif defined(_MSC_VER)
    build["compiler"] = "MSVC " INSTEP_TEXT(_MSC_FULL_VER);
#else
    build["compiler"] = "unknown";
#endif
    build["pybind11"] = INSTEP_TEXT(PYBIND11_VERSION_MAJOR) "." INSTEP_TEXT(PYBIND11_VERSION_MINOR);
    build["openmp"] = team::openmp_version();
    build["openmp_library"] = decoded_path(team::openmp_library());
    return build;
}

void start() {
    const std::vector<const Level*> levels = usable_levels();
    if (levels.empty())
        throw py::import_error("the CPU must be of level x86-64-v2 (SSE4.2) or later, got an earlier one");
    set_level(*levels.front());
    team::watch_forks();
}

}  // namespace instep
