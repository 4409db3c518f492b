// What a Plan holds as a whole: its counts and arrays read, replaced, or set aside for the averages.
//
// Whatever changes several arrays is one call from Python: a Ctrl-C comes before it or after it, never half-way.
#include <stdexcept>
#include <utility>

#include "python/plan.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

void assign(const py::array& array, const py::handle values) {
    if (array.size() != 0) array[py::ellipsis()] = values;  // an empty one is not among those checked
}

void require_writeable(const py::handle array, const std::string& who) {
    if (!ArrayFields(array.ptr()).writeable())
        throw py::value_error(who +
                              " has been made read-only; it must be writeable, for what is loaded is written there");
}

}  // namespace

std::vector<std::int64_t> Plan::steps() const {
    std::vector<std::int64_t> steps;
    for (std::size_t i = 0; i < stepper_->count(); ++i) steps.push_back(stepper_->steps(i));
    return steps;
}

py::dict Plan::states() const {
    py::dict states;
    for (const Bound& bound : bound_) states[py::str(bound.name)] = bound.states.attr("copy")();
    return states;
}

py::dict Plan::averages() const {
    py::dict averages;
    for (const Bound& bound : bound_)
        if (!bound.average.is_none()) averages[py::str(bound.name)] = bound.average;
    return averages;
}

py::dict Plan::accumulated() const {
    py::dict accumulated;
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (stepper_->pending(i)) accumulated[py::str(bound_[i].name)] = bound_[i].accumulated;
    return accumulated;
}

void Plan::discard_accumulated() {
    const StepLock::Guard guard(lock_);
    stepper_->clear_pending();
}

void Plan::acquire() {
    auto guard = std::make_unique<StepLock::Guard>(lock_);
    acquired_ = std::move(guard);
}

void Plan::release() {
    const std::unique_ptr<StepLock::Guard> guard = std::move(acquired_);  // gone from here before the lock is free
}

void Plan::restore(std::int64_t step_count, std::int64_t skipped_steps, const py::list& parameters) {
    if (shows_averages())
        throw std::runtime_error("inside averaged() the parameters are averages; load after the block");
    if (parameters.size() != bound_.size()) throw py::value_error("parameters: one entry a parameter is wanted");
    std::vector<py::tuple> entries;
    std::vector<std::int64_t> steps;
    for (const py::handle parameter : parameters) {  // what can fail comes before what changes anything
        entries.push_back(parameter.cast<py::tuple>());
        steps.push_back(entries.back()[0].cast<std::int64_t>());
    }
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (!entries[i][3].is_none()) make_accumulated(i);
    for (std::size_t k = 0; k < held_.size(); ++k) check_unchanged(held_[k], k);
    for (const OwnedMemory::Owner& owner : owned_.owners()) require_writeable(owner.array, owner.what);
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        const Bound& bound = bound_[i];
        for (const auto& state : bound.states)
            assign(py::reinterpret_borrow<py::array>(state.second), entries[i][1][state.first]);
        if (!bound.average.is_none()) assign(bound.average, entries[i][2]);
        stepper_->set_pending(i, !entries[i][3].is_none());
        if (stepper_->pending(i)) assign(bound.accumulated, entries[i][3]);
        if (!entries[i][4].is_none()) assign(param(i), entries[i][4]);
        stepper_->set_steps(i, steps[i]);
    }
    stepper_->set_to_parameters(current_level(), &Operands::copy);  // which others may have changed, too
    step_count_ = step_count;
    skipped_steps_ = skipped_steps;
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): the branches are those of Py_VISIT
int Plan::traverse(visitproc visit, void* arg) const {
    for (const Named& named : named_) Py_VISIT(named.array.ptr());
    for (const OwnedMemory::Owner& owner : owned_.owners()) Py_VISIT(owner.array.ptr());
    for (const Bound& bound : bound_) {
        Py_VISIT(bound.states.ptr());
        Py_VISIT(bound.average.ptr());
        Py_VISIT(bound.accumulated.ptr());
    }
    Py_VISIT(block_.ptr());
    for (const py::object& weights : weights_) Py_VISIT(weights.ptr());
    return 0;
}

void Plan::show_averages(const py::object& block) {
    const StepLock::Guard guard(lock_);
    if (shows_averages()) throw std::runtime_error("averaged() is in use already; its blocks can't be nested");
    std::vector<py::object> weights;
    for (std::size_t k = 0; k < held_.size(); ++k) check_unchanged(held_[k], k);
    for (std::size_t i = 0; i < bound_.size(); ++i) weights.push_back(param(i).attr("copy")());
    weights_ = std::move(weights);
    block_ = block;
    for (std::size_t i = 0; i < bound_.size(); ++i) assign(param(i), bound_[i].average);
}

void Plan::hide_averages(const py::object& block) {
    if (!shows_averages() || !block_.is(block)) return;
    const StepLock::Guard guard(lock_);
    const std::vector<py::object> weights = std::move(weights_);
    weights_.clear();
    block_ = py::none();  // first, so that whatever happens the optimizer can be used again
    const Named* lost = nullptr;
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        const std::size_t k = known_[i].param;
        if (has_its_memory(k))
            assign(as_given(k), weights[i]);
        else
            lost = &named_[k];
    }
    if (lost != nullptr)
        throw py::value_error(lost->who +
                              " has been resized or moved in memory inside averaged(); it must stay where "
                              "it is, or its weights can't be put back");
}

bool Plan::has_its_memory(std::size_t k) const {
    const Held& held = held_[k];
    std::int64_t bytes = named_[k].dtype.itemsize();
    for (int axis = 0; axis < held.ndim; ++axis) bytes *= shape_of(held)[axis];
    return ArrayFields(held.array).data == held.data && named_[k].array.nbytes() == bytes;
}

py::array Plan::as_given(std::size_t k) const {
    const Held& held = held_[k];
    const std::int64_t* shape = shape_of(held);
    const std::int64_t* strides = strides_of(held);
    // Any object makes NumPy take the memory as it is instead of a copy; the array's own flags would come with itself.
    const py::handle any_base = named_[k].dtype;
    return {named_[k].dtype, py::array::ShapeContainer(shape, shape + held.ndim),
            py::array::StridesContainer(strides, strides + held.ndim), held.data, any_base};
}

}  // namespace instep
