// A step of the places: all checks of the arrays and the gradients, before anything changes, and then the step itself.
#include <algorithm>

#include "python/gil.hpp"
#include "python/steps.hpp"
#include "runtime/float_environment.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

// Steps of more work than this (about a millisecond) release the GIL. If other Python threads compute, taking the GIL
// back may cost a thread switch interval (5 ms by default), so shorter steps keep it.
constexpr std::int64_t work_worth_releasing = std::int64_t{1} << 25;

// A separate loop, since std::equal becomes a call of memcmp, which takes three times as long for a handful of axes.
bool same_extents(const std::int64_t* a, const std::int64_t* b, int count) {
    for (int axis = 0; axis < count; ++axis)
        if (a[axis] != b[axis]) return false;
    return true;
}

// The text of another library's error, for a line of ours.
std::string one_line(std::string text) {
    constexpr std::size_t longest = 200;
    std::replace_if(text.begin(), text.end(), [](unsigned char letter) { return letter < ' '; }, ' ');
    std::size_t length = std::min(longest, text.size());
    while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0U) == 0x80U) --length;  // UTF-8
    return text.substr(0, length) + (length < text.size() ? "..." : "");
}

[[noreturn]] void refuse_gradient(const std::string& who, const std::string& owner) {
    throw py::value_error(refusal(who, "have memory of its own", "an array that shares memory with " + owner) +
                          "; pass a copy");
}

}  // namespace

void Steps::step(double grad_scale) { take(Use::step, grad_scale); }

void Steps::refuse_no_gradients() {
    throw py::value_error(refusal("step()", "have gradients, given or accumulated", "none") +
                          "; pass them, or call accumulate first");
}

void Steps::step_accumulated(double grad_scale) {
    if (!stepper_.any_pending()) refuse_no_gradients();
    gradients_.assign(bound_.size(), py::none());
    take(Use::step_accumulated, grad_scale);
}

void Steps::accumulate() { take(Use::accumulate, 1.0); }

bool Steps::is_long(std::int64_t work) { return work >= work_worth_releasing; }

// This comes before any address is noted, since it may run code that moves other gradients.
void Steps::make_arrays(Use use) {
    const StepLock::Readable readable(lock_);
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
        PyObject* const gradient = gradients_[i].ptr();
        if (is_plain_array(gradient) || gradient == Py_None) continue;
        if (takes_tensors_ && !is_array(gradient) && is_tensor(gradient)) continue;
        require_unmasked(gradient, gradient_of(bound_[i].name));
        if (bound_[i].is_bound) make_array(i);
    }
    if (use == Use::accumulate)
        make_accumulated();
    else
        make_kept();
}

void Steps::pin() {
    for (const Held& held : held_) pins_.pin(held.array);
    for (const py::object& gradient : gradients_)
        if (is_array(gradient.ptr())) pins_.pin(gradient);
}

void Steps::take(Use use, double grad_scale) {
    make_arrays(use);
    check(use);
    const bool release_gil = is_long(stepper_.most_work()) || has_matrices();
    if (release_gil) pin();
    if (use == Use::accumulate) {
        const int threads = stepper_.most_threads();
        without_gil(release_gil, [&] { stepper_.accumulate(current_level(), threads); });
        stepper_.count_accumulation();
    } else {
        run_step(grad_scale, release_gil);
    }
}

void Steps::prepare(const Extras& extras) {
    if (stepper_.windows() != nullptr) {
        stepper_.windows()->files().require_whole();
        stepper_.windows()->files().set_next(step_count_ + 1);
    }
    stepper_.prepare(current_level(), hyperparameters_.groups, extras);
}

void Steps::run_step(double grad_scale, bool release_gil) {
    const Extras extras = hyperparameters_.extras(grad_scale);
    read_counters();
    prepare(extras);
    const int threads = stepper_.most_threads();
    const Participant alone{&stepper_, threads};
    const std::ptrdiff_t bad = without_gil(release_gil, [&] {
        return stepper_.has_matrices() ? Stepper::take_up_to_sweep({&alone, 1}).tensor : stepper_.take(threads);
    });
    if (bad < 0 && stepper_.has_matrices()) {
        make_orthogonal();
        without_gil(release_gil, [&] { stepper_.take_sweep(threads); });
    }
    if (bad >= 0 && hyperparameters_.not_finite == NotFinite::raise) refuse_not_finite(static_cast<std::size_t>(bad));
    bad >= 0 ? count_skipped() : count_step();
    if (extras.needs_norm())
        grad_norm_ = py::float_(stepper_.norm());
    else if (!grad_norm_.is_none())
        grad_norm_ = py::none();
}

void Steps::refuse_not_finite(std::size_t place, const std::string& prefix) const {
    const std::string text =
        prefix +
        refusal(gradient_of(bound_[place].name), "be finite in its parameter's arithmetic", "an infinity or NaN") +
        "; nothing has changed";
    PyErr_SetString(PyExc_FloatingPointError, text.c_str());
    throw py::error_already_set();
}

void Steps::count_step() {
    ++step_count_;
    stepper_.count_step();
    write_counters();
    if (stepper_.windows() != nullptr) stepper_.windows()->files().end();
}

void Steps::count_skipped() {
    ++skipped_steps_;
    stepper_.clear_pending();
}

void Steps::check_unchanged() const {
    for (const Held& held : held_) check_unchanged(held);
}

void Steps::check(Use use) {
    arrange();
    check_unchanged();
    for (std::size_t i = 0; i < gradients_.size(); ++i)
        if (stepper_.is_bound(i))  // asked there, where the places' flags lie side by side
            bind_gradient(i, use);
        else if (!gradients_[i].is_none())
            throw py::value_error(refusal("the gradient of place " + std::to_string(i),
                                          "be None, as the place is empty", kind_of(gradients_[i])) +
                                  "; bind an array there first");
}

bool Steps::same_layout(const Held& held, int ndim, const std::int64_t* shape, const std::int64_t* strides) const {
    return ndim == held.ndim && same_extents(shape, shape_of(held), ndim) &&
           same_extents(strides, strides_of(held), ndim);
}

// A tensor has no flags, and may be given other memory at any time; then its place must be bound again.
void Steps::check_tensor(const Held& held) const {
    const TensorLayout layout{held.format, held.ndim, shape_of(held), strides_of(held)};
    if (held.data != nullptr && memory_if_like(held.array, layout) == held.data) return;
    const TensorFields fields = look_at_tensor(held.array);
    if (fields.data != held.data || !fields.is_of(held.format) ||
        !same_layout(held, fields.ndim, fields.shape, fields.strides.data()))
        throw py::value_error(refusal(name_of(held.id), "keep its memory, shape and dtype while it is bound",
                                      "a tensor that has been given other memory, another shape or another dtype") +
                              "; bind it again");
}

void Steps::check_unchanged(const Held& held) const {
    if (held.descr == nullptr) return check_tensor(held);
    const ArrayFields fields(held.array);
    if (!fields.writeable())
        throw py::value_error(
            held.came_read_only
                ? refusal(name_of(held.id), "be writeable",
                          "an array that is read-only, as it came with the stored optimizer (from a memory map, or "
                          "from buffers that processes share)") +
                      "; to step, make a new optimizer of writeable copies and load this one's state_dict()"
                : refusal(name_of(held.id), "stay writeable",
                          "an array that has been made read-only since it was given to the optimizer"));
    if (fields.data != held.data || !same_layout(held, fields.ndim, fields.shape, fields.strides))
        throw py::value_error(
            refusal(name_of(held.id), "keep its shape and its place in memory",
                    "an array that has been reshaped or moved in memory since it was given to the optimizer"));
    if (fields.descr != held.descr && !same_dtype(fields.descr, held.descr))
        throw py::value_error(
            refusal(name_of(held.id), "keep its dtype",
                    "an array that has been given another dtype since it was given to the optimizer"));
}

void Steps::bind_gradient(std::size_t i, Use use) {
    const bool given = !gradients_[i].is_none();
    const bool pending = stepper_.pending(i);
    stepper_.set_present(i, given || (pending && use != Use::accumulate));
    if (given && !bind_known(i)) bind_given(i);
    if (pending || known_[i].accumulated) bind_accumulated(i, given, use);
}

bool Steps::bind_known(std::size_t i) {
    const Known& known = known_[i];
    PyObject* gradient = gradients_[i].ptr();
    if (!known.is_known) return false;
    if (known.descr == nullptr) return bind_known_tensor(i);
    if (!is_plain_array(gradient)) return false;
    const ArrayFields fields(gradient);
    const Held& param = held_[known.param];
    if (fields.descr != known.descr || fields.ndim != param.ndim || !fields.aligned()) return false;
    if (!same_extents(fields.shape, shape_of(param), fields.ndim) ||
        !same_extents(fields.strides, extents_.data() + known.strides, fields.ndim))
        return false;
    if (fields.data + known.low < known.gap.low || fields.data + known.high > known.gap.high) return false;
    Tensor& tensor = stepper_.tensor(i);
    tensor.operands.grad.data = tensor.logical_grad.data = fields.data;
    return true;
}

bool Steps::bind_known_tensor(std::size_t i) {
    const Known& known = known_[i];
    PyObject* gradient = gradients_[i].ptr();
    if (is_array(gradient) || !is_tensor(gradient)) return false;
    const Held& param = held_[known.param];
    const TensorLayout layout{known.format, param.ndim, shape_of(param), extents_.data() + known.strides};
    char* const data = memory_if_like(gradient, layout);
    const auto item = static_cast<std::uintptr_t>(item_size(known.format));
    if (data == nullptr || reinterpret_cast<std::uintptr_t>(data) % item != 0) return false;
    if (data + known.low < known.gap.low || data + known.high > known.gap.high) return false;
    Tensor& tensor = stepper_.tensor(i);
    tensor.operands.grad.data = tensor.logical_grad.data = data;
    return true;
}

void Steps::bind_given(std::size_t i) {
    const Place& bound = bound_[i];
    Tensor& tensor = stepper_.tensor(i);
    Known& known = known_[i];
    known.is_known = false;
    PyObject* const gradient = gradients_[i].ptr();
    const std::string who = gradient_of(bound.name);
    const Look look(gradient, who, takes_tensors_);
    const TensorView& view = look.view();
    require_shape(view, who, bound.shape.data(), static_cast<int>(bound.shape.size()));
    const std::int64_t item = item_size(view.format);
    tensor.operands.grad = tensor.logical_grad = {view.data, view.format, nullptr};
    if (!same_strides(view.shape, view.strides, bound.dense.data(), view.ndim, item)) {
        tensor.grad_layout.assign(view.shape, view.strides, bound.order);
        tensor.operands.grad.view = &tensor.grad_layout.view();
    }
    if (!same_strides(view.shape, view.strides, bound.logical_dense.data(), view.ndim, item)) {
        tensor.logical_grad_layout.assign(view.shape, view.strides, logical_order(view.ndim));
        tensor.logical_grad.view = &tensor.logical_grad_layout.view();
    }
    const ByteRange range = byte_range(view);
    if (!range.empty() && !occupied_.is_free(range)) {
        const std::size_t owner = occupied_.find(view);
        if (owner == OccupiedMemory::none) return;  // woven into other arrays' memory: checked again next time
        refuse_gradient(who, name_of(owner));
    }
    if (look.descr() != nullptr && !is_known_dtype(look.descr())) return;
    std::copy(view.strides, view.strides + view.ndim, extents_.begin() + static_cast<std::ptrdiff_t>(known.strides));
    known.low = range.low - view.data;
    known.high = range.high - view.data;
    known.gap = occupied_.gap_around(range);
    known.descr = look.descr();
    known.format = view.format;
    known.is_known = true;
}

// No code has run since these gradients were bound, so that they are as they were then.
void Steps::keep_gradients_off(const Steps& other, const std::string& prefix, const std::string& whose) const {
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
        if (gradients_[i].is_none()) continue;
        const TensorView view = ArrayFields(gradients_[i].ptr()).view(stepper_.tensor(i).operands.grad.format);
        if (!other.meets_memory(view)) continue;
        const std::size_t owner = other.occupied_.find(view);
        if (owner != OccupiedMemory::none)
            refuse_gradient(prefix + gradient_of(bound_[i].name), other.name_of(owner) + whose);
    }
}

// The sum of micro-batches is added to the given gradient, or is the gradient.
void Steps::bind_accumulated(std::size_t i, bool given, Use use) {
    Tensor& tensor = stepper_.tensor(i);
    tensor.operands.accumulated = tensor.logical_accumulated = Operand{};
    known_[i].accumulated = stepper_.pending(i) && given;
    if (!stepper_.pending(i)) return;
    if (given) {
        tensor.operands.accumulated = tensor.accumulated;
        tensor.logical_accumulated = tensor.logical_order_of_accumulated;
    } else if (use != Use::accumulate) {
        tensor.operands.grad = tensor.accumulated;
        tensor.logical_grad = tensor.logical_order_of_accumulated;
        known_[i].is_known = false;
    }
}

// Makes an array of a gradient that is none, where that is possible. Runs code of the gradient's class.
void Steps::make_array(std::size_t i) {
    py::object& gradient = gradients_[i];
    if (is_array(gradient.ptr())) return;
    const std::string who = gradient_of(bound_[i].name);
    const py::object numpy = py::module_::import("numpy");
    const bool is_scalar = (PyFloat_Check(gradient.ptr()) || PyLong_Check(gradient.ptr()) ||
                            py::isinstance(gradient, numpy.attr("generic"))) &&
                           !PyBool_Check(gradient.ptr());
    if (is_scalar) {
        // In NumPy, a sum over all elements is a scalar, and so is the usual gradient of a 0-d parameter.
        const Extents& shape = bound_[i].shape;
        if (!shape.empty())
            throw py::type_error(
                refusal(who, "be an array of shape " + text_of_shape(shape.data(), static_cast<int>(shape.size())),
                        kind_of(gradient)) +
                "; sum with keepdims=True to keep the axes");
    } else if (!has_attribute(gradient.ptr(), "__array__")) {  // arrays of JAX and the like have it
        return;
    }
    try {
        const FloatEnvironment environment;  // a large int is rounded
        const bool is_int = PyLong_Check(gradient.ptr()) || py::isinstance(gradient, numpy.attr("integer"));
        gradient = numpy.attr("asarray")(is_int ? py::object(py::float_(gradient)) : gradient);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError) || error.matches(PyExc_RecursionError))
            throw;
        const std::string text = refusal(who, "be an array", kind_of(gradient)) + ", of which NumPy makes none: " +
                                 one_line(py::cast<std::string>(py::str(error.value())));
        py::raise_from(error, PyExc_TypeError, text.c_str());
        throw py::error_already_set();
    }
}

}  // namespace instep
