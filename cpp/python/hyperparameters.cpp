#include "python/hyperparameters.hpp"

#include <cmath>
#include <utility>

#include "runtime/float_environment.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

constexpr std::size_t term_count = 4;  // clip_value, L2 factor, L1 factor, maximize

unsigned option_bits(const RuleFamily& family, const py::sequence& options) {
    unsigned bits = 0;
    for (const py::handle option : options) {
        const auto name = option.cast<std::string>();
        int index = 0;
        while (index < family.option_count && name != family.options[index]) ++index;
        if (index == family.option_count)
            throw py::value_error(std::string("rule '") + family.name + "' has no option '" + name + "'");
        bits |= 1U << index;
    }
    return bits;
}

// The choices of options that are valid, for an error: "no option", "momentum", "momentum and nesterov".
std::string variants_of(const RuleFamily& family) {
    std::string all;
    for (unsigned options = 0; options < 1U << static_cast<unsigned>(family.option_count); ++options) {
        if (!family.variants[options].valid) continue;
        std::string names;
        for (const std::string& name : option_names(family, options)) names += (names.empty() ? "" : " and ") + name;
        all += (all.empty() ? "" : ", ") + (names.empty() ? "no option" : names);
    }
    return all;
}

}  // namespace

std::vector<std::string> option_names(const RuleFamily& family, unsigned options) {
    std::vector<std::string> names;
    for (int k = 0; k < family.option_count; ++k)
        if ((options >> static_cast<unsigned>(k) & 1U) != 0) names.emplace_back(family.options[k]);
    return names;
}

Group make_group(const std::string& rule, const py::sequence& options) {
    Group group{};
    group.family = find_family(current_level(), rule);
    if (group.family < 0) throw py::value_error("there is no rule '" + rule + "'");
    const RuleFamily& family = *current_level().families[group.family];
    group.options = option_bits(family, options);
    if (!family.variants[group.options].valid)
        throw py::value_error(std::string("rule '") + family.name + "' has no variant with these options; it has " +
                              variants_of(family));
    return group;
}

py::object in_default_environment(const py::object& function, const py::args& arguments) {
    const FloatEnvironment environment;
    return function(*arguments);
}

const Variant& variant_of(const Group& group) {
    return current_level().families[group.family]->variants[group.options];
}

void Hyperparameters::take(const py::sequence& numbers, const py::sequence& extras) {
    const FloatEnvironment environment;
    Hyperparameters parsed = *this;
    parsed.clip_norm = extras[0].cast<double>();
    parsed.average_rate = 1.0 - extras[1].cast<double>();
    parsed.not_finite = static_cast<NotFinite>(extras[2].cast<int>());
    if (numbers.size() != groups.size()) throw py::value_error("numbers: one sequence a group is wanted");
    for (std::size_t k = 0; k < groups.size(); ++k) {
        Group& group = parsed.groups[k];
        const auto values = numbers[k].cast<py::sequence>();
        const auto count = static_cast<std::size_t>(current_level().families[group.family]->hyperparameter_count);
        if (values.size() != count + term_count) throw py::value_error("numbers: wrong number of values for a group");
        for (std::size_t i = 0; i < count; ++i) group.hyperparameters[i] = values[i].cast<double>();
        const auto clip_value = values[count].cast<double>();
        const auto l2 = values[count + 1].cast<double>();
        const auto l1 = values[count + 2].cast<double>();
        group.terms = {
            false, std::isfinite(clip_value), values[count + 3].cast<bool>(), l2 != 0, l1 != 0, 1.0, clip_value, l2,
            l1};
    }
    *this = std::move(parsed);
}

}  // namespace instep
