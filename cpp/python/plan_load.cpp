// What a Plan goes on from: counts and arrays of another run.
//
// Whatever changes several arrays is one call from Python: a Ctrl-C comes before it or after it, never half-way.
#include <stdexcept>
#include <utility>

#include "python/plan.hpp"
#include "runtime/copying.hpp"
#include "runtime/levels.hpp"

namespace instep {

// Arrays that have been checked, in the places of the step: nothing is written before `write`.
class Plan::Load {
public:
    explicit Load(Steps& steps) : steps_(steps) {}

    // NumPy's own array, whatever its subclass says of itself, of the operand's shape and format.
    void add(const std::string& who, py::handle array, const Operand& into, std::size_t place) {
        const Steps::Bound& bound = steps_.bound(place);
        require_unmasked(array.ptr(), who);
        py::array plain = as_plain_array(array);
        const auto ndim = static_cast<int>(bound.shape.size());
        const Format format = check_readable(plain.ptr(), who, bound.shape.data(), ndim);
        if (format != into.format)
            throw py::value_error(who + " has dtype " + format_name(format) + "; " + format_name(into.format) +
                                  " is wanted");
        const TensorView view = ArrayFields(plain.ptr()).view(format);
        Incoming incoming{{view.data, format, nullptr}, into, view.size()};
        if (!same_strides(view.shape, view.strides, bound.dense.data(), ndim, item_size(format))) {
            layouts_.push_back(std::make_unique<StridedLayout>());
            layouts_.back()->assign(view.shape, view.strides, bound.order);
            incoming.from.view = &layouts_.back()->view();
        }
        if (steps_.meets_memory(view)) {  // the optimizer's own, exchanged, say: what is written must not be read later
            copies_.emplace_back(static_cast<std::size_t>(incoming.size * item_size(format)));
            const Operand copy{copies_.back().data(), format, nullptr};
            copy_elements(incoming.from, copy, incoming.size);
            incoming.from = copy;
        }
        arrays_.push_back(std::move(plain));
        incoming_.push_back(incoming);
    }

    void write() const {
        for (const Incoming& incoming : incoming_) copy_elements(incoming.from, incoming.into, incoming.size);
    }

private:
    Steps& steps_;
    std::vector<Incoming> incoming_;
    std::vector<py::array> arrays_;
    std::vector<std::unique_ptr<StridedLayout>> layouts_;
    std::vector<std::vector<char>> copies_;
};

void Plan::restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters, bool is_new) {
    if (shows_averages())
        throw std::runtime_error("inside averaged() the parameters are averages; load after the block");
    const std::size_t count = steps_.count();
    if (parameters.size() != count) throw py::value_error("parameters: one entry a parameter is wanted");
    Stepper& stepper = steps_.stepper();
    std::vector<py::tuple> entries;
    std::vector<std::int64_t> steps;
    std::vector<bool> pending;
    for (const py::handle parameter : parameters) {  // what can fail comes before what changes anything
        entries.push_back(parameter.cast<py::tuple>());
        const py::tuple& entry = entries.back();
        steps.push_back(entry[0].cast<std::int64_t>());
        pending.push_back(!entry[3].is_none());
        steps_.gradients().push_back(entry[3]);
    }
    steps_.make_accumulated();
    steps_.gradients().clear();
    steps_.arrange();
    if (!is_new) steps_.check_unchanged();
    steps_.require_writeable();
    Load load(steps_);
    for (std::size_t i = 0; i < count; ++i) {
        const Steps::Bound& bound = steps_.bound(i);
        const Tensor& tensor = stepper.tensor(i);
        const std::string of = " of '" + bound.name + "'";
        const Variant& variant = variant_of(steps_.group_of(i));
        for (int k = 0; k < variant.state_count; ++k)
            if (variant.states[k].used) {
                const std::string name = variant.states[k].name;
                load.add("state '" + name + "'" + of, entries[i][1][name.c_str()], tensor.operands.states[k], i);
            }
        if (!bound.average.is_none()) load.add("the average" + of, entries[i][2], tensor.operands.average, i);
        if (pending[i]) load.add("the accumulated gradient" + of, entries[i][3], tensor.accumulated, i);
        if (!entries[i][4].is_none())
            load.add("the stored parameter '" + bound.name + "'", entries[i][4], tensor.operands.param, i);
    }
    load.write();
    for (std::size_t i = 0; i < count; ++i) {
        stepper.set_pending(i, pending[i]);
        stepper.set_steps(i, steps[i]);
    }
    if (!is_new) stepper.copy_all(current_level(), &Operands::param, &Operands::copy);  // others may have changed them
    steps_.set_counts(step_count, skipped_steps);
}

}  // namespace instep
