#include "python/plan.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/levels.hpp"
#include "runtime/team.hpp"

namespace instep {

namespace {

// Steps of more work than this (about a millisecond) release the GIL. Taking it back may cost a thread switch interval
// (5 ms by default) where other Python threads compute, so shorter steps keep it.
constexpr std::int64_t work_worth_releasing = std::int64_t{1} << 25;

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
    const Level& level = current_level();
    const RuleFamily* family = find_family(level, rule);
    if (family == nullptr) throw py::value_error("there is no rule '" + rule + "'");
    return static_cast<int>(family - level.families);
}

// Lets the gradients go at the end of a step, also of one that was refused.
class Release {
public:
    explicit Release(std::vector<py::object>& held) : held_(held) {}
    ~Release() { held_.clear(); }
    Release(const Release&) = delete;
    Release& operator=(const Release&) = delete;
    Release(Release&&) = delete;
    Release& operator=(Release&&) = delete;

private:
    std::vector<py::object>& held_;
};

}  // namespace

Plan::Plan(const py::list& groups, bool grouped, const py::object& state_dtype) {
    std::vector<Container> containers;
    for (const py::handle item : groups) {
        const auto fields = item.cast<py::tuple>();
        Group group{};
        group.family = family_index(fields[0].cast<std::string>());
        const RuleFamily& family = current_level().families[group.family];
        group.options = option_bits(family, fields[1].cast<py::sequence>());
        if (!family.variants[group.options].valid)
            throw py::value_error(std::string("rule '") + family.name + "' has no variant with these options");
        const auto kind = fields[2].cast<std::string>();
        const auto names = fields[4].cast<std::vector<std::string>>();
        const auto arrays = fields[5].cast<py::sequence>();
        Container container{kind == "array"      ? ContainerKind::array
                            : kind == "sequence" ? ContainerKind::sequence
                                                 : ContainerKind::mapping,
                            {},
                            names.size()};
        for (const py::handle key : fields[3].cast<py::sequence>()) container.keys.push_back(key.cast<py::str>());
        containers.push_back(std::move(container));
        hyperparameters_.groups.push_back(group);
        for (std::size_t i = 0; i < names.size(); ++i)
            bind(names[i], arrays[i], static_cast<int>(hyperparameters_.groups.size()) - 1, state_dtype);
    }
    hyperparameters_.clip_norm = std::nan("");
    check_overlaps();
    stepper_ = std::make_unique<Stepper>(std::move(unplanned_));
    collector_ = std::make_unique<GradientCollector>(std::move(containers), grouped);
    for (std::size_t i = 0; i < bound_.size(); ++i) gradients_.push_back(std::make_unique<Gradient>());
    collected_.reserve(bound_.size());
}

void Plan::bind(const std::string& name, const py::object& parameter, int group, const py::object& state_dtype) {
    const Format format = check_parameter(parameter, name);
    Bound bound;
    bound.name = name;
    bound.param = py::reinterpret_borrow<py::array>(parameter);
    bound.weak.push_back(py::weakref(parameter));
    const ArrayFields fields(parameter.ptr());
    bound.shape.assign(fields.shape, fields.shape + fields.ndim);
    bound.strides.assign(fields.strides, fields.strides + fields.ndim);
    bound.order = memory_order(bound.shape, bound.strides);
    bound.dense = dense_strides(bound.shape, bound.order, 1);
    bound.logical_dense = dense_strides(bound.shape, logical_order(fields.ndim), 1);

    auto tensor = std::make_unique<Tensor>();
    tensor->size = fields.size();
    tensor->compute = format == Format::float64 ? Compute::float64 : Compute::float32;
    tensor->group = group;
    tensor->param = {fields.data, format, nullptr};
    if (!same_strides(fields.shape, fields.strides, bound.dense.data(), fields.ndim, item_size(format))) {
        tensor->layout.assign(fields.shape, fields.strides, bound.order);
        tensor->param.view = &tensor->layout.view();
    }

    const Format compute_format = format == Format::float64 ? Format::float64 : Format::float32;
    const py::dtype dtype =
        state_dtype.is_none() ? py::dtype(format_name(compute_format)) : py::reinterpret_borrow<py::dtype>(state_dtype);
    const Format state_format = format_of_dtype(dtype, "state_dtype");
    if (item_size(state_format) > item_size(compute_format))
        throw py::value_error(std::string("state_dtype ") + format_name(state_format) + " is wider than " +
                              format_name(compute_format) + ", the compute type of parameter '" + name +
                              "'; that or a narrower one is wanted");
    const Group& settings = hyperparameters_.groups[static_cast<std::size_t>(group)];
    const Variant& variant = current_level().families[settings.family].variants[settings.options];
    std::int64_t streams = 3;  // the gradient is read, the parameter read and written
    for (int k = 0; k < variant.state_count; ++k) {
        if (!variant.states[k].used) continue;
        streams += 2;
        const py::array state = zeros(bound.shape, bound.order, dtype);
        tensor->states[k] = {ArrayFields(state.ptr()).data, state_format, nullptr};
        bound.weak.push_back(py::weakref(state.attr("base")));
        bound.states[variant.states[k].name] = state;
    }
    tensor->work = tensor->size * streams * item_size(compute_format);
    bound_.push_back(std::move(bound));
    unplanned_.push_back(std::move(tensor));
}

void Plan::check_overlaps() {
    for (const Bound& bound : bound_) owned_.add(bound.param, "parameter '" + bound.name + "'");
    owned_.finish();
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        const Bound& bound = bound_[i];
        const ArrayFields fields(bound.param.ptr());
        const ByteRange range = byte_range(fields.shape, fields.strides, fields.ndim, bound.param.itemsize());
        neighbours_.clear();
        if (range.low != range.high) owned_.find(fields.data + range.low, fields.data + range.high, neighbours_);
        for (const OwnedMemory::Owner* other : neighbours_) {
            const std::string who = "parameter '" + bound.name + "'";
            if (other->what == who || !share_memory(bound.param, other->array)) continue;
            throw py::value_error(who + " shares memory with " + other->what +
                                  "; parameters that don't overlap are wanted, or an element would be stepped twice");
        }
    }
    for (const Bound& bound : bound_)
        for (const auto& state : bound.states)
            owned_.add(py::reinterpret_borrow<py::array>(state.second),
                       "state '" + py::cast<std::string>(state.first) + "' of '" + bound.name + "'");
    owned_.finish();
}

Plan::Hyperparameters Plan::parse(const py::sequence& settings, double clip_norm) const {
    Hyperparameters parsed{hyperparameters_.groups, clip_norm};
    if (settings.size() != parsed.groups.size()) throw py::value_error("settings: one tuple a group is wanted");
    for (std::size_t k = 0; k < parsed.groups.size(); ++k) {
        Group& group = parsed.groups[k];
        const auto values = settings[k].cast<py::sequence>();
        const auto count = static_cast<std::size_t>(current_level().families[group.family].hyperparameter_count);
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

void Plan::set_hyperparameters(const py::sequence& settings, double clip_norm) {
    Hyperparameters parsed = parse(settings, clip_norm);
    const StepLock::Guard guard(lock_);
    hyperparameters_ = std::move(parsed);
}

void Plan::step(py::handle gradients, py::handle evaluate) {
    const StepLock::Guard guard(lock_);
    const Release release_gradients(collected_);

    if (!evaluate.is_none()) {
        const auto result = evaluate(step_count_).cast<py::tuple>();
        hyperparameters_ = parse(result[0].cast<py::sequence>(), result[1].cast<double>());
    }
    collector_->collect(gradients, collected_);
    const bool release_gil = stepper_->most_work() >= work_worth_releasing;
    std::vector<py::object> weak;  // keeps other threads from resizing a gradient while the GIL is released
    if (release_gil)
        for (const py::object& gradient : collected_)
            if (py::isinstance<py::array>(gradient)) weak.push_back(py::weakref(gradient));
    check_arrays();

    const bool with_norm = !std::isnan(hyperparameters_.clip_norm);
    stepper_->prepare(current_level(), hyperparameters_.groups, gradients_, with_norm, hyperparameters_.clip_norm);
    const int threads = team::threads_for(stepper_->work(gradients_));
    double norm = 0;
    if (release_gil) {
        const py::gil_scoped_release release;
        norm = stepper_->take(threads);
    } else {
        norm = stepper_->take(threads);
    }
    ++step_count_;
    if (with_norm)
        grad_norm_ = py::float_(norm);
    else if (!grad_norm_.is_none())
        grad_norm_ = py::none();
}

void Plan::check_arrays() {
    confirmed_.clear();
    do {  // nearly always once
        python_ran_ = false;
        for (std::size_t i = 0; i < bound_.size(); ++i) {
            check_parameter_unchanged(i);
            bind_gradient(i);
        }
    } while (python_ran_);
}

void Plan::check_parameter_unchanged(std::size_t i) const {
    const Bound& bound = bound_[i];
    const ArrayFields fields(bound.param.ptr());
    if ((fields.flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) == 0)
        throw py::value_error("parameter '" + bound.name +
                              "' has been made read-only since it was given to the optimizer; it must stay writeable");
    if (fields.data != stepper_->tensors()[i]->param.data ||
        static_cast<std::size_t>(fields.ndim) != bound.shape.size() ||
        !std::equal(bound.shape.begin(), bound.shape.end(), fields.shape) ||
        !std::equal(bound.strides.begin(), bound.strides.end(), fields.strides))
        throw py::value_error("parameter '" + bound.name +
                              "' has been reshaped or moved in memory since it was given to the optimizer; "
                              "it must stay as it was");
}

void Plan::bind_gradient(std::size_t i) {
    const Bound& bound = bound_[i];
    Gradient& gradient = *gradients_[i];
    gradient.present = !collected_[i].is_none();
    if (!gradient.present) return;
    if (bound.shape.empty() && !py::isinstance<py::array>(collected_[i])) take_scalar(collected_[i]);

    const Format format = check_gradient(collected_[i].ptr(), bound.name, bound.shape);
    const ArrayFields fields(collected_[i].ptr());
    const std::int64_t size = item_size(format);
    gradient.in_step_order = {fields.data, format, nullptr};
    if (!same_strides(fields.shape, fields.strides, bound.dense.data(), fields.ndim, size)) {
        gradient.step_layout.assign(fields.shape, fields.strides, bound.order);
        gradient.in_step_order.view = &gradient.step_layout.view();
    }
    gradient.in_logical_order = {fields.data, format, nullptr};
    if (!same_strides(fields.shape, fields.strides, bound.logical_dense.data(), fields.ndim, size)) {
        gradient.logical_layout.assign(fields.shape, fields.strides, logical_order(fields.ndim));
        gradient.in_logical_order.view = &gradient.logical_layout.view();
    }
    const ByteRange range = byte_range(fields.shape, fields.strides, fields.ndim, size);
    if (range.low != range.high) confirm_separate(i, fields.data + range.low, fields.data + range.high);
}

// A sum over everything is a scalar, not an array, and so is the usual gradient of a 0-d parameter.
void Plan::take_scalar(py::object& gradient) {
    const py::module_ numpy = py::module_::import("numpy");
    if (!PyFloat_Check(gradient.ptr()) && !py::isinstance(gradient, numpy.attr("generic"))) return;
    gradient = numpy.attr("asarray")(gradient);
    python_ran_ = true;
}

void Plan::confirm_separate(std::size_t i, const char* low, const char* high) {
    neighbours_.clear();
    owned_.find(low, high, neighbours_);
    if (neighbours_.empty()) return;
    const py::object gradient = collected_[i];
    const char* data = ArrayFields(gradient.ptr()).data;
    for (const OwnedMemory::Owner* owner : neighbours_) {
        const auto same = [&](const Confirmed& c) {
            return c.gradient == gradient.ptr() && c.data == data && c.owner == owner;
        };
        if (std::any_of(confirmed_.begin(), confirmed_.end(), same)) continue;
        python_ran_ = true;
        if (share_memory(gradient, owner->array))
            throw py::value_error("gradient of '" + bound_[i].name + "' shares memory with " + owner->what +
                                  "; an array of its own is wanted, or the step would change it while reading it");
        confirmed_.push_back({gradient.ptr(), data, owner});
    }
}

std::vector<std::int64_t> Plan::steps() const {
    std::vector<std::int64_t> steps;
    for (const auto& tensor : stepper_->tensors()) steps.push_back(tensor->steps);
    return steps;
}

py::dict Plan::states() const {
    py::dict states;
    for (const Bound& bound : bound_) states[py::str(bound.name)] = bound.states;
    return states;
}

}  // namespace instep
