// Loading a Plan: counts and arrays of another run.
//
// Every change of several arrays is a single call from Python: a Ctrl-C takes effect before it or after it, never
// half-way.
#include <cstring>
#include <functional>
#include <unordered_map>
#include <utility>

#include "python/plan.hpp"
#include "runtime/copying.hpp"
#include "runtime/levels.hpp"

namespace instep {

// First all arrays are taken from Python, then all are checked, then all are written: taking one may run Python code,
// which may move arrays that have been checked already.
class Plan::Load {
public:
    explicit Load(Steps& steps) : steps_(steps) {}

    // Takes the array itself, not a view of it: its fields say where it lies when it is looked at.
    void ask(const std::string& who, const py::object& array, std::size_t place, Wanted into) {
        require_unmasked(array.ptr(), who);
        asked_.push_back({who, array, place, std::move(into)});
    }

    // Several may be for the same number, if parameters share it.
    void ask_number(const std::string& who, const py::object& array, double& into) {
        require_unmasked(array.ptr(), who);
        numbers_.push_back({who, array, &into, 0});
    }

    // Each must have the operand's shape and format.
    void look() {
        for (Number& number : numbers_) {
            const Look seen(number.array.ptr(), number.who);
            require_shape(seen.view(), number.who, nullptr, 0);
            if (seen.view().format != Format::float64)
                throw py::value_error(refusal(number.who, "have dtype float64", format_name(seen.view().format)));
            std::memcpy(&number.value, seen.view().data, sizeof(double));
            require_same(number);
        }
        for (const Asked& asked : asked_) {
            const Steps::Place& bound = steps_.bound(asked.place);
            const Operand& into = asked.into(steps_.stepper().tensor(asked.place));
            const auto ndim = static_cast<int>(bound.shape.size());
            const Look seen(asked.array.ptr(), asked.who);
            const TensorView& view = seen.view();
            const Format format = view.format;
            require_shape(view, asked.who, bound.shape.data(), ndim);
            if (format != into.format)
                throw py::value_error(
                    refusal(asked.who, std::string("have dtype ") + format_name(into.format), format_name(format)));
            Incoming incoming{{view.data, format, nullptr}, into, view.size()};
            if (!same_strides(view.shape, view.strides, bound.dense.data(), ndim, item_size(format))) {
                layouts_.push_back(std::make_unique<StridedLayout>());
                layouts_.back()->assign(view.shape, view.strides, bound.order);
                incoming.from.view = &layouts_.back()->view();
            }
            if (steps_.meets_memory(view)) copy_aside(incoming);
            incoming_.push_back(incoming);
        }
    }

    void write() const {
        for (const Incoming& incoming : incoming_) copy_elements(incoming.from, incoming.into, incoming.size);
        for (const Number& number : numbers_) *number.into = number.value;
    }

private:
    struct Asked {
        std::string who;
        py::object array;
        std::size_t place;
        Wanted into;
    };

    struct Number {
        std::string who;
        py::object array;
        double* into;
        double value;
    };

    // If another number goes to the same place, both must have the same bits.
    void require_same(const Number& number) {
        const Number& first = *by_place_.emplace(number.into, &number).first->second;
        if (std::memcmp(&first.value, &number.value, sizeof(double)) != 0)
            throw py::value_error(refusal(number.who, "equal " + first.who + ", as the rule has one for all parameters",
                                          py::cast<std::string>(py::repr(py::float_(number.value)))));
    }

    // For memory of the optimizer itself, such as two parameters' states that are exchanged: memory that is written
    // must not be read later.
    void copy_aside(Incoming& incoming) {
        copies_.emplace_back(static_cast<std::size_t>(incoming.size * item_size(incoming.from.format)));
        const Operand copy{copies_.back().data(), incoming.from.format, nullptr};
        copy_elements(incoming.from, copy, incoming.size);
        incoming.from = copy;
    }

    Steps& steps_;
    std::vector<Asked> asked_;
    std::vector<Incoming> incoming_;
    std::vector<Number> numbers_;
    std::unordered_map<const double*, const Number*> by_place_;
    std::vector<std::unique_ptr<StridedLayout>> layouts_;
    std::vector<std::vector<char>> copies_;
};

void Plan::restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters,
                   const py::object& now, bool is_new) {
    refuse_averages("load");
    const std::size_t count = steps_.count();
    if (parameters.size() != count)
        throw py::value_error(
            refusal("parameters", "have an entry for each parameter", std::to_string(parameters.size())));
    Stepper& stepper = steps_.stepper();
    std::vector<std::int64_t> steps;
    std::vector<bool> pending;
    Load load(steps_);
    for (std::size_t i = 0; i < count; ++i) {
        const auto entry = parameters[i].cast<py::tuple>();
        steps.push_back(entry[0].cast<std::int64_t>());
        pending.push_back(!entry[3].is_none());
        const Steps::Place& bound = steps_.bound(i);
        const std::string of = " of '" + bound.name + "'";
        const Variant& variant = variant_of(steps_.group_of(i));
        for (int k = 0; k < variant.state_count; ++k)
            if (variant.states[k].used) {
                const char* const name = variant.states[k].name;
                load.ask(state_of(bound.name, name), entry[1][name], i,
                         [k](Tensor& tensor) -> Operand& { return tensor.operands.states[k]; });
            }
        for (int k = 0; k < max_scalar_states; ++k)
            if (variant.scalar_states[k].used) {
                const char* const name = variant.scalar_states[k].name;
                load.ask_number(state_of(bound.name, name), entry[1][name], *stepper.tensor(i).scalar_states[k]);
            }
        if (!bound.average.is_none())
            load.ask("the average" + of, entry[2], i,
                     [](Tensor& tensor) -> Operand& { return tensor.operands.average; });
        if (pending[i])
            load.ask("the accumulated gradient" + of, entry[3], i,
                     [](Tensor& tensor) -> Operand& { return tensor.accumulated; });
        if (!entry[4].is_none())
            load.ask("the stored parameter '" + bound.name + "'", entry[4], i,
                     [](Tensor& tensor) -> Operand& { return tensor.operands.param; });
    }
    // From here on no Python code runs, and everything that can fail comes before the first change.
    for (const bool is_pending : pending)
        steps_.gradients().push_back(is_pending ? py::object(py::bool_(true)) : py::object(py::none()));
    steps_.make_accumulated();
    steps_.gradients().clear();
    steps_.arrange();
    if (!is_new) steps_.check_unchanged();
    steps_.require_writeable();
    load.look();
    load.write();
    for (std::size_t i = 0; i < count; ++i) {
        stepper.set_pending(i, pending[i]);
        stepper.set_steps(i, steps[i]);
    }
    if (!is_new) stepper.copy_all(current_level(), &Operands::param, &Operands::copy);  // others may have changed them
    steps_.set_counts(step_count, skipped_steps);
    if (!now.is_none()) current_.attr("now") = now;
}

}  // namespace instep
