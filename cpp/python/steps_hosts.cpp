// What host programs need besides the steps: step counts that they keep, in an array of one number for each place (read
// before a step, written after it); what has changed in their arrays; and averages of rules that have one of their own.
#include <cmath>
#include <cstring>

#include "python/steps.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

constexpr double most = 9007199254740992.0;  // 2^53, as in a state_dict

std::string text_of(double value) { return py::cast<std::string>(py::repr(py::float_(value))); }

}  // namespace

double Steps::Counter::value() const {
    if (format == Format::float64) {
        double number = 0;
        std::memcpy(&number, data, sizeof number);
        return number;
    }
    float number = 0;
    std::memcpy(&number, data, sizeof number);
    return static_cast<double>(number);
}

// A float32 stays at 2^24, where the corrections that depend on the step have long been 1.
void Steps::Counter::set(std::int64_t steps) const {
    const auto wide = static_cast<double>(steps);
    const auto narrow = static_cast<float>(steps);
    if (format == Format::float64)
        std::memcpy(data, &wide, sizeof wide);
    else
        std::memcpy(data, &narrow, sizeof narrow);
}

void Steps::bind_counter(Place& bound, const Binding& binding) const {
    if (binding.counter.is_none()) return;
    const std::string who = "the step count of '" + bound.name + "'";
    require_unmasked(binding.counter.ptr(), who);
    const Look look(binding.counter.ptr(), who, takes_tensors_);
    require_shape(look.view(), who, nullptr, 0);
    require_parameter(look.view(), who);
    if (item_size(look.view().format) < item_size(Format::float32))
        throw py::value_error(refusal(who, "have dtype float64 or float32", format_name(look.view().format)));
    bound.counter = binding.counter;
    bound.see(counter, binding.counter, look);
}

std::int64_t Steps::steps_of(std::size_t place) const {
    const Place& bound = bound_[place];
    if (bound.counter.is_none()) return stepper_.steps(place);
    const Look look(bound.counter.ptr(), "the step count of '" + bound.name + "'", takes_tensors_);
    return checked({place, look.view().data, look.view().format});
}

std::int64_t Steps::checked(const Counter& from) const {
    const double value = from.value();
    const bool is_count = value >= 0 && value <= most && value == std::floor(value);
    if (!is_count)
        throw py::value_error(refusal("the step count of '" + bound_[from.place].name + "'",
                                      "be a whole number from 0 to 2**53", text_of(value)));
    return static_cast<std::int64_t>(value);
}

void Steps::read_counters() {
    for (const Counter& its : counters_)
        if (stepper_.present(its.place)) stepper_.set_steps(its.place, checked(its));
}

void Steps::write_counters() const {
    for (const Counter& its : counters_)
        if (stepper_.present(its.place)) its.set(stepper_.steps(its.place));
}

std::vector<std::size_t> Steps::changed_places() const {
    std::vector<bool> has_changed(bound_.size());
    const auto note = [&](const Held& held) {
        const std::size_t place = held.id / kinds;
        if (!is_joint(place, held.id % kinds))
            has_changed[place] = true;
        else  // a number that all these places share, of which only the first holds the array
            for (std::size_t i = 0; i < bound_.size(); ++i)
                if (bound_[i].is_bound && variant_of(group_of(i)).joint) has_changed[i] = true;
    };
    for (const Held& held : held_) {
        if (has_changed[held.id / kinds] && !is_joint(held.id / kinds, held.id % kinds)) continue;
        try {
            check_unchanged(held);
        } catch (const py::builtin_exception&) {
            note(held);
        } catch (const py::error_already_set&) {  // of a library that can no longer look at its tensor
            note(held);
        }
    }
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (has_changed[i]) places.push_back(i);
    return places;
}

void Steps::show() {
    arrange();
    check_unchanged();
    for (const Counter& its : counters_) stepper_.set_steps(its.place, checked(its));
    stepper_.arrange();
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (stepper_.is_bound(i)) stepper_.show(current_level(), i, group_of(i));
}

}  // namespace instep
