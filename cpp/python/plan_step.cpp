// The step of a Plan: every check of the gradients, before anything changes, and then the step itself.
#include <algorithm>
#include <stdexcept>

#include "python/gil.hpp"
#include "python/plan.hpp"
#include "runtime/float_environment.hpp"
#include "runtime/levels.hpp"
#include "runtime/team.hpp"

namespace instep {

namespace {

// Steps of more work than this (about a millisecond) release the GIL. Taking it back may cost a thread switch interval
// (5 ms by default) where other Python threads compute, so shorter steps keep it.
constexpr std::int64_t work_worth_releasing = std::int64_t{1} << 25;

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

// A loop of its own: for a handful of axes std::equal, which becomes a call of memcmp, takes three times as long.
bool same_extents(const std::int64_t* a, const std::int64_t* b, int count) {
    for (int axis = 0; axis < count; ++axis)
        if (a[axis] != b[axis]) return false;
    return true;
}

// Runs work with or without the GIL.
template <class Work>
auto without_gil(bool release_gil, Work work) {
    if (!release_gil) return work();
    const GilReleased released;
    return work();
}

}  // namespace

void Plan::step(py::handle gradients, py::handle evaluate, double grad_scale) {
    take(Use::step, gradients, evaluate, grad_scale);
}

void Plan::step_accumulated(py::handle evaluate, double grad_scale) {
    take(Use::step_accumulated, py::none(), evaluate, grad_scale);
}

void Plan::accumulate(py::handle gradients) { take(Use::accumulate, gradients, py::none(), 1.0); }

void Plan::take(Use use, py::handle gradients, py::handle evaluate, double grad_scale) {
    const StepLock::Guard guard(lock_);
    const Release release_gradients(collected_);
    const Release release_pins(pinned_);
    if (shows_averages() && use != Use::accumulate)
        throw std::runtime_error("inside averaged() the parameters are averages; step after the block");
    if (!evaluate.is_none()) {
        const auto result = [&] {
            const FloatEnvironment environment;  // schedules are arithmetic of the step, the user's own too
            return evaluate(step_count_).cast<py::tuple>();
        }();
        hyperparameters_ = parse(result[0].cast<py::sequence>(), result[1].cast<py::sequence>());
    }
    if (use == Use::step_accumulated) {
        if (!stepper_->any_pending())
            throw py::value_error("step() without gradients, and none have been accumulated; call accumulate first");
        collected_.assign(bound_.size(), py::none());
    } else {
        collector_->collect(gradients, collected_);
        // Before any address is taken down, for it may run code that moves other gradients.
        for (std::size_t i = 0; i < bound_.size(); ++i)
            if (!is_plain_array(collected_[i].ptr())) check_subclass(collected_[i].ptr(), bound_[i].name);
    }
    const bool release_gil = stepper_->most_work() >= work_worth_releasing;
    if (release_gil)
        for (const py::object& gradient : collected_)
            if (py::isinstance<py::array>(gradient)) pinned_.push_back(py::weakref(gradient));
    if (use == Use::accumulate)
        for (std::size_t i = 0; i < bound_.size(); ++i)
            if (!collected_[i].is_none()) make_accumulated(i);
    check_arrays(use);
    if (use == Use::accumulate) {
        const int threads = team::threads_for(stepper_->work());
        without_gil(release_gil, [&] { stepper_->accumulate(current_level(), threads); });
        stepper_->count_accumulation();
    } else {
        run_step(grad_scale, release_gil);
    }
}

void Plan::run_step(double grad_scale, bool release_gil) {
    const Extras extras{hyperparameters_.clip_norm, grad_scale, hyperparameters_.average_rate,
                        hyperparameters_.not_finite != NotFinite::propagate};
    stepper_->prepare(current_level(), hyperparameters_.groups, extras);
    const int threads = team::threads_for(stepper_->work());
    const std::ptrdiff_t bad = without_gil(release_gil, [&] { return stepper_->take(threads); });
    if (bad >= 0 && hyperparameters_.not_finite == NotFinite::raise) {
        const std::string text =
            "gradient of '" + bound_[static_cast<std::size_t>(bad)].name +
            "' is not finite everywhere in its parameter's arithmetic; finite numbers are wanted, and "
            "nothing has changed";
        PyErr_SetString(PyExc_FloatingPointError, text.c_str());
        throw py::error_already_set();
    }
    if (bad >= 0) {
        ++skipped_steps_;
        stepper_->clear_pending();
    } else {
        ++step_count_;
        stepper_->count_step();
    }
    if (extras.needs_norm())
        grad_norm_ = py::float_(stepper_->norm());
    else if (!grad_norm_.is_none())
        grad_norm_ = py::none();
}

void Plan::check_arrays(Use use) {
    confirmed_.clear();
    do {  // nearly always once
        python_ran_ = false;
        for (std::size_t k = 0; k < held_.size(); ++k) check_unchanged(held_[k], k);
        for (std::size_t i = 0; i < bound_.size(); ++i) bind_gradient(i, use);
    } while (python_ran_);
}

void Plan::check_unchanged(const Held& held, std::size_t index) const {
    const ArrayFields fields(held.array);
    if (!fields.writeable())
        throw py::value_error(named_[index].who +
                              " has been made read-only since it was given to the optimizer; it must stay writeable");
    if (fields.data != held.data || fields.ndim != held.ndim ||
        !same_extents(fields.shape, shape_of(held), fields.ndim) ||
        !same_extents(fields.strides, strides_of(held), fields.ndim))
        throw py::value_error(named_[index].who +
                              " has been reshaped or moved in memory since it was given to the optimizer; it must stay "
                              "as it was");
    if (fields.descr != held.descr && !same_dtype(fields.descr, held.descr))
        throw py::value_error(named_[index].who +
                              " has been given another dtype since it was given to the optimizer; it must stay as it "
                              "was");
}

void Plan::bind_gradient(std::size_t i, Use use) {
    const bool given = !collected_[i].is_none();
    const bool pending = stepper_->pending(i);
    stepper_->set_present(i, given || (pending && use != Use::accumulate));
    if (given && !bind_known(i)) bind_given(i);
    if (pending || known_[i].accumulated) bind_accumulated(i, given, use);
}

bool Plan::bind_known(std::size_t i) {
    const Known& known = known_[i];
    PyObject* gradient = collected_[i].ptr();
    if (known.descr == nullptr || !is_plain_array(gradient)) return false;
    const ArrayFields fields(gradient);
    const Held& param = held_[known.param];
    if (fields.descr != known.descr || fields.ndim != param.ndim || !fields.aligned()) return false;
    if (!same_extents(fields.shape, shape_of(param), fields.ndim) ||
        !same_extents(fields.strides, extents_.data() + known.strides, fields.ndim))
        return false;
    if (fields.data + known.low < known.gap.low || fields.data + known.high > known.gap.high) return false;
    Tensor& tensor = stepper_->tensor(i);
    tensor.operands.grad.data = tensor.logical_grad.data = fields.data;
    return true;
}

void Plan::bind_given(std::size_t i) {
    const Bound& bound = bound_[i];
    Tensor& tensor = stepper_->tensor(i);
    known_[i].descr = nullptr;
    if (bound.shape.empty() && !py::isinstance<py::array>(collected_[i])) take_scalar(collected_[i]);
    const Format format = check_gradient(collected_[i].ptr(), bound.name, bound.shape);
    const ArrayFields fields(collected_[i].ptr());
    const std::int64_t size = item_size(format);
    tensor.operands.grad = tensor.logical_grad = {fields.data, format, nullptr};
    if (!same_strides(fields.shape, fields.strides, bound.dense.data(), fields.ndim, size)) {
        tensor.grad_layout.assign(fields.shape, fields.strides, bound.order);
        tensor.operands.grad.view = &tensor.grad_layout.view();
    }
    if (!same_strides(fields.shape, fields.strides, bound.logical_dense.data(), fields.ndim, size)) {
        tensor.logical_grad_layout.assign(fields.shape, fields.strides, logical_order(fields.ndim));
        tensor.logical_grad.view = &tensor.logical_grad_layout.view();
    }
    const ByteRange range = byte_range(fields.shape, fields.strides, fields.ndim, size);
    if (range.low != range.high && !confirm_separate(i, fields.data + range.low, fields.data + range.high)) return;
    note_known(i, fields, range);
}

void Plan::note_known(std::size_t i, const ArrayFields& fields, const ByteRange& range) {
    if (!is_known_dtype(fields.descr)) return;
    Known& known = known_[i];
    std::copy(fields.strides, fields.strides + fields.ndim,
              extents_.begin() + static_cast<std::ptrdiff_t>(known.strides));
    known.low = range.low;
    known.high = range.high;
    known.gap = owned_.gap_around(fields.data + range.high);
    known.descr = fields.descr;
}

// What micro-batches have added up: it is added to the gradient given, or is the gradient.
void Plan::bind_accumulated(std::size_t i, bool given, Use use) {
    Tensor& tensor = stepper_->tensor(i);
    tensor.operands.accumulated = tensor.logical_accumulated = Operand{};
    known_[i].accumulated = stepper_->pending(i) && given;
    if (!stepper_->pending(i)) return;
    if (given) {
        tensor.operands.accumulated = tensor.accumulated;
        tensor.logical_accumulated = tensor.logical_order_of_accumulated;
    } else if (use != Use::accumulate) {
        tensor.operands.grad = tensor.accumulated;
        tensor.logical_grad = tensor.logical_order_of_accumulated;
        known_[i].descr = nullptr;
    }
}

// A sum over everything is a scalar, not an array, and so is the usual gradient of a 0-d parameter.
void Plan::take_scalar(py::object& gradient) {
    const py::module_ numpy = py::module_::import("numpy");
    if (!PyFloat_Check(gradient.ptr()) && !py::isinstance(gradient, numpy.attr("generic"))) return;
    gradient = numpy.attr("asarray")(gradient);
    python_ran_ = true;
}

// Throws where the gradient shares an element with an array of the optimizer. Returns whether it lies apart from all of
// them, not just woven through one.
bool Plan::confirm_separate(std::size_t i, const char* low, const char* high) {
    neighbours_.clear();
    owned_.find(low, high, neighbours_);
    if (neighbours_.empty()) return true;
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
    return false;
}

}  // namespace instep
