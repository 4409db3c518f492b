#include "python/hyperparameters.hpp"

#include <cmath>
#include <utility>

#include "python/arrays.hpp"
#include "runtime/float_environment.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

// clip_value, weight decay, L1 factor, maximize, decoupled_l1, decay_after
constexpr std::size_t term_count = 6;

unsigned option_bits(const RuleFamily& family, const py::sequence& options) {
    unsigned bits = 0;
    for (const py::handle option : options) {
        const auto name = option.cast<std::string>();
        int index = 0;
        while (index < family.option_count && name != family.options[index]) ++index;
        if (index == family.option_count) {
            const std::vector<std::string> known(family.options, family.options + index);
            throw py::value_error(refusal(std::string("an option of rule '") + family.name + "'",
                                          known.empty() ? "be none" : "be one of " + joined(known), "'" + name + "'"));
        }
        bits |= 1U << index;
    }
    return bits;
}

// A choice of options, for an error: "no option", "momentum", "momentum and nesterov".
std::string choice(const RuleFamily& family, unsigned options) {
    return options == 0 ? "no option" : joined(option_names(family, options), " and ");
}

// The choices of options that are valid.
std::string variants_of(const RuleFamily& family) {
    std::vector<std::string> all;
    for (unsigned options = 0; options < 1U << static_cast<unsigned>(family.option_count); ++options) {
        if (family.variants[options].valid) all.push_back(choice(family, options));
    }
    return joined(all);
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
    if (group.family < 0) {
        std::vector<std::string> known;
        for (int i = 0; i < current_level().family_count; ++i) known.emplace_back(current_level().families[i]->name);
        throw py::value_error(refusal("rule", "be one of " + joined(known), "'" + rule + "'"));
    }
    const RuleFamily& family = *current_level().families[group.family];
    group.options = option_bits(family, options);
    if (!family.variants[group.options].valid)
        throw py::value_error(refusal(std::string("the options of rule '") + family.name + "'",
                                      "be one of " + variants_of(family), choice(family, group.options)));
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
    if (numbers.size() != groups.size())
        throw py::value_error(refusal("numbers", "have a sequence for each group", std::to_string(numbers.size())));
    for (std::size_t k = 0; k < groups.size(); ++k) {
        Group& group = parsed.groups[k];
        const auto values = numbers[k].cast<py::sequence>();
        const auto count = static_cast<std::size_t>(current_level().families[group.family]->hyperparameter_count);
        if (values.size() != count + term_count)
            throw py::value_error(refusal("the numbers of a group", "be " + std::to_string(count + term_count),
                                          std::to_string(values.size())));
        for (std::size_t i = 0; i < count; ++i) group.hyperparameters[i] = values[i].cast<double>();
        const auto clip_value = values[count].cast<double>();
        const auto decay = values[count + 1].cast<double>();
        const bool after = values[count + 5].cast<bool>();
        const double l2 = after ? 0 : decay;
        const auto l1 = values[count + 2].cast<double>();
        const bool decoupled = values[count + 4].cast<bool>();
        group.terms = {false,
                       std::isfinite(clip_value),
                       values[count + 3].cast<bool>(),
                       l2 != 0,
                       l1 != 0 && !decoupled,
                       1.0,
                       clip_value,
                       l2,
                       l1};
        group.decoupled_l1 = decoupled ? l1 : 0;
        group.decay_after = after ? decay : 0;
    }
    *this = std::move(parsed);
}

namespace {

PyObject* name_of_now() {
    static PyObject* const name = PyUnicode_InternFromString("now");
    return name;
}

}  // namespace

py::object CurrentNumbers::now() const {
    auto now = py::reinterpret_steal<py::object>(PyObject_GetAttr(current_.ptr(), name_of_now()));
    if (!now) throw py::error_already_set();
    return now;
}

void CurrentNumbers::replace(const py::object& now) {
    if (PyObject_SetAttr(current_.ptr(), name_of_now(), now.ptr()) != 0) throw py::error_already_set();
}

void CurrentNumbers::settle(py::handle owner, std::int64_t completed, Hyperparameters& into) {
    py::object now = this->now();
    if (now.is(taken_) && completed < ask_from_) return;
    const FloatEnvironment environment;  // schedules compute, too
    const auto result = owner.attr("_hyperparameters_at")(completed).cast<py::tuple>();
    into.take(result[0].cast<py::sequence>(), result[1].cast<py::sequence>());
    ask_from_ = result[2].cast<std::int64_t>();
    taken_ = std::move(now);  // an object that has replaced it meanwhile is for the next step
}

int CurrentNumbers::traverse(visitproc visit, void* arg) const {
    Py_VISIT(current_.ptr());
    Py_VISIT(taken_.ptr());
    return 0;
}

}  // namespace instep
