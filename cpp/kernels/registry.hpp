// The table of rules of one level.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/sweep.hpp"
#include "rules/adam.hpp"
#include "rules/rmsprop.hpp"
#include "rules/sgd.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule>
void prepare(const double* hyperparameters, std::int64_t t, void* scalars) {
    static_assert(sizeof(Rule) <= max_scalar_bytes);
    const Rule rule = Rule::prepare(hyperparameters, t);
    std::memcpy(scalars, static_cast<const void*>(&rule), sizeof rule);
}

template <template <class, unsigned> class Rule, unsigned Options>
constexpr Variant make_variant() {
    Variant variant{};
    using Single = Rule<float, Options>;
    using Double = Rule<double, Options>;
    if constexpr (Single::valid) {
        variant.valid = true;
        variant.state_count = Single::slots;
        for (int k = 0; k < Single::slots; ++k) variant.states[k] = Single::states[k];
        variant.prepare[static_cast<int>(Compute::float32)] = prepare<Single>;
        variant.prepare[static_cast<int>(Compute::float64)] = prepare<Double>;
        variant.sweep[static_cast<int>(Compute::float32)] = sweep<Single, float>;
        variant.sweep[static_cast<int>(Compute::float64)] = sweep<Double, double>;
    }
    return variant;
}

template <template <class, unsigned> class Rule, class Choices>
struct Variants;

template <template <class, unsigned> class Rule, std::size_t... Options>
struct Variants<Rule, std::index_sequence<Options...>> {
    static constexpr Variant table[] = {make_variant<Rule, Options>()...};
};

template <template <class, unsigned> class Rule>
constexpr RuleFamily make_family() {
    using Any = Rule<float, 0>;
    RuleFamily family{};
    family.name = Any::name;
    for (const char* name : Any::hyperparameters) family.hyperparameters[family.hyperparameter_count++] = name;
    constexpr int option_count = sizeof(Any::options) / sizeof(Any::options[0]);
    family.option_count = option_count;
    family.options = Any::options;
    family.variants = Variants<Rule, std::make_index_sequence<(std::size_t{1} << option_count)>>::table;
    return family;
}

constexpr RuleFamily families[] = {
    make_family<SGD>(),
    make_family<RMSprop>(),
    make_family<Adam>(),
};

}  // namespace
}  // namespace instep::INSTEP_LEVEL
