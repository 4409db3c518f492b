#include "python/plan.hpp"

#include <pybind11/stl.h>

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

int family_index(const std::string& rule) {
    const int family = find_family(current_level(), rule);
    if (family < 0) throw py::value_error("there is no rule '" + rule + "'");
    return family;
}

ContainerKind container_kind(const std::string& name) {
    if (name == "array") return ContainerKind::array;
    return name == "sequence" ? ContainerKind::sequence : ContainerKind::mapping;
}

Format compute_format(const Tensor& tensor) {
    return tensor.compute == Compute::float64 ? Format::float64 : Format::float32;
}

}  // namespace

Plan::Plan(const py::list& groups, bool grouped, const py::object& state_dtype, bool averaged) {
    std::vector<Container> containers;
    for (const py::handle item : groups) {
        const auto fields = item.cast<py::tuple>();
        Group group{};
        group.family = family_index(fields[0].cast<std::string>());
        const RuleFamily& family = *current_level().families[group.family];
        group.options = option_bits(family, fields[1].cast<py::sequence>());
        if (!family.variants[group.options].valid)
            throw py::value_error(std::string("rule '") + family.name + "' has no variant with these options");
        const auto names = fields[4].cast<std::vector<std::string>>();
        const auto arrays = fields[5].cast<py::sequence>();
        const auto copies = fields[6].cast<py::sequence>();
        Container container{container_kind(fields[2].cast<std::string>()), {}, names.size(), "the gradients"};
        if (grouped) container.called += " of group " + std::to_string(containers.size());
        for (const py::handle key : fields[3].cast<py::sequence>()) container.keys.push_back(key.cast<py::str>());
        containers.push_back(std::move(container));
        hyperparameters_.groups.push_back(group);
        for (std::size_t i = 0; i < names.size(); ++i)
            bind(names[i], arrays[i], copies[i], static_cast<int>(hyperparameters_.groups.size()) - 1, state_dtype,
                 averaged);
    }
    make_states(state_dtype, averaged);
    hyperparameters_.clip_norm = std::nan("");
    hyperparameters_.average_rate = 0;
    hyperparameters_.not_finite = NotFinite::propagate;
    check_overlaps();
    own_all();
    stepper_ = std::make_unique<Stepper>(std::move(unplanned_));
    stepper_->set_to_parameters(current_level(), &Operands::average);
    stepper_->set_to_parameters(current_level(), &Operands::copy);
    collector_ = std::make_unique<GradientCollector>(std::move(containers), grouped);
    collected_.reserve(bound_.size());
}

void Plan::hold(const std::string& who, const py::object& array) {
    const ArrayFields fields(array.ptr());
    held_.push_back({array.ptr(), fields.descr, fields.data, fields.ndim, extents_.size()});
    extents_.insert(extents_.end(), fields.shape, fields.shape + fields.ndim);
    extents_.insert(extents_.end(), fields.strides, fields.strides + fields.ndim);
    named_.push_back({who, py::reinterpret_borrow<py::array>(array), py::reinterpret_borrow<py::dtype>(fields.descr)});
    weak_.push_back(py::weakref(array));
}

void Plan::bind(const std::string& name, const py::object& parameter, const py::object& copy, int group,
                const py::object& state_dtype, bool averaged) {
    const std::string who = "parameter '" + name + "'";
    const Format format = check_parameter(parameter, who);
    Bound bound;
    bound.name = name;
    const ArrayFields fields(parameter.ptr());
    known_.emplace_back();
    known_.back().param = held_.size();
    hold(who, parameter);
    known_.back().strides = extents_.size();
    extents_.insert(extents_.end(), fields.strides, fields.strides + fields.ndim);
    bound.shape = {fields.shape, fields.shape + fields.ndim};
    bound.order = memory_order(bound.shape, {fields.strides, fields.strides + fields.ndim});
    bound.dense = dense_strides(bound.shape, bound.order, 1);
    bound.logical_dense = dense_strides(bound.shape, logical_order(fields.ndim), 1);

    auto tensor = std::make_unique<Tensor>();
    tensor->size = fields.size();
    tensor->compute = format == Format::float64 ? Compute::float64 : Compute::float32;
    tensor->group = group;
    Operands& operands = tensor->operands;
    operands.param = {fields.data, format, nullptr};
    if (!same_strides(fields.shape, fields.strides, bound.dense.data(), fields.ndim, item_size(format))) {
        tensor->param_layout.assign(fields.shape, fields.strides, bound.order);
        operands.param.view = &tensor->param_layout.view();
    }
    std::int64_t streams = 3;  // the gradient is read, the parameter read and written

    const Format compute = compute_format(*tensor);
    const Format state_format = state_dtype.is_none() ? compute : format_of_dtype(state_dtype, "state_dtype");
    if (item_size(state_format) > item_size(compute))
        throw py::value_error(std::string("state_dtype ") + format_name(state_format) + " is wider than " +
                              format_name(compute) + ", the compute type of " + who +
                              "; that or a narrower one is wanted");
    const Variant& variant = variant_of(*tensor);
    for (int k = 0; k < variant.state_count; ++k) {
        operands.states[k].format = state_format;
        streams += variant.states[k].used ? 2 : 0;
    }
    operands.average.format = compute;
    streams += averaged ? 2 : 0;
    if (!copy.is_none()) {
        const Format copy_format = check_copy(copy, "the copy of '" + name + "'", bound.shape, format);
        const ArrayFields copied(copy.ptr());
        hold("the copy of '" + name + "'", copy);
        operands.copy = {copied.data, copy_format, nullptr};
        if (!same_strides(copied.shape, copied.strides, bound.dense.data(), copied.ndim, item_size(copy_format))) {
            tensor->copy_layout.assign(copied.shape, copied.strides, bound.order);
            operands.copy.view = &tensor->copy_layout.view();
        }
        streams += 1;
    }
    tensor->work = tensor->size * streams * item_size(compute);
    bound_.push_back(std::move(bound));
    unplanned_.push_back(std::move(tensor));
}

const Variant& Plan::variant_of(const Tensor& tensor) const {
    const Group& group = hyperparameters_.groups[static_cast<std::size_t>(tensor.group)];
    return current_level().families[group.family]->variants[group.options];
}

// New arrays in the order of their parameters' elements, for each parameter for which wanted(i) returns the operand
// that is to have one; keep(i, array) is called with it. Each is of the operand's format, by which dtype goes where it
// is None.
template <class Wanted, class Keep>
void Plan::make_arrays(int place, const py::object& dtype, Wanted wanted, Keep keep) {
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (const Operand* operand = wanted(i))
            bytes += Room::rounded(unplanned_[i]->size * item_size(operand->format));
    Room room(bytes, place);
    weak_.push_back(room.weak_reference());
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        Operand* const operand = wanted(i);
        if (operand == nullptr) continue;
        const py::dtype own =
            dtype.is_none() ? py::dtype(format_name(operand->format)) : py::reinterpret_borrow<py::dtype>(dtype);
        const py::array array = room.take(bound_[i].shape, bound_[i].order, own);
        operand->data = ArrayFields(array.ptr()).data;
        keep(i, array);
    }
}

void Plan::make_states(const py::object& state_dtype, bool averaged) {
    for (int k = 0; k < max_states; ++k) {
        const auto state = [this, k](std::size_t i) { return variant_of(*unplanned_[i]).states[k]; };
        make_arrays(
            1 + k, state_dtype,
            [&](std::size_t i) { return state(i).used ? &unplanned_[i]->operands.states[k] : nullptr; },
            [&](std::size_t i, const py::array& array) { bound_[i].states[state(i).name] = array; });
    }
    if (!averaged) return;
    make_arrays(
        1 + max_states, py::none(), [this](std::size_t i) { return &unplanned_[i]->operands.average; },
        [this](std::size_t i, const py::array& array) { bound_[i].average = array; });
}

void Plan::make_accumulated(std::size_t i) {
    Bound& bound = bound_[i];
    if (!bound.accumulated.is_none()) return;
    Tensor& tensor = stepper_->tensor(i);
    const Format format = compute_format(tensor);
    Room room(Room::rounded(tensor.size * item_size(format)), 2 + max_states);
    weak_.push_back(room.weak_reference());
    const py::array array = room.take(bound.shape, bound.order, py::dtype(format_name(format)));
    const ArrayFields fields(array.ptr());
    tensor.accumulated = {fields.data, format, nullptr};
    tensor.logical_order_of_accumulated = tensor.accumulated;
    if (!same_strides(fields.shape, fields.strides, bound.logical_dense.data(), fields.ndim, item_size(format))) {
        tensor.accumulated_layout.assign(fields.shape, fields.strides, logical_order(fields.ndim));
        tensor.logical_order_of_accumulated.view = &tensor.accumulated_layout.view();
    }
    bound.accumulated = array;
    owned_.add(array, "the accumulated gradient of '" + bound.name + "'");
    owned_.finish();
    for (Known& known : known_) known.descr = nullptr;  // what was free memory may now be this array's
}

void Plan::check_overlaps() {
    for (const Named& named : named_) owned_.add(named.array, named.who);
    owned_.finish();
    for (std::size_t k = 0; k < held_.size(); ++k) {
        const Held& held = held_[k];
        const Named& named = named_[k];
        const ByteRange range = byte_range(shape_of(held), strides_of(held), held.ndim, named.array.itemsize());
        neighbours_.clear();
        if (range.low != range.high) owned_.find(held.data + range.low, held.data + range.high, neighbours_);
        for (const OwnedMemory::Owner* other : neighbours_) {
            if (other->what == named.who || !share_memory(named.array, other->array)) continue;
            throw py::value_error(named.who + " shares memory with " + other->what +
                                  "; arrays that don't overlap are wanted, or an element would be written twice");
        }
    }
}

void Plan::own_all() {
    for (const Bound& bound : bound_) {
        for (const auto& state : bound.states)
            owned_.add(py::reinterpret_borrow<py::array>(state.second),
                       "state '" + py::cast<std::string>(state.first) + "' of '" + bound.name + "'");
        if (!bound.average.is_none())
            owned_.add(py::reinterpret_borrow<py::array>(bound.average), "the average of '" + bound.name + "'");
    }
    owned_.finish();
}

Plan::Hyperparameters Plan::parse(const py::sequence& settings, const py::sequence& extras) const {
    const FloatEnvironment environment;
    Hyperparameters parsed{hyperparameters_.groups, extras[0].cast<double>(), 1.0 - extras[1].cast<double>(),
                           static_cast<NotFinite>(extras[2].cast<int>())};
    if (settings.size() != parsed.groups.size()) throw py::value_error("settings: one sequence a group is wanted");
    for (std::size_t k = 0; k < parsed.groups.size(); ++k) {
        Group& group = parsed.groups[k];
        const auto values = settings[k].cast<py::sequence>();
        const auto count = static_cast<std::size_t>(current_level().families[group.family]->hyperparameter_count);
        if (values.size() != count + term_count) throw py::value_error("settings: wrong number of values for a group");
        for (std::size_t i = 0; i < count; ++i) group.hyperparameters[i] = values[i].cast<double>();
        const auto clip_value = values[count].cast<double>();
        const auto l2 = values[count + 1].cast<double>();
        const auto l1 = values[count + 2].cast<double>();
        group.terms = {
            false, std::isfinite(clip_value), values[count + 3].cast<bool>(), l2 != 0, l1 != 0, 1.0, clip_value, l2,
            l1};
    }
    return parsed;
}

}  // namespace instep
