// Places that are bound to arrays, and steps over those that are given a gradient.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "python/arrays.hpp"
#include "python/hyperparameters.hpp"
#include "python/room.hpp"
#include "python/step_lock.hpp"
#include "runtime/overlap.hpp"
#include "runtime/step.hpp"

namespace instep {

// What a place is bound to. States, average and copy have the parameter's shape; those that the rule has no use for are
// left out.
struct Binding {
    std::string name;
    int group = 0;
    py::object parameter = py::none();
    py::object states = py::dict();  // name -> array
    py::object average = py::none();
    py::object copy = py::none();
    std::int64_t steps = 0;
    ReadOnly read_only = ReadOnly::refused;  // arrays of the caller's may become writeable later
};

// Makes no arrays, keeps the ones it is given and their memory, looks at an array once, when it is bound, and checks at
// each step that those of the caller's are still what they were then. Which of them share memory is found in the first
// step after a change: the arrays of places that have changed are compared with all others.
class Steps {
public:
    explicit Steps(bool takes_tensors = false) : takes_tensors_(takes_tensors) {}

    int add_group(const std::string& rule, const py::sequence& options);
    // Another variant of the same or another rule, for a group none of whose places is bound.
    void set_group(int group, const std::string& rule, const py::sequence& options);
    // For each group the name of its rule, and those of the options that are on.
    const py::tuple& rules_of_groups() const { return rules_of_groups_; }
    // How many places have an average.
    std::size_t averages() const { return averages_; }
    std::size_t count() const { return bound_.size(); }
    void append(std::size_t count);
    void bind(std::size_t place, const Binding& binding);
    void unbind(std::size_t place);
    // Room for the sums of those places that are given a gradient and have none yet.
    void make_accumulated();
    // Throws ValueError where arrays share memory. Called by every step; later it would be too late to say which.
    void arrange();

    // The gradients of the next call, by place, None for no gradient; to be let go when the call is over, as what it
    // has done to keep memory where it is.
    std::vector<py::object>& gradients() { return gradients_; }
    void let_go() {
        pins_.release();
        gradients_.clear();
    }
    Hyperparameters& hyperparameters() { return hyperparameters_; }
    // All three: everything is checked, and then done. The lock is held by the caller.
    void step(double grad_scale);
    void step_accumulated(double grad_scale);
    void accumulate();

    StepLock& lock() { return lock_; }
    Stepper& stepper() { return stepper_; }
    const Stepper& stepper() const { return stepper_; }

    std::int64_t step_count() const { return step_count_; }
    std::int64_t skipped_steps() const { return skipped_steps_; }
    void set_counts(std::int64_t step_count, std::int64_t skipped_steps);
    const py::object& grad_norm() const { return grad_norm_; }

    // What Python holds of a place.
    struct Place {
        // An array as it was when it was bound, and must stay.
        struct Seen {
            PyObject* array;   // kept alive by the fields below
            py::object descr;  // null of a tensor
            char* data;
            Extents strides;
            Format format;
            std::size_t kind;
            bool came_read_only;
        };
        bool is_bound = false;
        std::string name;
        int group = 0;
        Extents shape;
        Axes order;
        Extents dense;  // strides, in elements, of a gapless array in the step's order
        Extents logical_dense;
        py::object parameter = py::none();
        py::dict states;
        py::object average = py::none();
        py::object copy = py::none();
        py::object accumulated = py::none();
        std::vector<Seen> arrays;        // all of the above, the parameter first
        std::vector<py::object> memory;  // what the arrays' memory lives by

        void see(std::size_t kind, const py::object& array, const Look& look);
        TensorView view_of(const Seen& seen) const {
            const auto ndim = static_cast<int>(shape.size());
            return {seen.data, ndim, shape.data(), seen.strides.data(), seen.format, !seen.came_read_only};
        }
    };
    const Place& bound(std::size_t place) const { return bound_[place]; }
    const Group& group_of(std::size_t place) const {
        return hyperparameters_.groups[static_cast<std::size_t>(bound_[place].group)];
    }
    // Throws unless what was bound is still what it was.
    void check_unchanged() const;
    void require_writeable() const;
    // Whether the memory of a place's parameter, or of its copy, is still the array's, whatever has become of its
    // shape.
    bool has_its_memory(std::size_t place, Operand Operands::* operand) const;
    // Whether a view meets memory of any array here.
    bool meets_memory(const TensorView& view) const { return !occupied_.is_free(byte_range(view)); }

    int traverse(visitproc visit, void* arg) const;

private:
    // An array that must stay where and what it was.
    struct Held {
        PyObject* array;  // kept alive by bound_, as the next is
        PyObject* descr;  // null of a tensor
        char* data;
        int ndim;
        std::size_t extents;  // its shape and then its strides, from here on in extents_
        std::size_t id;
        Format format;
        bool came_read_only;
    };
    // How the last gradient of a place lay. For one that lies like it, where no array of ours is, the address is all
    // that has to be taken down: that is what makes a step over many small tensors quick.
    struct Known {
        PyObject* descr = nullptr;       // null: nothing is known
        std::size_t param = 0;           // index of the parameter among held_
        std::size_t strides = 0;         // from here on in extents_
        std::int64_t low = 0, high = 0;  // bytes that it reaches, from its first element
        ByteRange gap{};                 // free memory that it lay in
        bool accumulated = false;        // whether it was added to earlier micro-batches'
    };
    enum class Use { step, step_accumulated, accumulate };
    // Arrays by number: which of a place's it is.
    static constexpr std::size_t parameter = 0, copy = 1, average = 2, accumulated_sum = 3, first_state = 4;
    static constexpr std::size_t kinds = first_state + max_states;

    // steps.cpp: groups and places
    void replace_groups(std::vector<Group> groups);
    void bind_states(Tensor& tensor, Place& bound, const Binding& binding) const;
    // Whether every step checks that arrays of a kind are what they were: those that the caller may do something to.
    bool is_checked(std::size_t kind) const {
        return kind == parameter || kind == copy || (takes_tensors_ && kind != accumulated_sum);
    }
    void hold(std::size_t place, const Place::Seen& seen);
    void compare_with_others(std::size_t place, const Place::Seen& seen) const;
    std::string name_of(std::size_t id) const;

    // steps_checks.cpp: the checks of a step
    void check_unchanged(const Held& held) const;
    void check_tensor(const Held& held) const;
    bool same_layout(const Held& held, int ndim, const std::int64_t* shape, const std::int64_t* strides) const;
    void check(Use use);
    void bind_gradient(std::size_t i, Use use);
    bool bind_known(std::size_t i);
    void bind_given(std::size_t i);
    void bind_accumulated(std::size_t i, bool given, Use use);
    static void take_scalar(py::object& gradient);
    const std::int64_t* shape_of(const Held& held) const { return extents_.data() + held.extents; }
    const std::int64_t* strides_of(const Held& held) const { return extents_.data() + held.extents + held.ndim; }

    void take(Use use, double grad_scale);
    void run_step(double grad_scale, bool release_gil);

    bool takes_tensors_;
    std::vector<Place> bound_;  // by place
    Stepper stepper_;
    Hyperparameters hyperparameters_;
    py::tuple rules_of_groups_;
    std::size_t averages_ = 0;
    StepLock lock_;
    std::int64_t step_count_ = 0;
    std::int64_t skipped_steps_ = 0;
    py::object grad_norm_ = py::none();

    // Of what is bound, side by side in memory; made anew by arrange after a change.
    bool arranged_ = true;
    std::vector<std::size_t> changed_;  // places whose arrays have not been compared with the others
    std::vector<Held> held_;
    std::vector<py::object> weak_;  // NumPy refuses to resize an array that has a weak reference
    std::vector<Known> known_;      // by place
    std::vector<std::int64_t> extents_;
    OccupiedMemory occupied_;

    std::vector<py::object> gradients_;
    Pins pins_;
};

}  // namespace instep
