#include "python/steps.hpp"

#include <algorithm>
#include <utility>

#include "runtime/levels.hpp"

namespace instep {

namespace {

py::object rule_and_options(const Group& group) {
    const RuleFamily& family = *current_level().families[group.family];
    py::list options;
    for (const std::string& option : option_names(family, group.options)) options.append(option);
    return py::make_tuple(family.name, py::tuple(options));
}

}  // namespace

Format compute_format(Compute compute) { return compute == Compute::float64 ? Format::float64 : Format::float32; }

Operand operand_of(const TensorView& view, const Axes& order, const Extents& dense, Tensor& tensor) {
    Operand operand{view.data, view.format, nullptr};
    if (!same_strides(view.shape, view.strides, dense.data(), view.ndim, item_size(view.format))) {
        tensor.layouts.push_back(std::make_unique<StridedLayout>());
        tensor.layouts.back()->assign(view.shape, view.strides, order);
        operand.view = &tensor.layouts.back()->view();
    }
    return operand;
}

int Steps::add_group(const std::string& rule, const py::sequence& options) {
    const Group group = make_group(rule, options);
    py::tuple rules = rules_of_groups_ + py::make_tuple(rule_and_options(group));
    taken_numbers_ = py::none();
    hyperparameters_.groups.push_back(group);
    rules_of_groups_ = std::move(rules);
    return static_cast<int>(hyperparameters_.groups.size()) - 1;
}

void Steps::set_group(int group, const std::string& rule, const py::sequence& options) {
    const bool in_use = std::any_of(bound_.begin(), bound_.end(),
                                    [group](const Place& bound) { return bound.is_bound && bound.group == group; });
    if (in_use)
        throw py::value_error(refusal("group " + std::to_string(group), "have no bound place to get another rule",
                                      "a group with bound places") +
                              "; unbind them");
    const Group changed = make_group(rule, options);
    const auto place = static_cast<std::size_t>(group);
    py::list rules(rules_of_groups_);
    rules[place] = rule_and_options(changed);
    taken_numbers_ = py::none();
    hyperparameters_.groups.at(place) = changed;
    rules_of_groups_ = py::tuple(rules);
}

void Steps::take_numbers(const py::sequence& numbers, const py::sequence& extras) {
    if (numbers.is(taken_numbers_) && extras.is(taken_extras_)) return;
    taken_numbers_ = py::none();
    hyperparameters_.take(numbers, extras);
    if (!PyTuple_Check(numbers.ptr()) || !PyTuple_Check(extras.ptr())) return;  // others may change
    taken_numbers_ = numbers;
    taken_extras_ = extras;
}

void Steps::append(std::size_t count) {
    if (const std::size_t room = bound_.max_size() - bound_.size(); count > room)
        throw py::value_error(refusal("count", "be at most " + std::to_string(room), std::to_string(count)));
    stepper_.append(count);  // first: if memory runs out, places that exist only there do no harm
    bound_.resize(bound_.size() + count);
    arranged_ = false;
}

void Steps::Place::see(std::size_t kind, const py::object& array, const Look& look) {
    const TensorView& view = look.view();
    arrays.push_back({array.ptr(),
                      py::reinterpret_borrow<py::object>(look.descr()),
                      view.data,
                      {view.shape, view.shape + view.ndim},
                      {view.strides, view.strides + view.ndim},
                      view.format,
                      kind,
                      !view.writeable});
    memory.push_back(owner_of(array));
}

void Steps::bind(std::size_t place, const Binding& binding) {
    const std::string who = "parameter '" + binding.name + "'";
    require_unmasked(binding.parameter.ptr(), who);
    const Look look(binding.parameter.ptr(), who, takes_tensors_);
    const TensorView& view = look.view();
    require_parameter(view, who, binding.read_only, use_a_copy);
    Place bound;
    bound.is_bound = true;
    bound.name = binding.name;
    bound.group = binding.group;
    bound.parameter = binding.parameter;
    bound.shape = {view.shape, view.shape + view.ndim};
    bound.order = memory_order(bound.shape, {view.strides, view.strides + view.ndim});
    if (bound.order != logical_order(view.ndim) && goes_by_element(binding, view))
        bound.order = logical_order(view.ndim);
    bound.dense = dense_strides(bound.shape, bound.order, 1);
    bound.logical_dense = dense_strides(bound.shape, logical_order(view.ndim), 1);
    bound.see(parameter, binding.parameter, look);

    auto tensor = std::make_unique<Tensor>();
    tensor->size = view.size();
    tensor->compute = view.format == Format::float64 ? Compute::float64 : Compute::float32;
    tensor->group = binding.group;
    tensor->operands.number = place;
    const Variant& variant = variant_of(hyperparameters_.groups.at(static_cast<std::size_t>(bound.group)));
    tensor->of_its_own = variant.of_each_tensor;
    if (variant.of_matrices) {
        if (view.ndim != 2)
            throw py::value_error(refusal(who, "have two axes for a rule of matrices",
                                          "the shape " + text_of_shape(view.shape, view.ndim)) +
                                  "; give it to AdamW, and combine both by instep.Combined");
        tensor->rows = view.shape[0];
        tensor->columns = view.shape[1];
    }
    if (binding.stretch) {
        tensor->whole = binding.stretch->size();
        tensor->operands.first = binding.stretch->first;
        if (variant.of_matrices) tensor->rows = binding.stretch->shape.at(0);
    }
    bind_states(*tensor, bound, binding);
    bind_parameter(*tensor, bound, binding, view);
    bind_scalar_states(*tensor, bound, binding, place);
    bind_counter(bound, binding);
    require_known_states(bound, binding);
    if (variant.sum_count > 0) make_logical(*tensor, bound);
    std::int64_t streams = 3;  // the gradient is read, the parameter read and written
    for (const Operand& state : tensor->operands.states) streams += state.data != nullptr ? 2 : 0;
    streams += binding.average.is_none() ? 0 : 2;
    if (!binding.copy.is_none()) {
        const std::string whose = "the copy of '" + binding.name + "'";
        require_unmasked(binding.copy.ptr(), whose);
        const Look copied(binding.copy.ptr(), whose, takes_tensors_);
        require_copy(copied.view(), whose, Place::view_of(bound.arrays.front()), binding.read_only);
        tensor->operands.copy = operand_of(copied.view(), bound.order, bound.dense, *tensor);
        bound.copy = binding.copy;
        bound.see(copy, binding.copy, copied);
        streams += 1;
    }
    tensor->work = tensor->size * streams * item_size(compute_format(tensor->compute));

    Place& target = bound_.at(place);
    changed_.push_back(place);  // everything that can fail comes before the place is changed
    averages_ += (binding.average.is_none() ? 0U : 1U) - (target.average.is_none() ? 0U : 1U);
    matrices_ += (variant.of_matrices ? 1U : 0U) - (is_of_matrices(place) ? 1U : 0U);
    target = std::move(bound);
    stepper_.bind(place, std::move(tensor), binding.steps);
    arranged_ = false;
}

void Steps::unbind(std::size_t place) {
    averages_ -= bound_.at(place).average.is_none() ? 0U : 1U;
    matrices_ -= is_of_matrices(place) ? 1U : 0U;
    bound_.at(place) = {};
    stepper_.unbind(place);
    arranged_ = false;
}

void Steps::cut(std::size_t groups, std::size_t places) {
    for (std::size_t place = places; place < bound_.size(); ++place) unbind(place);
    bound_.resize(places);
    stepper_.cut(places);
    changed_.erase(
        std::remove_if(changed_.begin(), changed_.end(), [places](std::size_t place) { return place >= places; }),
        changed_.end());
    hyperparameters_.groups.resize(groups);
    rules_of_groups_ = rules_of_groups_[py::slice(0, static_cast<py::ssize_t>(groups), 1)];
    arranged_ = false;
}

void Steps::set_counts(std::int64_t step_count, std::int64_t skipped_steps) {
    step_count_ = step_count;
    skipped_steps_ = skipped_steps;
}

// The name, in errors, of the array with an id.
std::string Steps::name_of(std::size_t id) const {
    const Place& bound = bound_[id / kinds];
    const std::string of = " of '" + bound.name + "'";
    switch (const std::size_t kind = id % kinds; kind) {
        case parameter: return "parameter '" + bound.name + "'";
        case copy: return "the copy" + of;
        case average: return "the average" + of;
        case accumulated_sum: return "the accumulated gradient" + of;
        case counter: return "the step count" + of;
        case remainder: return state_of(bound.name, remainder_name);
        default: {
            const Variant& variant = variant_of(group_of(id / kinds));
            if (kind >= first_unit) return state_of(bound.name, unit_name(variant.states[kind - first_unit].name));
            return state_of(bound.name, kind < first_scalar ? variant.states[kind - first_state].name
                                                            : variant.scalar_states[kind - first_scalar].name);
        }
    }
}

void Steps::hold(std::size_t place, const Place::Seen& seen) {
    const std::size_t id = id_of(place, seen.kind);
    if (id / kinds != place) return;
    occupied_.add(Place::view_of(seen), id);
    if (!is_checked(seen.kind)) return;
    const std::size_t ndim = seen.strides.size();
    held_.push_back({seen.array, seen.descr.ptr(), seen.data, static_cast<int>(ndim), extents_.size(), id, seen.format,
                     seen.came_read_only});
    extents_.insert(extents_.end(), seen.shape.begin(), seen.shape.end());
    extents_.insert(extents_.end(), seen.strides.begin(), seen.strides.end());
    if (seen.descr) weak_.push_back(py::weakref(py::handle(seen.array)));
}

void Steps::compare_with_others(std::size_t place, const Place::Seen& seen) const {
    const std::size_t id = id_of(place, seen.kind);
    const std::size_t other = occupied_.find(Place::view_of(seen), id);
    if (other != OccupiedMemory::none) refuse_shared(name_of(id), id, name_of(other), other);
}

void Steps::refuse_shared(const std::string& who, std::size_t id, const std::string& other_name, std::size_t other) {
    const bool both_parameters = id % kinds == parameter && other % kinds == parameter;
    throw py::value_error(refusal(who, "have memory of its own", "an array that shares memory with " + other_name) +
                          (both_parameters ? "; for tied weights, pass the array once and add up its gradients" : ""));
}

void Steps::keep_arrays_off(const Steps& other, const std::string& prefix, const std::string& whose) const {
    for (std::size_t place = 0; place < bound_.size(); ++place)
        for (const Place::Seen& seen : bound_[place].arrays) {
            const std::size_t id = other.occupied_.find(Place::view_of(seen));
            if (id == OccupiedMemory::none) continue;
            const std::size_t own = place * kinds + seen.kind;
            refuse_shared(prefix + name_of(own), own, other.name_of(id) + whose, id);
        }
}

void Steps::arrange() {
    if (arranged_) return;
    held_.clear();
    weak_.clear();
    extents_.clear();
    occupied_.clear();
    known_.assign(bound_.size(), {});
    counters_.clear();
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        if (!bound_[i].is_bound) continue;
        known_[i].param = held_.size();
        known_[i].accumulated = stepper_.tensor(i).operands.accumulated.data != nullptr;  // as the last call left it
        for (const Place::Seen& seen : bound_[i].arrays) {
            hold(i, seen);
            if (seen.kind == counter) counters_.push_back({i, seen.data, seen.format});
        }
        known_[i].strides = extents_.size();
        extents_.resize(extents_.size() + bound_[i].shape.size());
    }
    for (const std::size_t place : changed_)
        if (bound_[place].is_bound)
            for (const Place::Seen& seen : bound_[place].arrays) compare_with_others(place, seen);
    changed_.clear();
    gradients_.reserve(bound_.size());
    ++arrangement_;
    arranged_ = true;
}

bool Steps::has_its_memory(std::size_t place, Operand Operands::* operand) const {
    const Tensor& tensor = stepper_.tensor(place);
    const Operand& found = tensor.operands.*operand;
    const py::object& array = operand == &Operands::copy ? bound_[place].copy : bound_[place].parameter;
    return ArrayFields(array.ptr()).data == found.data &&
           py::reinterpret_borrow<py::array>(array).nbytes() == tensor.size * item_size(found.format);
}

void Steps::require_writeable() const {
    for (const Place& bound : bound_) {
        if (!bound.is_bound) continue;
        const auto require = [&](const py::handle& array, const std::string& who) {
            const ArrayFields fields(array.ptr());
            if (!fields.writeable() && fields.view(Format::float64).size() != 0 && !lies_in_file(fields.data))
                throw py::value_error(
                    refusal(who, "be writeable to be loaded", "an array that has been made read-only"));
        };
        for (const auto& state : bound.states)
            require(state.second, state_of(bound.name, py::cast<std::string>(state.first)));
        if (!bound.average.is_none()) require(bound.average, "the average of '" + bound.name + "'");
        if (!bound.accumulated.is_none())
            require(bound.accumulated, "the accumulated gradient of '" + bound.name + "'");
    }
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): the branches are those of Py_VISIT
int Steps::traverse(visitproc visit, void* arg) const {
    for (const Place& bound : bound_) {
        Py_VISIT(bound.parameter.ptr());
        Py_VISIT(bound.copy.ptr());
        Py_VISIT(bound.counter.ptr());
        Py_VISIT(bound.states.ptr());
        Py_VISIT(bound.average.ptr());
        Py_VISIT(bound.accumulated.ptr());
        Py_VISIT(bound.kept.ptr());
        for (const py::object& owner : bound.memory) Py_VISIT(owner.ptr());
    }
    return 0;
}

}  // namespace instep
