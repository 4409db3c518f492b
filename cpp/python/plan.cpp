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

Plan::Plan(bool averaged, py::object current, py::object storage, const Stored& stored)
    : steps_(stored.rounding),
      numbers_(std::move(current)),
      storage_(std::move(storage)),
      stored_(stored),
      averaged_(averaged) {
    steps_.stepper().set_seed(stored.seed);
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
        std::vector<py::object> state_dtypes;  // by group
        for (const py::handle item : groups) {
            const auto fields = item.cast<py::tuple>();
            const int group = steps_.add_group(fields[0].cast<std::string>(), fields[1].cast<py::sequence>());
            collector_.add(Node::from(fields[2]), grouped);
            const auto names = fields[3].cast<std::vector<std::string>>();
            const auto arrays = fields[4].cast<py::sequence>();
            const auto copies = fields[5].cast<py::sequence>();
            state_dtypes.push_back(fields[6]);
            for (std::size_t i = 0; i < names.size(); ++i) {
                Binding binding;
                binding.name = names[i];
                binding.group = group;
                binding.parameter = arrays[i];
                binding.copy = copies[i];
                binding.read_only = take_read_only ? ReadOnly::taken : ReadOnly::refused;
                if (fields.size() > 7) {
                    const auto stretch = fields[7].cast<py::sequence>()[i].cast<py::tuple>();
                    binding.stretch = Stretch{stretch[0].cast<Extents>(), stretch[1].cast<std::int64_t>()};
                }
                bindings.push_back(std::move(binding));
            }
        }
        bind_all(bindings, first_group, state_dtypes);
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

void Plan::reset_remainders() {
    const Hold hold(*this);
    refuse_averages("reset_remainders");
    steps_.reset_remainders();
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
