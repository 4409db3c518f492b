// The description that a rule gives of itself (rules/rule.hpp), with defaults for the parts that it leaves out.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class Rule, class = void>
struct Hyperparameters {
    static constexpr int count = 0;
    static constexpr const char* const* names = nullptr;
};
template <class Rule>
struct Hyperparameters<Rule, std::void_t<decltype(Rule::hyperparameters)>> {
    static constexpr int count = sizeof(Rule::hyperparameters) / sizeof(const char*);
    static constexpr const char* const* names = Rule::hyperparameters;
    static_assert(count <= max_hyperparameters);
};

template <class Rule, class = void>
struct OptionsOf {
    static constexpr int count = 0;
    static constexpr const char* const* names = nullptr;
};
template <class Rule>
struct OptionsOf<Rule, std::void_t<decltype(Rule::options)>> {
    static constexpr int count = sizeof(Rule::options) / sizeof(const char*);
    static constexpr const char* const* names = Rule::options;
};

template <class Rule, class = void>
struct States {
    static constexpr int count = 0;
    static constexpr StateName at(int /* k */) { return {}; }
};
template <class Rule>
struct States<Rule, std::void_t<decltype(Rule::states)>> {
    static constexpr int count = sizeof(Rule::states) / sizeof(StateName);
    static constexpr StateName at(int k) { return k < count ? Rule::states[k] : StateName{}; }
    static_assert(count <= max_states);
};

// The places of the arguments that operator() takes after parameter and gradient.
template <class Rule>
using Slots = std::make_index_sequence<std::size_t{States<Rule>::count}>;

template <class Rule, std::size_t K>
constexpr bool has_state = States<Rule>::at(static_cast<int>(K)).used;

template <class Rule, std::size_t... K>
constexpr bool has_any_state(std::index_sequence<K...> /* places */) {
    return (has_state<Rule, K> || ...);
}

template <class Rule, class = void>
struct ScalarStates {
    static constexpr int count = 0;
    static constexpr ScalarStateName at(int /* k */) { return {}; }
};
template <class Rule>
struct ScalarStates<Rule, std::void_t<decltype(Rule::scalar_states)>> {
    static constexpr int count = sizeof(Rule::scalar_states) / sizeof(ScalarStateName);
    static constexpr ScalarStateName at(int k) { return k < count ? Rule::scalar_states[k] : ScalarStateName{}; }
    static_assert(count <= max_scalar_states);
};

template <class Rule>
constexpr bool has_number() {
    bool used = false;
    for (int k = 0; k < max_scalar_states; ++k) used = used || ScalarStates<Rule>::at(k).used;
    return used;
}

template <class Rule, class = void>
constexpr int sum_count = 0;
template <class Rule>
constexpr int sum_count<Rule, std::void_t<decltype(Rule::sum_count)>> = Rule::sum_count;

template <class Rule, class = void>
constexpr bool is_joint = false;
template <class Rule>
constexpr bool is_joint<Rule, std::void_t<decltype(Rule::joint)>> = Rule::joint;

template <class Rule, class = void>
constexpr bool is_of_matrices = false;
template <class Rule>
constexpr bool is_of_matrices<Rule, std::void_t<decltype(Rule::of_matrices)>> = Rule::of_matrices;

// Whether the array in this place is what a rule of matrices has kept, which it gets after its states.
template <class Rule, std::size_t K>
constexpr bool is_kept = is_of_matrices<Rule> && K == static_cast<std::size_t>(States<Rule>::count);

using Condition = bool (*)(const Moment&);
template <class Rule, class = void>
constexpr Condition takes_part_of = nullptr;
template <class Rule>
constexpr Condition takes_part_of<Rule, std::void_t<decltype(&Rule::takes_part)>> = Rule::takes_part;

// Whether averaged() shows something of the rule's own.
template <class Rule, class = void>
constexpr bool has_shown = false;
template <class Rule>
constexpr bool has_shown<Rule, std::void_t<decltype(&Rule::shown)>> = true;

using Rate = double (*)(const Moment&);
template <class Rule, class = void>
constexpr Rate rate_of = nullptr;
template <class Rule>
constexpr Rate rate_of<Rule, std::void_t<decltype(&Rule::rate)>> = Rule::rate;

template <class Rule, class = void>
constexpr bool is_valid = true;
template <class Rule>
constexpr bool is_valid<Rule, std::void_t<decltype(Rule::valid)>> = Rule::valid;

template <class Rule, class = void>
constexpr bool is_hot = false;
template <class Rule>
constexpr bool is_hot<Rule, std::void_t<decltype(Rule::hot)>> = Rule::hot;

template <class Rule, class = void>
constexpr unsigned scalar_options = 0;
template <class Rule>
constexpr unsigned scalar_options<Rule, std::void_t<decltype(Rule::scalar_options)>> = Rule::scalar_options;

}  // namespace
}  // namespace instep::INSTEP_LEVEL
