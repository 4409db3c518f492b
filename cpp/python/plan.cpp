#include "python/plan.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "python/state_storage.hpp"
#include "python/unraisable.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

// Refuses a dtype of the states that is wider than the arithmetic, or too narrow for a state of the rule.
void require_state_dtype(Format format, Format compute, const Variant& variant, const std::string& who) {
    if (item_size(format) > item_size(compute))
        throw py::value_error(
            refusal("state_dtype",
                    std::string("be ") + format_name(compute) + ", in which " + who + " is computed, or narrower",
                    format_name(format)));
    if (format == compute) return;
    for (const StateName& state : variant.states) {
        if (!state.used) continue;
        const std::string why = std::string(" for the state '") + state.name + "' of " + who;
        if (state.narrow == Narrow::none)
            throw py::value_error(
                refusal("state_dtype", std::string("be None or ") + format_name(compute) + why, format_name(format)));
        if (state.narrow == Narrow::bfloat16 && format == Format::float16)
            throw py::value_error(refusal("state_dtype",
                                          std::string("be None, ") + format_name(compute) + " or bfloat16" + why,
                                          format_name(format)));
    }
}

}  // namespace

// The properties of a parameter that decide how its states are made.
struct Plan::Like {
    Extents shape;
    Axes order;
    Format compute;
    Format states;
    std::int64_t size;

    // The parameter must be one that can be stepped.
    static Like of(const Binding& binding, const Variant& variant, const py::object& state_dtype);
    // Null for a state that the variant doesn't have.
    const Format* format_of(const StateName& state) const {
        if (!state.used) return nullptr;
        return state.narrow == Narrow::iterate ? &compute : &states;
    }
};

Plan::Like Plan::Like::of(const Binding& binding, const Variant& variant, const py::object& state_dtype) {
    const std::string who = "parameter '" + binding.name + "'";
    require_unmasked(binding.parameter.ptr(), who);
    const Look look(binding.parameter.ptr(), who);
    const TensorView& view = look.view();
    require_parameter(view, who, binding.read_only, use_a_copy);
    Like like{{view.shape, view.shape + view.ndim},
              memory_order({view.shape, view.shape + view.ndim}, {view.strides, view.strides + view.ndim}),
              view.format == Format::float64 ? Format::float64 : Format::float32,
              Format::float64,
              view.size()};
    like.states = state_dtype.is_none() ? like.compute : format_of_dtype(state_dtype, "state_dtype");
    require_state_dtype(like.states, like.compute, variant, who);
    return like;
}

Plan::Plan(py::object state_dtype, bool averaged, py::object current, py::object storage)
    : numbers_(std::move(current)),
      state_dtype_(std::move(state_dtype)),
      storage_(std::move(storage)),
      averaged_(averaged) {
    if (!storage_.is_none()) steps_.stepper().set_windows(windows_over(storage_));
}

void Plan::require_whole() const {
    if (steps_.stepper().windows() != nullptr) steps_.stepper().windows()->files().require_whole();
}

void Plan::remove_files() {
    if (steps_.stepper().windows() != nullptr) steps_.stepper().windows()->files().remove();
}

bool Plan::add(const py::list& groups, bool grouped, bool take_read_only, const py::object& before,
               const py::object& now, const py::object& optimizer, const py::object& held) {
    static PyObject* const held_name = PyUnicode_InternFromString("_held");
    const Hold hold(*this);
    refuse_averages("add_param_group");
    require_whole();
    Windows* const windows = steps_.stepper().windows();
    const std::size_t files = windows != nullptr ? windows->files().count() : 0;
    const bool was_grouped = collector_.grouped();
    const std::size_t first_group = steps_.hyperparameters().groups.size();
    const std::size_t first = steps_.count();
    const auto undo = [&] {
        steps_.cut(first_group, first);
        collector_.cut(first_group, was_grouped);
        if (windows != nullptr) windows->files().cut(files);
    };
    try {
        std::vector<Binding> bindings;
        for (const py::handle item : groups) {
            const auto fields = item.cast<py::tuple>();
            const int group = steps_.add_group(fields[0].cast<std::string>(), fields[1].cast<py::sequence>());
            collector_.add(Node::from(fields[2]), grouped);
            const auto names = fields[3].cast<std::vector<std::string>>();
            const auto arrays = fields[4].cast<py::sequence>();
            const auto copies = fields[5].cast<py::sequence>();
            for (std::size_t i = 0; i < names.size(); ++i) {
                Binding binding;
                binding.name = names[i];
                binding.group = group;
                binding.parameter = arrays[i];
                binding.copy = copies[i];
                binding.read_only = take_read_only ? ReadOnly::taken : ReadOnly::refused;
                bindings.push_back(std::move(binding));
            }
        }
        bind_all(bindings);
        if (first > 0 || !take_read_only) steps_.check_unchanged();  // code of subclasses may have run
        if (!take_read_only) {
            steps_.stepper().copy_all(current_level(), &Operands::param, &Operands::average, first);
            steps_.stepper().copy_all(current_level(), &Operands::param, &Operands::copy, first);
        }
    } catch (...) {
        undo();
        throw;
    }
    // No code of Python's runs from here on, so that a Ctrl-C comes before all of this or after it.
    if (!numbers_.now().is(before)) {
        undo();
        return false;
    }
    if (PyObject_GenericSetAttr(optimizer.ptr(), held_name, held.ptr()) != 0) throw py::error_already_set();
    numbers_.replace(now);
    return true;
}

// New arrays of zeros side by side, for each parameter in the format given for it; no array if the format is null. With
// a name, they lie in a file if states do.
std::vector<py::object> Plan::make_arrays(int place, const std::string& name, const std::vector<Like>& likes,
                                          const std::vector<const Format*>& formats) {
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < likes.size(); ++i)
        if (formats[i] != nullptr) bytes += Room::rounded(likes[i].size * item_size(*formats[i]));
    const bool in_file = !name.empty() && !storage_.is_none() && bytes > 0;
    Room room = in_file ? room_in_file(storage_, name, bytes, *steps_.stepper().windows()) : Room(bytes, place);
    std::vector<py::object> arrays(likes.size());
    for (std::size_t i = 0; i < likes.size(); ++i)
        arrays[i] = formats[i] != nullptr ? py::object(room.take(likes[i].shape, likes[i].order, *formats[i]))
                                          : py::object(py::none());
    return arrays;
}

// Makes states and averages for the parameters, and binds all arrays.
void Plan::bind_all(const std::vector<Binding>& bindings) {
    const auto group_of = [this](const Binding& binding) -> const Group& {
        return steps_.hyperparameters().groups[static_cast<std::size_t>(binding.group)];
    };
    std::vector<Like> likes;
    for (const Binding& binding : bindings)
        likes.push_back(Like::of(binding, variant_of(group_of(binding)), state_dtype_));
    std::vector<Binding> whole = bindings;
    for (Binding& binding : whole) binding.states = py::dict();
    std::vector<const Format*> formats(bindings.size());
    for (int k = 0; k < max_states; ++k) {
        const auto state = [&](std::size_t i) { return variant_of(group_of(bindings[i])).states[k]; };
        std::string name;  // of the first that has one: the file's
        for (std::size_t i = 0; i < bindings.size(); ++i) {
            formats[i] = likes[i].format_of(state(i));
            if (name.empty() && formats[i] != nullptr) name = state(i).name;
        }
        const std::vector<py::object> made = make_arrays(1 + k, name, likes, formats);
        for (std::size_t i = 0; i < bindings.size(); ++i)
            if (formats[i] != nullptr) whole[i].states[state(i).name] = made[i];
    }
    make_scalar_states(whole);
    if (averaged_) {
        for (std::size_t i = 0; i < bindings.size(); ++i) formats[i] = &likes[i].compute;
        const std::vector<py::object> made = make_arrays(1 + max_states, "average", likes, formats);
        for (std::size_t i = 0; i < bindings.size(); ++i) whole[i].average = made[i];
    }
    const std::size_t first = steps_.count();
    steps_.append(whole.size());
    for (std::size_t i = 0; i < whole.size(); ++i) steps_.bind(first + i, whole[i]);
    steps_.arrange();
}

// Makes the states that are one number. All parameters of a joint rule have one array, which may be there already.
void Plan::make_scalar_states(std::vector<Binding>& bindings) {
    static constexpr Format number = Format::float64;
    const auto variant = [this](const Binding& binding) -> const Variant& {
        return variant_of(steps_.hyperparameters().groups[static_cast<std::size_t>(binding.group)]);
    };
    const bool joint = !bindings.empty() && variant(bindings.front()).joint;
    const std::size_t first = joint ? steps_.first_joint() : steps_.count();
    const std::vector<Like> likes(joint ? 1 : bindings.size(), Like{{}, {}, number, number, 1});
    std::vector<const Format*> formats(likes.size());
    for (int k = 0; k < max_scalar_states; ++k) {
        const auto state = [&](std::size_t i) { return variant(bindings[i]).scalar_states[k]; };
        for (std::size_t i = 0; i < formats.size(); ++i) formats[i] = state(i).used ? &number : nullptr;
        if (std::all_of(formats.begin(), formats.end(), [](const Format* format) { return format == nullptr; }))
            continue;
        const std::vector<py::object> made = first < steps_.count()
                                                 ? std::vector<py::object>{steps_.bound(first).states[state(0).name]}
                                                 : make_arrays(3 + max_states, "", likes, formats);
        for (std::size_t i = 0; i < bindings.size(); ++i)
            if (state(i).used) bindings[i].states[state(i).name] = made[joint ? 0 : i];
    }
}

void Plan::settle(py::handle optimizer) {
    const StepLock::Readable readable(steps_.lock());
    numbers_.settle(optimizer, steps_.step_count(), steps_.hyperparameters());
}

void Plan::step(py::handle gradients, py::handle optimizer, double grad_scale) {
    const Hold hold(*this);
    refuse_averages("step");
    settle(optimizer);
    collect(gradients);
    steps_.step(grad_scale);
}

void Plan::step_accumulated(py::handle optimizer, double grad_scale) {
    const Hold hold(*this);
    refuse_averages("step");
    settle(optimizer);
    steps_.step_accumulated(grad_scale);
}

void Plan::accumulate(py::handle gradients) {
    const Hold hold(*this);
    collect(gradients);
    steps_.accumulate();
}

py::list Plan::checked(py::handle gradients) {
    const Hold hold(*this);
    refuse_averages("step");
    if (gradients.is_none())
        steps_.gradients().assign(steps_.count(), py::none());
    else
        collect(gradients);
    steps_.make_arrays(Steps::Use::step);
    steps_.check(Steps::Use::step);
    py::list found;
    for (const py::object& gradient : steps_.gradients()) found.append(gradient);
    return found;
}

void Plan::discard_accumulated() {
    const Hold hold(*this);
    steps_.stepper().clear_pending();
}

void Plan::refresh_copies() {
    const Hold hold(*this);
    steps_.arrange();
    steps_.check_unchanged();
    steps_.stepper().copy_all(current_level(), &Operands::param, &Operands::copy);
}

std::vector<std::int64_t> Plan::steps() const {
    std::vector<std::int64_t> steps;
    for (std::size_t i = 0; i < steps_.count(); ++i) steps.push_back(steps_.stepper().steps(i));
    return steps;
}

py::dict Plan::states() const {
    py::dict states;
    for (std::size_t i = 0; i < steps_.count(); ++i)
        states[py::str(steps_.bound(i).name)] = steps_.bound(i).states.attr("copy")();
    return states;
}

py::dict Plan::averages() const {
    py::dict averages;
    for (std::size_t i = 0; i < steps_.count(); ++i)
        if (!steps_.bound(i).average.is_none()) averages[py::str(steps_.bound(i).name)] = steps_.bound(i).average;
    return averages;
}

py::dict Plan::accumulated() const {
    py::dict accumulated;
    for (std::size_t i = 0; i < steps_.count(); ++i)
        if (steps_.stepper().pending(i)) accumulated[py::str(steps_.bound(i).name)] = steps_.bound(i).accumulated;
    return accumulated;
}

void Plan::acquire() {
    auto hold = std::make_unique<Hold>(*this);
    held_ = std::move(hold);
}

void Plan::release() {
    const std::unique_ptr<Hold> hold = std::move(held_);  // held_ is empty before the lock is free
}

bool Plan::acquire_to_read() {
    if (steps_.lock().lets_read()) return true;
    acquire();
    lets_read_.emplace(steps_.lock());
    return false;
}

void Plan::release_read() {
    lets_read_.reset();
    release();
}

void Plan::show_averages(const void* block) {
    const Hold hold(*this);
    // The numbers of the last step may be those of another run, and there may have been no step yet.
    std::vector<Group> groups = steps_.hyperparameters().groups;
    const py::sequence now = numbers_.now().attr("groups");
    for (std::size_t k = 0; k < groups.size(); ++k) {
        if (variant_of(groups[k]).loops[0]->shown == nullptr) continue;
        const py::sequence constants = now[k].attr("constants");
        const RuleFamily& family = *current_level().families[groups[k].family];
        for (int i = 0; i < family.hyperparameter_count; ++i)
            groups[k].hyperparameters[i] = constants[static_cast<std::size_t>(i)].cast<double>();
    }
    averages_.show(block, groups);
}

void Plan::hide_averages(const void* block, bool wait) {
    const auto shows_them = [&] { return shows_averages() && (block == nullptr || averages_.shown_by() == block); };
    if (!shows_them()) return;
    if (steps_.lock().is_mine() || (!wait && steps_.lock().is_taken())) {
        hide_later_ = true;
        return;
    }
    std::optional<Hold> hold;
    try {
        hold.emplace(*this);
    } catch (const std::runtime_error&) {  // another thread has the lock and waits for this one
        hide_later_ = true;
        throw;
    }
    if (shows_them()) averages_.hide();  // still shown: others may have hidden them meanwhile
}

void Plan::hide_late() noexcept {
    if (!hide_later_) return;
    hide_later_ = false;
    unraisable([this] { averages_.hide(); });
}

void Plan::refuse_averages(const char* what) const {
    if (shows_averages())
        throw std::runtime_error(refusal(what, "come after the block of averaged(), where the parameters hold averages",
                                         "a call inside it"));
}

int Plan::traverse(visitproc visit, void* arg) const {
    const int stopped = numbers_.traverse(visit, arg);
    if (stopped != 0) return stopped;
    Py_VISIT(storage_.ptr());
    return steps_.traverse(visit, arg);
}

}  // namespace instep
