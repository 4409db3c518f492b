// Memory that steps need besides the bound arrays: sums of micro-batches, and what rules of matrices keep between two
// sweeps.
#include <utility>
#include <vector>

#include "python/steps.hpp"
#include "runtime/float_environment.hpp"
#include "runtime/levels.hpp"

namespace instep {

// Calls make(place, tensor, room) for each bound place that lacks an array; the room is for one array of the compute
// type and of the parameter's size for each of them. Returns whether there is such a place.
template <class Lacks, class Make>
bool Steps::make_arrays_in_room(int number, Lacks lacks, Make make) {
    std::vector<std::size_t> places;
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        if (!bound_[i].is_bound || !lacks(i)) continue;
        places.push_back(i);
        const Tensor& tensor = stepper_.tensor(i);
        bytes += Room::rounded(tensor.size * item_size(compute_format(tensor.compute)));
    }
    if (places.empty()) return false;
    Room room(bytes, number);
    for (const std::size_t i : places) make(i, stepper_.tensor(i), room);
    return true;
}

void Steps::make_accumulated() {
    const auto lacks = [this](std::size_t i) { return !gradients_[i].is_none() && bound_[i].accumulated.is_none(); };
    const bool made = make_arrays_in_room(2 + max_states, lacks, [this](std::size_t i, Tensor& tensor, Room& room) {
        Place& bound = bound_[i];
        const py::array array = room.take(bound.shape, bound.order, compute_format(tensor.compute));
        const Look look(array.ptr(), "the accumulated gradient");
        const TensorView& view = look.view();
        tensor.accumulated = operand_of(view, bound.order, bound.dense, tensor);
        tensor.logical_order_of_accumulated = operand_of(view, logical_order(view.ndim), bound.logical_dense, tensor);
        bound.accumulated = array;
        bound.see(accumulated_sum, array, look);
    });
    if (made) arranged_ = false;  // memory that was free may now belong to one of these arrays
}

void Steps::make_kept() {
    if (!has_matrices()) return;
    const auto lacks = [this](std::size_t i) {
        return is_of_matrices(i) && bound_[i].kept.is_none() && (!gradients_[i].is_none() || stepper_.pending(i));
    };
    make_arrays_in_room(4 + max_states, lacks, [this](std::size_t i, Tensor& tensor, Room& room) {
        Place& bound = bound_[i];
        const Format format = compute_format(tensor.compute);
        const bool turned = tensor.rows > tensor.columns;
        const Extents& shape = bound.shape;
        bound.kept = room.take(turned ? Extents{shape[1], shape[0]} : shape, logical_order(2), format);
        const std::int64_t item = item_size(format);
        const Extents strides = turned ? Extents{item, shape[0] * item} : Extents{shape[1] * item, item};
        const TensorView view{ArrayFields(bound.kept.ptr()).data, 2, shape.data(), strides.data(), format, true};
        const auto after_states = static_cast<std::size_t>(variant_of(group_of(i)).state_count);
        tensor.logical->kept = operand_of(view, logical_order(2), bound.logical_dense, tensor);
        tensor.operands.states[after_states] = operand_of(view, bound.order, bound.dense, tensor);
        tensor.operands.states[after_states].constant = true;
    });
}

void Steps::sum_gradients_of(const std::string& present) {
    gradients_.assign(bound_.size(), py::none());
    for (std::size_t i = 0; i < bound_.size(); ++i)
        if (present.at(i) != 0) gradients_[i] = py::bool_(true);  // which stands for an array
    make_accumulated();
    make_kept();
    gradients_.clear();
    arrange();
    check_unchanged();
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        stepper_.set_present(i, present[i] != 0);
        if (present[i] == 0) continue;
        Tensor& tensor = stepper_.tensor(i);
        tensor.operands.grad = tensor.accumulated;
        tensor.logical_grad = tensor.logical_order_of_accumulated;
        tensor.operands.accumulated = tensor.logical_accumulated = Operand{};
    }
}

// Replaces what rules of matrices have kept. Runs Python's code, and nothing has changed yet.
void Steps::make_orthogonal() {
    const StepLock::Readable readable(lock_);
    const FloatEnvironment environment;
    if (newton_schulz_.is_none())
        newton_schulz_ = py::module_::import("instep.optimizers.newton_schulz").attr("NewtonSchulz")();
    py::list matrices;
    for (std::size_t i = 0; i < bound_.size(); ++i) {
        if (!is_of_matrices(i) || !stepper_.present(i) || stepper_.tensor(i).size == 0) continue;
        const Group& group = group_of(i);
        const RuleFamily& family = *current_level().families[group.family];
        py::dict numbers;
        for (int k = 0; k < family.hyperparameter_count; ++k)
            numbers[family.hyperparameters[k]] = group.hyperparameters[k];
        matrices.append(py::make_tuple(bound_[i].kept, stepper_.tensor(i).sum, numbers));
    }
    newton_schulz_(matrices);
}

}  // namespace instep
