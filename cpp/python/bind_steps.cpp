#include "python/bind_steps.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "python/garbage.hpp"
#include "python/steps.hpp"
#include "runtime/shared_team.hpp"

namespace instep {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

// Holds the lock for a call; at its end, gradients and memory are released.
class Call {
public:
    explicit Call(Steps& steps) : steps_(steps), guard_(steps.lock()) {}
    ~Call() { steps_.let_go(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    Call(Call&&) = delete;
    Call& operator=(Call&&) = delete;

private:
    Steps& steps_;
    StepLock::Guard guard_;
};

std::size_t checked_place(const Steps& steps, std::int64_t place) {
    if (place < 0 || static_cast<std::size_t>(place) >= steps.count())
        throw py::index_error(
            refusal("place", "be one of the " + std::to_string(steps.count()) + " places", std::to_string(place)) +
            "; append makes more");
    return static_cast<std::size_t>(place);
}

void collect(Steps& steps, const py::sequence& sequence) {
    steps.gradients().clear();
    // The length of a list or tuple is the number of its items, whatever a class of the caller says.
    const bool is_stored = PyList_Check(sequence.ptr()) || PyTuple_Check(sequence.ptr());
    const std::size_t count =
        is_stored ? static_cast<std::size_t>(PySequence_Fast_GET_SIZE(sequence.ptr())) : sequence.size();
    if (count != steps.count())
        throw py::value_error(
            refusal("gradients",
                    "have " + std::to_string(steps.count()) + " entries, one for each place (None for no gradient)",
                    std::to_string(count)));
    if (is_stored) {  // taking its items runs no code
        PyObject** items = PySequence_Fast_ITEMS(sequence.ptr());
        for (std::size_t i = 0; i < count; ++i)
            steps.gradients().push_back(py::reinterpret_borrow<py::object>(items[i]));
        return;
    }
    // By number, each item held at once: a sequence may make items when it is asked, and its length may change then.
    for (std::size_t i = 0; i < count; ++i) steps.gradients().push_back(py::object(sequence[i]));
}

void step(Steps& steps, const py::object& gradients, const py::sequence& numbers, const py::sequence& extras,
          double grad_scale) {
    const Call call(steps);
    steps.take_numbers(numbers, extras);
    if (gradients.is_none()) return steps.step_accumulated(grad_scale);
    collect(steps, gradients.cast<py::sequence>());
    steps.step(grad_scale);
}

void check_group(Steps& steps, int group) {
    const std::size_t count = steps.hyperparameters().groups.size();
    if (group < 0 || static_cast<std::size_t>(group) >= count)
        throw py::index_error(
            refusal("group", "be one of the " + std::to_string(count) + " groups", std::to_string(group)) +
            "; add_group makes more");
}

void bind(Steps& steps, std::int64_t place, const std::string& name, int group, const py::object& parameter,
          const py::dict& states, const py::object& average, const py::object& copy, const py::object& t) {
    const std::size_t checked = checked_place(steps, place);
    check_group(steps, group);
    constexpr std::int64_t most = std::int64_t{1} << 53;  // the largest number in a state_dict
    Binding binding;
    if (PyLong_Check(t.ptr())) {
        binding.steps = t.cast<std::int64_t>();
        if (binding.steps < 0 || binding.steps > most)
            throw py::value_error(refusal("t", "be an int from 0 to 2**53", std::to_string(binding.steps)));
    } else {
        binding.counter = t;
    }
    binding.name = name;
    binding.group = group;
    binding.parameter = parameter;
    binding.states = states;
    binding.average = average;
    binding.copy = copy;
    const Call call(steps);
    steps.bind(checked, binding);
}

}  // namespace

void bind_steps(py::module_& m) {
    py::class_<Steps>(m, "Steps", py::is_final(), py::custom_type_setup(traversed<Steps>),
                      "Places that are bound to arrays, and steps over them; made by make_steps.")
        .def(
            "add_group",
            [](Steps& steps, const std::string& rule, const py::sequence& options) {
                const Call call(steps);
                return steps.add_group(rule, options);
            },
            "rule"_a, "options"_a, "Returns the number of a new group.")
        .def(
            "set_group",
            [](Steps& steps, int group, const std::string& rule, const py::sequence& options) {
                check_group(steps, group);
                const Call call(steps);
                steps.set_group(group, rule, options);
            },
            "group"_a, "rule"_a, "options"_a, "Another rule for an unused group.")
        .def(
            "append",
            [](Steps& steps, std::int64_t count) {
                if (count < 0)
                    throw py::value_error(refusal("count", "be an int of at least 0", std::to_string(count)));
                const Call call(steps);
                steps.append(static_cast<std::size_t>(count));
            },
            "count"_a, "Makes more places, empty ones.")
        .def("__len__", &Steps::count)
        .def_property_readonly("rules_of_groups", &Steps::rules_of_groups, "For each group its rule and options.")
        .def_property_readonly("averages", &Steps::averages, "How many places have an average.")
        .def("bind", &bind, "place"_a, "name"_a, "group"_a, "parameter"_a, "states"_a, "average"_a, "copy"_a, "t"_a,
             "Binds a place, whatever it was bound to.")
        .def(
            "unbind",
            [](Steps& steps, std::int64_t place) {
                const std::size_t checked = checked_place(steps, place);
                const Call call(steps);
                steps.unbind(checked);
            },
            "place"_a, "Empties a place.")
        .def(
            "is_bound",
            [](const Steps& steps, std::int64_t place) { return steps.bound(checked_place(steps, place)).is_bound; },
            "place"_a, "Whether a place is bound.")
        .def(
            "t", [](const Steps& steps, std::int64_t place) { return steps.steps_of(checked_place(steps, place)); },
            "place"_a, "Completed steps of a place.")
        .def(
            "changed_places",
            [](Steps& steps) {
                const Call call(steps);
                steps.arrange();
                py::list places;
                for (const std::size_t place : steps.changed_places()) places.append(place);
                return places;
            },
            "Places of which an array has changed since it was bound.")
        .def(
            "show",
            [](Steps& steps, const py::sequence& numbers, const py::sequence& extras) {
                const Call call(steps);
                steps.take_numbers(numbers, extras);
                steps.show();
            },
            "numbers"_a, "extras"_a, "Puts what the rules average in the places of the parameters.")
        .def("step", &step, "gradients"_a, "numbers"_a, "extras"_a, "grad_scale"_a, "Takes one step.")
        .def(
            "accumulate",
            [](Steps& steps, const py::sequence& gradients) {
                const Call call(steps);
                collect(steps, gradients);
                steps.accumulate();
            },
            "gradients"_a, "Adds gradients for the next step.")
        .def(
            "discard_accumulated",
            [](Steps& steps) {
                const Call call(steps);
                steps.stepper().clear_pending();
            },
            "Forgets what was accumulated.")
        .def(
            "share_team",
            [](Steps& steps, const team::SharedTeam* team) {
                const Call call(steps);
                steps.stepper().set_team(team == nullptr ? team::alone() : *team);
            },
            "team"_a.none(true), "Steps on these threads from now on; on the calling thread alone if it is None.")
        .def_property_readonly("step_count", &Steps::step_count, "Completed steps.")
        .def_property_readonly("skipped_steps", &Steps::skipped_steps, "Steps that changed nothing.")
        .def_property_readonly("grad_norm", &Steps::grad_norm, "Norm in the last step, None without one.");
    m.def(
        "states_of",
        [](const std::string& rule, const py::sequence& options) {
            const Variant& variant = variant_of(make_group(rule, options));
            py::list names;
            for (const auto& state : variant.states)
                if (state.used) names.append(state.name);
            for (const auto& state : variant.scalar_states)
                if (state.used) names.append(state.name);
            return py::tuple(names);
        },
        "rule"_a, "options"_a, "The states of a rule with these options; those that are one number come last.");
    m.def(
        "make_steps",
        [](std::pair<bool, bool> rounding, std::uint64_t seed) {
            auto steps = std::make_unique<Steps>(RandomRounding{rounding.first, rounding.second}, true);
            steps->stepper().set_seed(seed);
            return steps;
        },
        "rounding"_a = std::pair(true, false), "seed"_a = 0, "Steps without a place.");
}

}  // namespace instep
