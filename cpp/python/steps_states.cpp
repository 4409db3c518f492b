// The states to which a place is bound: how each is stored, and the memory besides it, units of codes and the
// remainders of a parameter.
#include <algorithm>
#include <utility>

#include "python/state_storage.hpp"
#include "python/steps.hpp"
#include "runtime/copying.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

std::string names_of(const py::dict& states) {
    std::string names;
    for (const auto& item : states)
        names += (names.empty() ? "'" : ", '") + py::cast<std::string>(py::str(item.first)) + "'";
    return names.empty() ? "none" : names;
}

py::object state_in(const Binding& binding, const char* name, const std::string& who) {
    if (!binding.states.contains(name))
        throw py::value_error(refusal(who, "be among the states", names_of(binding.states)));
    return binding.states[name];
}

// Random numbers and codes go by the place of an element in logical order.
bool is_rounded_at_random(const StateKind& kind, Format format, bool chosen) {
    if (item_size(format) > 2) return false;
    if (is_coded(format) || kind.in_16_bits == Rounding::chosen) return chosen;
    return kind.in_16_bits == Rounding::stochastic;
}

[[noreturn]] void refuse_codes(const std::string& who, const char* expected, const TensorView& view) {
    throw py::value_error(refusal(who, expected, format_name(view.format)));
}

}  // namespace

bool Steps::goes_by_element(const StateKind& kind, Format format, RandomRounding rounding) {
    return is_coded(format) || is_rounded_at_random(kind, format, rounding.states);
}

std::string unit_name(const std::string& state) { return state + "_unit"; }

Format Steps::format_of_state(const StateKind& kind, const TensorView& view, Format compute, const std::string& who) {
    if (is_coded(view.format)) {
        if (compute == Format::float64)
            refuse_codes(who, "have a floating-point dtype, as its parameter is computed in float64", view);
        if (!kind.eight_bits)
            refuse_codes(who, "have a floating-point dtype, as the rule can't have it in 8 bits", view);
        if ((view.format == Format::signed8) != kind.is_signed)
            refuse_codes(who, kind.is_signed ? "have codes of dtype int8" : "have codes of dtype uint8", view);
        return view.format;
    }
    if (view.format == Format::rest16) refuse_codes(who, "have a floating-point dtype, or codes", view);
    if (item_size(view.format) > item_size(compute))
        throw py::value_error(refusal(
            who,
            std::string("have dtype ") + format_name(compute) + ", in which its parameter is computed, or narrower",
            format_name(view.format)));
    return view.format == Format::float16 && kind.root ? Format::root16 : view.format;
}

bool Steps::goes_by_element(const Binding& binding, const TensorView& view) const {
    if (rounding_.parameters && item_size(view.format) == 2) return true;
    const Variant& variant = variant_of(hyperparameters_.groups.at(static_cast<std::size_t>(binding.group)));
    for (int k = 0; k < variant.state_count; ++k) {
        if (!variant.states[k].used || !binding.states.contains(variant.states[k].name)) continue;
        const Look look(py::object(binding.states[variant.states[k].name]).ptr(),
                        state_of(binding.name, variant.states[k].name), takes_tensors_, Elements::also_codes);
        if (goes_by_element(variant.states[k].kind, look.view().format, rounding_)) return true;
    }
    return false;
}

Operand Steps::bind_array(Tensor& tensor, Place& bound, std::size_t kind, const py::object& array,
                          const std::string& who) const {
    require_unmasked(array.ptr(), who);
    const Look look(array.ptr(), who, takes_tensors_, kind == remainder ? Elements::remainders : Elements::also_codes);
    const TensorView& view = look.view();
    require_shape(view, who, bound.shape.data(), static_cast<int>(bound.shape.size()));
    require_parameter(view, who, lies_in_file(view.data) ? ReadOnly::taken : ReadOnly::refused);
    bound.see(kind, array, look);
    return operand_of(view, bound.order, bound.dense, tensor);
}

// Binds states and average: they must be there, with the parameter's shape and in formats that can hold them.
void Steps::bind_states(Tensor& tensor, Place& bound, const Binding& binding) const {
    const Format compute = compute_format(tensor.compute);
    const Variant& variant = variant_of(hyperparameters_.groups.at(static_cast<std::size_t>(bound.group)));
    for (int k = 0; k < variant.state_count; ++k) {
        Operand& operand = tensor.operands.states[k];
        operand.format = compute;
        if (!variant.states[k].used) continue;
        const char* const name = variant.states[k].name;
        const std::string who = state_of(bound.name, name);
        const py::object array = state_in(binding, name, who);
        operand = bind_array(tensor, bound, first_state + static_cast<std::size_t>(k), array, who);
        operand.format = format_of_state(variant.states[k].kind, Place::view_of(bound.arrays.back()), compute, who);
        operand.stochastic = is_rounded_at_random(variant.states[k].kind, operand.format, rounding_.states);
        operand.stream = k < 2 ? 0 : 2;
        operand.part = static_cast<unsigned char>(k % 2);
        bound.states[name] = array;
        if (is_coded(operand.format)) bind_units(operand, bound, binding, static_cast<std::size_t>(k), tensor.size);
    }
    tensor.operands.average.format = compute;
    if (binding.average.is_none()) return;
    const std::string who = "the average of '" + bound.name + "'";
    tensor.operands.average = bind_array(tensor, bound, average, binding.average, who);
    if (tensor.operands.average.format != compute)
        throw py::value_error(
            refusal(who, std::string("have dtype ") + format_name(compute) + ", in which its parameter is computed",
                    format_name(tensor.operands.average.format)));
    bound.average = binding.average;
}

void Steps::bind_units(Operand& operand, Place& bound, const Binding& binding, std::size_t k, std::int64_t size) const {
    const std::string state = variant_of(hyperparameters_.groups[static_cast<std::size_t>(bound.group)]).states[k].name;
    if (operand.view != nullptr)
        throw py::value_error(
            refusal(state_of(bound.name, state), "be C-contiguous, as it has codes", "an array with other strides"));
    const std::string name = unit_name(state);
    const std::string who = state_of(bound.name, name);
    const py::object array = state_in(binding, name.c_str(), who);
    require_unmasked(array.ptr(), who);
    const Look look(array.ptr(), who, takes_tensors_);
    const TensorView& view = look.view();
    const std::int64_t count = code_blocks(size);
    require_shape(view, who, &count, 1);
    require_parameter(view, who, lies_in_file(view.data) ? ReadOnly::taken : ReadOnly::refused);
    if (view.format != Format::float32)
        throw py::value_error(refusal(who, "have dtype float32", format_name(view.format)));
    const Extents dense{1};
    if (!same_strides(view.shape, view.strides, dense.data(), 1, item_size(Format::float32)))
        throw py::value_error(refusal(who, "be C-contiguous", "an array with other strides"));
    bound.see(first_unit + k, array, look);
    operand.companion = view.data;
    bound.states[py::str(name)] = array;
}

// The parameter itself, with its remainder if it has one.
void Steps::bind_parameter(Tensor& tensor, Place& bound, const Binding& binding, const TensorView& view) const {
    Operand& operand = tensor.operands.param;
    operand = operand_of(view, bound.order, bound.dense, tensor);
    operand.stochastic = rounding_.parameters && item_size(view.format) == 2;
    operand.stream = parameter_stream;
    operand.part = 1;
    if (!binding.states.contains(remainder_name)) return;
    const std::string who = state_of(bound.name, remainder_name);
    if (view.format != Format::bfloat16)
        throw py::value_error(
            refusal(who, "be of a parameter in bfloat16", std::string("one in ") + format_name(view.format)));
    const py::object array = state_in(binding, remainder_name, who);
    const Operand rest = bind_array(tensor, bound, remainder, array, who);
    if (rest.format != Format::signed8 && rest.format != Format::rest16)
        throw py::value_error(refusal(who, "have dtype int8 or int16", format_name(rest.format)));
    operand.format = rest.format == Format::signed8 ? Format::bfloat16_8 : Format::bfloat16_16;
    operand.companion = rest.data;
    operand.companion_view = rest.view;
    bound.states[remainder_name] = array;
}

void Steps::reset_remainders() {
    arrange();
    Windows* const windows = stepper_.windows();
    if (windows != nullptr) windows->files().require_whole();
    std::int16_t zero = 0;  // one for all elements, since a parameter may be large
    const std::int64_t no_stride = 0;
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        if (!bound_[i].is_bound || !bound_[i].states.contains(remainder_name)) continue;
        const Tensor& tensor = stepper_.tensor(i);
        const Operand rest = companion_of(tensor.operands.param);
        const View zeros{1, &tensor.size, &no_stride};
        const Operand from{reinterpret_cast<char*>(&zero), rest.format, &zeros};
        if (windows != nullptr && windows->have(rest))
            load_into_file(*windows, from, rest, tensor.size);
        else
            copy_elements(from, rest, tensor.size);
    }
}

void Steps::require_known_states(const Place& bound, const Binding& binding) {
    for (const auto& item : py::dict(binding.states))
        if (!bound.states.contains(item.first))
            throw py::value_error(
                refusal("a state of '" + bound.name + "'",
                        "be one that the rule has with the group's options (" + names_of(bound.states) + ")",
                        "'" + py::cast<std::string>(py::str(item.first)) + "'"));
}

// The parameter and its states in logical order.
void Steps::make_logical(Tensor& tensor, const Place& bound) {
    tensor.logical = std::make_unique<Operands>(tensor.operands);
    tensor.logical->average = tensor.logical->copy = Operand{};
    const auto turn = [&](std::size_t kind, Operand& operand) {
        const auto seen = std::find_if(bound.arrays.begin(), bound.arrays.end(),
                                       [kind](const Place::Seen& one) { return one.kind == kind; });
        if (seen == bound.arrays.end()) return;
        const TensorView view = Place::view_of(*seen);
        const Operand turned = operand_of(view, logical_order(view.ndim), bound.logical_dense, tensor);
        (kind == remainder ? operand.companion_view : operand.view) = turned.view;
    };
    turn(parameter, tensor.logical->param);
    turn(remainder, tensor.logical->param);
    for (std::size_t k = 0; k < max_states; ++k) turn(first_state + k, tensor.logical->states[k]);
}

std::size_t Steps::first_joint(std::size_t except) const {
    std::size_t place = 0;
    while (place < bound_.size() && (place == except || !bound_[place].is_bound || !variant_of(group_of(place)).joint))
        ++place;
    return place;
}

void Steps::bind_scalar_states(Tensor& tensor, Place& bound, const Binding& binding, std::size_t place) const {
    const Variant& variant = variant_of(hyperparameters_.groups.at(static_cast<std::size_t>(bound.group)));
    const std::size_t other = variant.joint ? first_joint(place) : bound_.size();
    for (int k = 0; k < max_scalar_states; ++k) {
        if (!variant.scalar_states[k].used) continue;
        const std::string who = state_of(bound.name, variant.scalar_states[k].name);
        const py::object array = state_in(binding, variant.scalar_states[k].name, who);
        require_unmasked(array.ptr(), who);
        const Look look(array.ptr(), who, takes_tensors_);
        require_shape(look.view(), who, nullptr, 0);
        require_parameter(look.view(), who);
        if (look.view().format != Format::float64)
            throw py::value_error(refusal(who, "have dtype float64", format_name(look.view().format)));
        if (other < bound_.size() && !array.is(bound_[other].states[variant.scalar_states[k].name]))
            throw py::value_error(refusal(who,
                                          "be the same array as " +
                                              state_of(bound_[other].name, variant.scalar_states[k].name) +
                                              ", as the rule has one for all parameters",
                                          "another array"));
        auto* const data = reinterpret_cast<double*>(look.view().data);
        // The other places would step memory that the tensor has left.
        if (other < bound_.size() && stepper_.tensor(other).scalar_states[k] != data)
            throw py::value_error(refusal(who, "have the memory with which '" + bound_[other].name + "' was bound",
                                          "the same tensor with other memory") +
                                  "; unbind all places of the rule first");
        bound.see(first_scalar + static_cast<std::size_t>(k), array, look);
        tensor.scalar_states[k] = data;
        bound.states[variant.scalar_states[k].name] = array;
    }
}

}  // namespace instep
