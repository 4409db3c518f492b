// Loading a Plan: counts and arrays of another run.
//
// Every change of several arrays is a single call from Python: a Ctrl-C takes effect before it or after it, never
// half-way.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include "python/plan.hpp"
#include "python/state_storage.hpp"
#include "runtime/copying.hpp"
#include "runtime/levels.hpp"

namespace instep {

// First all arrays are taken from Python, then all are checked, then all are written: taking one may run Python code,
// which may move arrays that have been checked already.
class Plan::Load {
public:
    // Arrays may lie in memory of any of `all`, which are loaded together.
    Load(Steps& steps, const std::vector<const Steps*>& all) : steps_(steps), all_(all) {}

    // Takes what is there for each parameter; see Plan::restore.
    void ask_all(const Restored& restored);
    // Checks everything. No Python code runs from here on, and everything that can fail comes before the first change.
    void check(bool is_new);
    void write_all(const Restored& restored, bool is_new);

private:
    using Wanted = std::function<Operand(const Tensor&)>;

    // Takes the array itself, not a view of it: its fields say where it lies when it is looked at.
    void ask(const std::string& who, const py::object& array, std::size_t place, Wanted into, bool is_units = false) {
        require_unmasked(array.ptr(), who);
        asked_.push_back({who, array, place, std::move(into), is_units});
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
            const Tensor& tensor = steps_.stepper().tensor(asked.place);
            const Operand into = asked.into(tensor);
            const Extents shape = asked.is_units ? Extents{code_blocks(tensor.size)} : bound.shape;
            const Axes order = asked.is_units ? logical_order(1) : bound.order;
            const Extents dense = asked.is_units ? Extents{1} : bound.dense;
            const auto ndim = static_cast<int>(shape.size());
            const Look seen(asked.array.ptr(), asked.who, false, Elements::also_codes);
            const TensorView& view = seen.view();
            const Format format = view.format;
            require_shape(view, asked.who, shape.data(), ndim);
            if (format != array_format(into.format))
                throw py::value_error(
                    refusal(asked.who, std::string("have dtype ") + format_name(into.format), format_name(format)));
            Incoming incoming{{view.data, format, nullptr}, into, view.size()};
            if (!same_strides(view.shape, view.strides, dense.data(), ndim, item_size(format))) {
                layouts_.push_back(std::make_unique<StridedLayout>());
                layouts_.back()->assign(view.shape, view.strides, order);
                incoming.from.view = &layouts_.back()->view();
            }
            if (std::any_of(all_.begin(), all_.end(), [&](const Steps* steps) { return steps->meets_memory(view); }))
                copy_aside(incoming);
            incoming_.push_back(incoming);
        }
    }

    void write() const {
        for (const Incoming& incoming : incoming_) {
            Windows* const windows = steps_.stepper().windows();
            if (windows != nullptr && windows->have(incoming.into))
                load_into_file(*windows, incoming.from, incoming.into, incoming.size);
            else
                copy_elements(incoming.from, incoming.into, incoming.size);
        }
        for (const Number& number : numbers_) *number.into = number.value;
    }

    // New weights and states, checked, and their destinations.
    struct Incoming {
        Operand from;
        Operand into;
        std::int64_t size;
    };
    struct Asked {
        std::string who;
        py::object array;
        std::size_t place;
        Wanted into;
        bool is_units;
    };

    struct Number {
        std::string who;
        py::object array;
        double* into;
        double value;
    };

    static std::uint64_t bits_of(double value) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        return bits;
    }

    // If another number goes to the same place, both must have the same bits.
    void require_same(const Number& number) {
        const Number& first = *by_place_.emplace(number.into, &number).first->second;
        if (bits_of(first.value) != bits_of(number.value))
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
    const std::vector<const Steps*>& all_;
    std::optional<std::uint64_t> seed_;
    std::vector<std::int64_t> counts_;  // of steps, by parameter
    std::vector<bool> pending_;
    std::vector<Asked> asked_;
    std::vector<Incoming> incoming_;
    std::vector<Number> numbers_;
    std::unordered_map<const double*, const Number*> by_place_;
    std::vector<std::unique_ptr<StridedLayout>> layouts_;
    std::vector<std::vector<char>> copies_;
};

void Plan::Load::ask_all(const Restored& restored) {
    const py::sequence& parameters = restored.parameters;
    if (!restored.seed.is_none()) seed_ = restored.seed.cast<std::uint64_t>();
    const std::size_t count = steps_.count();
    if (parameters.size() != count)
        throw py::value_error(
            refusal("parameters", "have an entry for each parameter", std::to_string(parameters.size())));
    for (std::size_t i = 0; i < count; ++i) {
        const auto entry = parameters[i].cast<py::tuple>();
        counts_.push_back(entry[0].cast<std::int64_t>());
        pending_.push_back(!entry[3].is_none());
        const Steps::Place& bound = steps_.bound(i);
        const std::string of = " of '" + bound.name + "'";
        const Variant& variant = variant_of(steps_.group_of(i));
        for (int k = 0; k < variant.state_count; ++k)
            if (variant.states[k].used) {
                const char* const name = variant.states[k].name;
                const auto state = [k](const Tensor& tensor) { return tensor.operands.states[k]; };
                ask(state_of(bound.name, name), entry[1][name], i, state);
                const std::string units = unit_name(name);
                if (bound.states.contains(units))
                    ask(
                        state_of(bound.name, units), entry[1][py::str(units)], i,
                        [state](const Tensor& tensor) { return companion_of(state(tensor)); }, true);
            }
        if (bound.states.contains(remainder_name))
            ask(state_of(bound.name, remainder_name), entry[1][remainder_name], i,
                [](const Tensor& tensor) { return companion_of(tensor.operands.param); });
        for (int k = 0; k < max_scalar_states; ++k)
            if (variant.scalar_states[k].used) {
                const char* const name = variant.scalar_states[k].name;
                ask_number(state_of(bound.name, name), entry[1][name], *steps_.stepper().tensor(i).scalar_states[k]);
            }
        if (!bound.average.is_none())
            ask("the average" + of, entry[2], i, [](const Tensor& tensor) { return tensor.operands.average; });
        if (pending_[i])
            ask("the accumulated gradient" + of, entry[3], i, [](const Tensor& tensor) { return tensor.accumulated; });
        if (!entry[4].is_none())
            ask("the stored parameter '" + bound.name + "'", entry[4], i,
                [](const Tensor& tensor) { return tensor.operands.param; });
    }
}

void Plan::Load::check(bool is_new) {
    for (const bool is_pending : pending_)
        steps_.gradients().push_back(is_pending ? py::object(py::bool_(true)) : py::object(py::none()));
    steps_.make_accumulated();
    steps_.gradients().clear();
    steps_.arrange();
    if (!is_new) steps_.check_unchanged();
    steps_.require_writeable();
    if (steps_.stepper().windows() != nullptr) steps_.stepper().windows()->files().require_own_process();
    look();
}

void Plan::Load::write_all(const Restored& restored, bool is_new) {
    Stepper& stepper = steps_.stepper();
    Windows* const windows = stepper.windows();
    if (windows != nullptr && !windows->files().is_changing()) windows->files().begin("load");
    try {
        write();
    } catch (FileError& error) {
        windows->files().explain(error);
        throw;
    }
    for (std::size_t i = 0; i < counts_.size(); ++i) {
        stepper.set_pending(i, pending_[i]);
        stepper.set_steps(i, counts_[i]);
    }
    if (!is_new) stepper.copy_all(current_level(), &Operands::param, &Operands::copy);  // others may have changed them
    steps_.set_counts(restored.step_count, restored.skipped_steps);
    if (!restored.now.is_none()) restored.plan->numbers_.replace(restored.now);
    if (seed_) stepper.set_seed(*seed_);
    if (windows != nullptr) windows->files().end();
}

void Plan::restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters,
                   const py::object& now, bool is_new, const py::object& seed) {
    restore_all({{this, step_count, skipped_steps, parameters, now, seed}}, is_new);
}

void Plan::restore_all(const std::vector<Restored>& restored, bool is_new) {
    std::vector<const Steps*> all;
    for (const Restored& one : restored) {
        one.plan->refuse_averages("load");
        all.push_back(&one.plan->steps_);
    }
    std::vector<Load> loads;
    for (const Restored& one : restored) loads.emplace_back(one.plan->steps_, all).ask_all(one);
    for (Load& load : loads) load.check(is_new);
    for (std::size_t k = 0; k < loads.size(); ++k) loads[k].write_all(restored[k], is_new);
}

}  // namespace instep
