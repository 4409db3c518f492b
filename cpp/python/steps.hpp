// Places that are bound to arrays, and steps over the places that get a gradient.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/arrays.hpp"
#include "python/hyperparameters.hpp"
#include "python/room.hpp"
#include "python/step_lock.hpp"
#include "runtime/overlap.hpp"
#include "runtime/step.hpp"

namespace instep {

// Where a run of a parameter's elements lies in it: what a step does goes by the whole parameter.
struct Stretch {
    Extents shape;       // of the whole parameter
    std::int64_t first;  // the place of the first element

    std::int64_t size() const {
        return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    }
};

// The arrays to which a place is bound. States, average and copy have the parameter's shape; arrays that the rule
// doesn't use are left out.
struct Binding {
    std::string name;
    int group = 0;
    py::object parameter = py::none();
    py::object states = py::dict();  // name -> array
    py::object average = py::none();
    py::object copy = py::none();
    std::int64_t steps = 0;
    py::object counter = py::none();         // an array of one number that has the steps instead
    ReadOnly read_only = ReadOnly::refused;  // the caller's arrays may become writeable later
    std::optional<Stretch> stretch;          // the arrays are of this part of the parameter alone
};

// What is rounded at random: states in 8 or 16 bits, and parameters in 16.
struct RandomRounding {
    bool states, parameters;
};

// The names of the arrays that go with a coded state, and with a parameter of which a step sees more bits.
std::string unit_name(const std::string& state);
constexpr const char* remainder_name = "remainder";

Format compute_format(Compute compute);

// An array in the form in which the step uses it: in the order of the place's elements.
Operand operand_of(const TensorView& view, const Axes& order, const Extents& dense, Tensor& tensor);

// Makes no arrays; keeps the given arrays and their memory. Reads an array's fields once, when it is bound, and checks
// at each step that the caller's arrays have not changed since. The first step after a change finds arrays that share
// memory: it compares the arrays of the changed places with all others.
class Steps {
public:
    explicit Steps(RandomRounding rounding, bool takes_tensors = false)
        : takes_tensors_(takes_tensors), rounding_(rounding) {}

    // The caller holds the lock for whatever changes groups or places: a subclass of ndarray may run its own code
    // meanwhile.
    int add_group(const std::string& rule, const py::sequence& options);
    // Gives a group another rule or other options; none of its places may be bound.
    void set_group(int group, const std::string& rule, const py::sequence& options);
    // For each group the name of its rule, and the names of the options that are on.
    const py::tuple& rules_of_groups() const { return rules_of_groups_; }
    // The number of places with an average.
    std::size_t averages() const { return averages_; }
    std::size_t count() const { return bound_.size(); }
    void append(std::size_t count);
    void bind(std::size_t place, const Binding& binding);
    void unbind(std::size_t place);
    // Removes the groups and places from these numbers on. They may have been added half-way.
    void cut(std::size_t groups, std::size_t places);
    // Makes room for the sums of the places that get a gradient and have no sum yet.
    void make_accumulated();
    // Makes room for what rules of matrices keep, for the places that get a gradient and have no room yet.
    void make_kept();
    // For a step with the sums of several processes: the gradient of each place whose byte isn't 0 will be its
    // accumulated gradient, for which there is room now.
    void sum_gradients_of(const std::string& present);
    // Throws ValueError if arrays share memory. Every step calls it; later it would be too late to name the arrays.
    void arrange();

    // The gradients of the next call, by place, None for no gradient. When the call is over, they must be released, and
    // so must the holds on memory.
    std::vector<py::object>& gradients() { return gradients_; }
    void let_go() {
        pins_.release();
        gradients_.clear();
    }
    Hyperparameters& hyperparameters() { return hyperparameters_; }
    // Takes the numbers of a step, as Hyperparameters::take does; the same tuples as at the last step have been taken.
    void take_numbers(const py::sequence& numbers, const py::sequence& extras);
    // All three check everything before they change anything. The caller holds the lock.
    void step(double grad_scale);
    void step_accumulated(double grad_scale);
    void accumulate();
    // The same in parts, for several Steps that take a step as one. First what may run Python code, ...
    enum class Use { step, step_accumulated, accumulate };
    void make_arrays(Use use);
    // ... then all checks, ...
    void check(Use use);
    // ... also of gradients that reach memory of another one's arrays, which it calls `whose`; `prefix` is for errors.
    void keep_gradients_off(const Steps& other, const std::string& prefix, const std::string& whose) const;
    // Keeps all memory that the step uses, while it runs without the GIL.
    void pin();
    // Replaces what rules of matrices have kept, if there are any: between the parts of the step. Runs Python's code.
    void make_orthogonal();
    // Prepares the step; grad_norm is what it was until the step is counted.
    void prepare(const Extras& extras);
    void count_step();
    void count_skipped();
    void set_norm(py::object norm) { grad_norm_ = std::move(norm); }
    // Throws FloatingPointError for a gradient that is not finite.
    [[noreturn]] void refuse_not_finite(std::size_t place, const std::string& prefix = "") const;
    [[noreturn]] static void refuse_no_gradients();
    static bool is_long(std::int64_t work);  // so that it is worth releasing the GIL
    // Whether some rule is for matrices, for which Python's code runs in the middle of a step.
    bool has_matrices() const { return matrices_ > 0; }

    // Whether a state in this format goes by the places of elements.
    static bool goes_by_element(const StateKind& kind, Format format, RandomRounding rounding);
    void reset_remainders();

    StepLock& lock() { return lock_; }
    Stepper& stepper() { return stepper_; }
    const Stepper& stepper() const { return stepper_; }

    std::int64_t step_count() const { return step_count_; }
    std::int64_t skipped_steps() const { return skipped_steps_; }
    void set_counts(std::int64_t step_count, std::int64_t skipped_steps);
    const py::object& grad_norm() const { return grad_norm_; }

    // The Python objects of a place.
    struct Place {
        // An array as it was when it was bound, and as it must stay.
        struct Seen {
            PyObject* array;   // kept alive by the fields below
            py::object descr;  // null for a tensor
            char* data;
            Extents shape, strides;  // none of a scalar state, which has no axes
            Format format;
            std::size_t kind;
            bool came_read_only;
        };
        bool is_bound = false;
        std::string name;
        int group = 0;
        Extents shape;
        Axes order;
        Extents dense;  // strides, in elements, of an array without gaps in the step's order
        Extents logical_dense;
        py::object parameter = py::none();
        py::dict states;
        py::object average = py::none();
        py::object copy = py::none();
        py::object counter = py::none();
        py::object accumulated = py::none();
        py::object kept = py::none();    // with the shorter axis first, and no longer than a step in use
        std::vector<Seen> arrays;        // all of the above, the parameter first
        std::vector<py::object> memory;  // the owners of the arrays' memory

        void see(std::size_t kind, const py::object& array, const Look& look);
        static TensorView view_of(const Seen& seen) {
            const auto ndim = static_cast<int>(seen.strides.size());
            return {seen.data, ndim, seen.shape.data(), seen.strides.data(), seen.format, !seen.came_read_only};
        }
    };
    const Place& bound(std::size_t place) const { return bound_[place]; }
    // The first bound place, other than one, whose rule has joint scalar states; count() if there is none.
    std::size_t first_joint(std::size_t except = static_cast<std::size_t>(-1)) const;
    const Group& group_of(std::size_t place) const {
        return hyperparameters_.groups[static_cast<std::size_t>(bound_[place].group)];
    }
    // Puts the averages of rules that have one of their own (Variant's `shown`) in the places of the parameters.
    void show();
    // Throws unless the bound arrays are still as they were.
    void check_unchanged() const;
    // The places of which an array is no longer as it was when it was bound, so that the next step would throw.
    std::vector<std::size_t> changed_places() const;
    // The completed steps of a place, from its counter if it has one.
    std::int64_t steps_of(std::size_t place) const;
    void require_writeable() const;
    // Whether the memory of a place's parameter, or of its copy, is still that of the array, whatever shape it has now.
    bool has_its_memory(std::size_t place, Operand Operands::* operand) const;
    // Whether a view reaches memory of any array here.
    bool meets_memory(const TensorView& view) const { return !occupied_.is_free(byte_range(view)); }
    // Throws ValueError if an array here shares memory with an array of another one; `prefix` and `whose` as above.
    void keep_arrays_off(const Steps& other, const std::string& prefix, const std::string& whose) const;
    // Another number after each change of the arrays.
    std::int64_t arrangement() const { return arrangement_; }

    int traverse(visitproc visit, void* arg) const;

private:
    // An array that must stay where it was and as it was.
    struct Held {
        PyObject* array;  // kept alive by bound_, like the next
        PyObject* descr;  // null for a tensor
        char* data;
        int ndim;
        std::size_t extents;  // its shape and then its strides begin here in extents_
        std::size_t id;
        Format format;
        bool came_read_only;
    };
    // The layout of a place's last gradient. If the next gradient has the same layout, in memory that none of our
    // arrays uses, only its address needs to be noted. This makes a step over many small tensors quick.
    struct Known {
        bool is_known = false;
        PyObject* descr = nullptr;       // of an array; null for a tensor
        Format format{};                 // of a tensor
        std::size_t param = 0;           // index of the parameter in held_
        std::size_t strides = 0;         // from here on in extents_
        std::int64_t low = 0, high = 0;  // the bytes that it reaches, from its first element
        ByteRange gap{};                 // the free memory in which it lay
        bool accumulated = false;        // whether it was added to a sum of earlier micro-batches
    };
    // A number of the caller's that has the steps of a place.
    struct Counter {
        std::size_t place;
        char* data;
        Format format;

        double value() const;
        void set(std::int64_t steps) const;
    };
    // The numbers of the arrays of a place.
    static constexpr std::size_t parameter = 0, copy = 1, average = 2, accumulated_sum = 3, counter = 4,
                                 first_state = 5;
    static constexpr std::size_t first_scalar = first_state + max_states, first_unit = first_scalar + max_scalar_states,
                                 remainder = first_unit + max_states, kinds = remainder + 1;

    // steps_states.cpp: states and how they are stored
    // Whether elements are stepped in logical order, whatever the parameter's layout: codes and random numbers go by
    // their places.
    bool goes_by_element(const Binding& binding, const TensorView& view) const;
    static Format format_of_state(const StateKind& kind, const TensorView& view, Format compute,
                                  const std::string& who);
    Operand bind_array(Tensor& tensor, Place& bound, std::size_t kind, const py::object& array,
                       const std::string& who) const;
    void bind_states(Tensor& tensor, Place& bound, const Binding& binding) const;
    void bind_units(Operand& operand, Place& bound, const Binding& binding, std::size_t k, std::int64_t size) const;
    void bind_parameter(Tensor& tensor, Place& bound, const Binding& binding, const TensorView& view) const;
    static void require_known_states(const Place& bound, const Binding& binding);
    static void make_logical(Tensor& tensor, const Place& bound);
    void bind_scalar_states(Tensor& tensor, Place& bound, const Binding& binding, std::size_t place) const;
    void bind_counter(Place& bound, const Binding& binding) const;
    // Whether every step checks that the arrays of a kind are as they were: this holds for arrays that the caller can
    // change.
    bool is_checked(std::size_t kind) const {
        return kind == parameter || kind == copy || kind == counter || (takes_tensors_ && kind != accumulated_sum);
    }
    bool is_of_matrices(std::size_t place) const {
        return bound_[place].is_bound && variant_of(group_of(place)).of_matrices;
    }
    // Whether the data of a state are a file's map, which can only be read (Stepper::windows).
    bool lies_in_file(const char* data) const {
        return stepper_.windows() != nullptr && stepper_.windows()->files().find(data).file >= 0;
    }
    // Whether an array of a place belongs to all places whose rule has joint scalar states.
    bool is_joint(std::size_t place, std::size_t kind) const {
        return kind >= first_scalar && kind < first_unit && variant_of(group_of(place)).joint;
    }
    std::size_t id_of(std::size_t place, std::size_t kind) const {
        return (is_joint(place, kind) ? first_joint() : place) * kinds + kind;
    }
    void hold(std::size_t place, const Place::Seen& seen);
    void compare_with_others(std::size_t place, const Place::Seen& seen) const;
    // Throws for two arrays, by their names and numbers.
    [[noreturn]] static void refuse_shared(const std::string& who, std::size_t id, const std::string& other_name,
                                           std::size_t other);
    std::string name_of(std::size_t id) const;

    // steps_rooms.cpp: memory besides the bound arrays
    template <class Lacks, class Make>
    bool make_arrays_in_room(int number, Lacks lacks, Make make);

    // steps_checks.cpp: the checks of a step
    void check_unchanged(const Held& held) const;
    void check_tensor(const Held& held) const;
    bool same_layout(const Held& held, int ndim, const std::int64_t* shape, const std::int64_t* strides) const;
    void bind_gradient(std::size_t i, Use use);
    bool bind_known(std::size_t i);
    bool bind_known_tensor(std::size_t i);
    void bind_given(std::size_t i);
    void bind_accumulated(std::size_t i, bool given, Use use);
    void make_array(std::size_t i);
    const std::int64_t* shape_of(const Held& held) const { return extents_.data() + held.extents; }
    const std::int64_t* strides_of(const Held& held) const { return extents_.data() + held.extents + held.ndim; }

    // steps_hosts.cpp: the callers' numbers of steps
    std::int64_t checked(const Counter& from) const;
    void read_counters();
    void write_counters() const;

    void take(Use use, double grad_scale);
    void run_step(double grad_scale, bool release_gil);
    bool takes_tensors_;
    RandomRounding rounding_;
    std::vector<Place> bound_;  // by place
    Stepper stepper_;
    Hyperparameters hyperparameters_;
    py::tuple rules_of_groups_;
    py::object taken_numbers_ = py::none(), taken_extras_ = py::none();
    std::size_t averages_ = 0;
    std::size_t matrices_ = 0;               // places whose rule is for matrices
    py::object newton_schulz_ = py::none();  // makes what they keep orthogonal
    StepLock lock_;
    std::int64_t step_count_ = 0;
    std::int64_t skipped_steps_ = 0;
    py::object grad_norm_ = py::none();

    // Data of the bound arrays, side by side in memory; arrange makes them anew after a change.
    bool arranged_ = true;
    std::int64_t arrangement_ = 0;
    std::vector<std::size_t> changed_;  // places whose arrays have not yet been compared with the others
    std::vector<Held> held_;
    std::vector<py::object> weak_;  // NumPy refuses to resize an array that has a weak reference
    std::vector<Known> known_;      // by place
    std::vector<Counter> counters_;
    std::vector<std::int64_t> extents_;
    OccupiedMemory occupied_;

    std::vector<py::object> gradients_;
    Pins pins_;
};

}  // namespace instep
