#include "python/combined.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <unordered_set>
#include <utility>

#include "python/gil.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

std::string place_of(std::size_t k) { return "optimizers[" + std::to_string(k) + "]"; }
std::string prefix_of(std::size_t k) { return place_of(k) + ": "; }
std::string of(std::size_t k) { return " of " + place_of(k); }

// Says in an error of Python's code which optimizer it is about: in its text or, if it is the error of a schedule,
// which stays as it is, in a note beside the one that it has.
void name_optimizer(std::size_t k, const py::object& error) {
    const py::object notes = py::getattr(error, "__notes__", py::none());
    const py::handle type = py::type::handle_of(error);
    const auto is_exactly = [type](PyObject* other) { return type.ptr() == other; };
    if (PyList_Check(notes.ptr()))
        notes.attr("append")("in " + place_of(k));
    else if (is_exactly(PyExc_ValueError) || is_exactly(PyExc_TypeError))
        error.attr("args") = py::make_tuple(prefix_of(k) + py::cast<std::string>(py::str(error)));
}

// Runs an action; its errors about arrays, containers and numbers say which optimizer they are about.
template <class Action>
void about(std::size_t k, Action action) {
    try {
        action();
    } catch (const py::value_error& error) {
        throw py::value_error(prefix_of(k) + error.what());
    } catch (const py::type_error& error) {
        throw py::type_error(prefix_of(k) + error.what());
    } catch (const py::error_already_set& error) {
        name_optimizer(k, error.value());
        throw;
    }
}

}  // namespace

// Holds the locks of all Plans for a scope.
class Combined::Hold {
public:
    explicit Hold(Combined& combined) : combined_(combined) { combined_.acquire(); }
    ~Hold() {
        combined_.gradients_.clear();
        combined_.release();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    Hold(Hold&&) = delete;
    Hold& operator=(Hold&&) = delete;

private:
    Combined& combined_;
};

// Lets this thread's readers in, for a scope in which nothing is changed.
class Combined::Readable {
public:
    explicit Readable(const Combined& combined) {
        combined.for_each_steps([this](std::size_t, Steps& steps) { scopes_.emplace_back(steps.lock()); });
    }

private:
    std::deque<StepLock::Readable> scopes_;
};

Combined::Combined(py::tuple optimizers, Plans plans, py::object current)
    : optimizers_(std::move(optimizers)),
      plans_(std::move(plans)),
      in_order_of_locks_(plans_),
      numbers_(std::move(current)),
      checked_(plans_.size(), -1) {
    std::sort(in_order_of_locks_.begin(), in_order_of_locks_.end(), [](const py::object& a, const py::object& b) {
        return std::less<>()(&a.cast<Plan&>(), &b.cast<Plan&>());
    });
    for (const py::object& plan : in_order_of_locks_) to_lock_.push_back(&plan.cast<Plan&>());
}

template <class Action>
void Combined::for_each_steps(Action action) const {
    for (std::size_t k = 0; k < plans_.size(); ++k) action(k, steps(k));
}

void Combined::acquire() {
    std::size_t taken = 0;
    try {
        for (; taken < to_lock_.size(); ++taken) to_lock_[taken]->acquire();
    } catch (...) {
        while (taken > 0) to_lock_[--taken]->release();
        throw;
    }
}

void Combined::release() {
    for (std::size_t k = to_lock_.size(); k > 0; --k) to_lock_[k - 1]->release();
}

void Combined::refuse_averages(const char* what) const {
    for (const py::object& plan : plans_) plan.cast<Plan&>().refuse_averages(what);
}

void Combined::set_counts(std::int64_t step_count, std::int64_t skipped_steps) {
    step_count_ = step_count;
    skipped_steps_ = skipped_steps;
}

// ---- the gradients --------------------------------------------------------------------------------------------------

// Notes the names of all parameters anew if parameters were added.
void Combined::learn_names() {
    std::size_t count = 0;
    for_each_steps([&](std::size_t, const Steps& steps) { count += steps.count(); });
    if (count == names_) return;
    Node root;
    root.kind = Node::Kind::mapping;
    root.size = count;
    root.children.resize(count);
    several_have_.clear();
    std::unordered_set<std::string> known;
    for_each_steps([&](std::size_t, const Steps& steps) {
        for (std::size_t i = 0; i < steps.count(); ++i) {
            const std::string& name = steps.bound(i).name;
            root.keys.push_back(py::str(name));
            root.children[root.keys.size() - 1].size = 1;
            if (!known.insert(name).second && several_have_.empty()) several_have_ = name;
        }
    });
    by_name_ = GradientCollector();
    by_name_.add(std::move(root), false);
    names_ = count;
}

void Combined::collect_by_name(py::handle gradients) {
    learn_names();
    if (!several_have_.empty())
        throw py::value_error(refusal("the gradients",
                                      "be a list with one container for each optimizer, as several have a parameter "
                                      "with the name '" +
                                          several_have_ + "'",
                                      kind_of(gradients)));
    by_name_.collect(gradients, gradients_);
    std::size_t next = 0;
    for_each_steps([&](std::size_t, Steps& steps) {
        steps.gradients().clear();
        for (std::size_t i = 0; i < steps.count(); ++i) steps.gradients().push_back(gradients_[next++]);
    });
}

void Combined::collect(py::handle gradients) {
    const bool is_sequence = PyList_Check(gradients.ptr()) || PyTuple_Check(gradients.ptr());
    if (!is_sequence && (PyDict_Check(gradients.ptr()) || has_attribute(gradients.ptr(), "keys")))
        return collect_by_name(gradients);
    const std::string expected =
        std::to_string(plans_.size()) + " entries, one container for each optimizer (None for no gradient)";
    if (!is_sequence)
        throw py::type_error(refusal("the gradients",
                                     "be a dict over the names of all parameters, or a list of " + expected,
                                     kind_of(gradients)));
    // A tuple of its own: what is inside may run code, by a key's hash, that changes a list.
    const auto given = py::reinterpret_steal<py::tuple>(PySequence_Tuple(gradients.ptr()));
    if (!given) throw py::error_already_set();
    if (given.size() != plans_.size())
        throw py::value_error(refusal("the gradients", "have " + expected, std::to_string(given.size())));
    for (std::size_t k = 0; k < plans_.size(); ++k) {
        const py::object container = given[k];
        if (container.is_none())
            steps(k).gradients().assign(steps(k).count(), py::none());
        else
            about(k, [&] { plan(k).collect(container); });
    }
}

// ---- checks, before anything is changed -----------------------------------------------------------------------------

void Combined::settle(py::handle owner) {
    refuse_averages("step");
    const Readable readable(*this);
    numbers_.settle(owner, step_count_, hyperparameters_);
    bool limits = false;
    for (std::size_t k = 0; k < plans_.size(); ++k) {
        about(k, [&] { plan(k).settle(optimizers_[k]); });
        limits = limits || steps(k).hyperparameters().extras(1.0).needs_norm();
    }
    // A norm or a guard of a part of the gradients would make another step than its owner expects.
    if (limits) owner.attr("_require_no_limits")();
}

void Combined::make_arrays(Steps::Use use) {
    const Readable readable(*this);
    for_each_steps([use](std::size_t k, Steps& steps) { about(k, [&] { steps.make_arrays(use); }); });
}

void Combined::check(Steps::Use use) {
    for_each_steps([use](std::size_t k, Steps& steps) { about(k, [&] { steps.check(use); }); });
    check_memory_if_changed();
    for_each_steps([this](std::size_t k, const Steps& steps) {
        for_each_steps([&](std::size_t other, const Steps& whose) {
            if (other != k) steps.keep_gradients_off(whose, prefix_of(k), of(other));
        });
    });
}

void Combined::check_memory() {
    const Hold hold(*this);
    for_each_steps([](std::size_t, Steps& steps) { steps.arrange(); });
    check_memory_if_changed();
}

void Combined::check_memory_if_changed() {
    for (std::size_t k = 0; k < plans_.size(); ++k) {
        if (checked_[k] == steps(k).arrangement()) continue;
        for (std::size_t other = 0; other < plans_.size(); ++other) {
            if (other != k) steps(k).keep_arrays_off(steps(other), prefix_of(k), of(other));
        }
    }
    for_each_steps([this](std::size_t k, const Steps& steps) { checked_[k] = steps.arrangement(); });
}

// ---- the calls ------------------------------------------------------------------------------------------------------

void Combined::step(py::handle gradients, py::handle owner, double grad_scale) {
    const Hold hold(*this);
    settle(owner);
    collect(gradients);
    take_step(Steps::Use::step, grad_scale);
}

void Combined::step_accumulated(py::handle owner, double grad_scale) {
    const Hold hold(*this);
    settle(owner);
    bool any = false;
    for_each_steps([&](std::size_t, const Steps& steps) { any = any || steps.stepper().any_pending(); });
    if (!any) Steps::refuse_no_gradients();
    for_each_steps([](std::size_t, Steps& steps) { steps.gradients().assign(steps.count(), py::none()); });
    take_step(Steps::Use::step_accumulated, grad_scale);
}

// Pins the memory of all if the GIL is to be released. Python's code may run in the middle of a step over matrices.
bool Combined::pin_if_long() {
    std::int64_t work = 0;
    bool matrices = false;
    for_each_steps([&](std::size_t, const Steps& steps) {
        work += steps.stepper().most_work();
        matrices = matrices || steps.has_matrices();
    });
    if (!Steps::is_long(work) && !matrices) return false;
    for_each_steps([](std::size_t, Steps& steps) { steps.pin(); });
    return true;
}

void Combined::make_orthogonal() {
    const Readable readable(*this);
    for_each_steps([](std::size_t, Steps& steps) {
        if (steps.stepper().has_matrices()) steps.make_orthogonal();
    });
}

void Combined::take_step(Steps::Use use, double grad_scale) {
    make_arrays(use);
    check(use);
    const bool release_gil = pin_if_long();
    Extras extras = hyperparameters_.extras(grad_scale);
    participants_.clear();
    bool matrices = false;
    for_each_steps([&](std::size_t, Steps& steps) {
        extras.average_rate = steps.hyperparameters().average_rate;
        steps.prepare(extras);
        matrices = matrices || steps.stepper().has_matrices();
        participants_.push_back({&steps.stepper(), steps.stepper().most_threads()});
    });
    const Together all{participants_.data(), participants_.size()};
    Stepper::make_room(all);
    const auto sweep = [all] { Stepper::take_sweeps(all); };
    const Found bad = without_gil(release_gil, [&] {
        const Found found = Stepper::take_up_to_sweep(all);
        if (found.tensor < 0 && !matrices) sweep();
        return found;
    });
    if (bad.tensor < 0 && matrices) {
        make_orthogonal();
        without_gil(release_gil, sweep);
    }
    const bool skipped = bad.tensor >= 0;
    if (skipped && hyperparameters_.not_finite == NotFinite::raise)
        steps(bad.stepper).refuse_not_finite(static_cast<std::size_t>(bad.tensor), prefix_of(bad.stepper));
    ++(skipped ? skipped_steps_ : step_count_);
    for_each_steps([skipped](std::size_t, Steps& steps) {
        skipped ? steps.stepper().clear_pending() : steps.count_step();
        steps.set_norm(py::none());
    });
    grad_norm_ = extras.needs_norm() ? py::object(py::float_(all.first->stepper->norm())) : py::object(py::none());
}

void Combined::accumulate(py::handle gradients) {
    const Hold hold(*this);
    collect(gradients);
    make_arrays(Steps::Use::accumulate);
    check(Steps::Use::accumulate);
    const bool release_gil = pin_if_long();
    participants_.clear();
    for_each_steps([this](std::size_t, Steps& steps) {
        participants_.push_back({&steps.stepper(), steps.stepper().most_threads()});
    });
    without_gil(release_gil, [this] {
        for (const Participant& one : participants_) one.stepper->accumulate(current_level(), one.most_threads);
    });
    for_each_steps([](std::size_t, Steps& steps) { steps.stepper().count_accumulation(); });
}

py::list Combined::checked(py::handle gradients) {
    const Hold hold(*this);
    refuse_averages("step");
    if (gradients.is_none())
        for_each_steps([](std::size_t, Steps& steps) { steps.gradients().assign(steps.count(), py::none()); });
    else
        collect(gradients);
    make_arrays(Steps::Use::step);
    check(Steps::Use::step);
    py::list found;
    for_each_steps([&found](std::size_t, Steps& steps) {
        for (const py::object& gradient : steps.gradients()) found.append(gradient);
    });
    return found;
}

void Combined::discard_accumulated() {
    const Hold hold(*this);
    for_each_steps([](std::size_t, Steps& steps) { steps.stepper().clear_pending(); });
}

void Combined::refresh_copies() {
    const Hold hold(*this);
    for_each_steps([](std::size_t k, Steps& steps) {
        about(k, [&] {
            steps.arrange();
            steps.check_unchanged();
        });
    });
    for_each_steps([](std::size_t, Steps& steps) {
        steps.stepper().copy_all(current_level(), &Operands::param, &Operands::copy);
    });
}

void Combined::restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& members,
                       const py::object& now) {
    std::vector<Plan::Restored> restored;
    for (std::size_t k = 0; k < plans_.size(); ++k) {
        const auto [count, skipped, parameters, values, seed] =
            members[k].cast<std::tuple<std::int64_t, std::int64_t, py::sequence, py::object, py::object>>();
        restored.push_back({&plan(k), count, skipped, parameters, values, seed});
    }
    Plan::restore_all(restored, false);
    set_counts(step_count, skipped_steps);
    numbers_.replace(now);
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): the branches are those of Py_VISIT
int Combined::traverse(visitproc visit, void* arg) const {
    Py_VISIT(optimizers_.ptr());
    for (const py::object& plan : plans_) Py_VISIT(plan.ptr());
    for (const py::object& plan : in_order_of_locks_) Py_VISIT(plan.ptr());
    return numbers_.traverse(visit, arg);
}

}  // namespace instep
