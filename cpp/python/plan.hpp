// An optimizer's parameters and states, bound once, and the step over them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "python/buffers.hpp"
#include "python/containers.hpp"
#include "python/step_lock.hpp"
#include "runtime/step.hpp"

namespace instep {

class Plan {
public:
    // groups: one (rule, options, kind, keys, names, arrays, copies) each; see _core.pyi.
    Plan(const py::list& groups, bool grouped, const py::object& state_dtype, bool averaged);

    // evaluate, where given, is called with the completed steps and returns the hyperparameters from now on: for each
    // group a sequence of its rule's and then clip_value, L2 factor, L1 factor and maximize; and a sequence of
    // clip_norm (NaN: none), decay of the averages, and what to do about gradients that are not finite.
    void step(py::handle gradients, py::handle evaluate, double grad_scale);
    // A step with the accumulated gradients alone.
    void step_accumulated(py::handle evaluate, double grad_scale);
    void accumulate(py::handle gradients);
    void discard_accumulated();

    std::int64_t step_count() const { return step_count_; }
    std::int64_t skipped_steps() const { return skipped_steps_; }
    py::object grad_norm() const { return grad_norm_; }
    std::vector<std::int64_t> steps() const;
    py::dict states() const;
    py::dict averages() const;
    py::dict accumulated() const;

    // Keeps steps on other threads waiting; for reading or writing arrays between.
    void acquire();
    void release();

    // Called between acquire and release, everything checked. Goes on from other counts and arrays; for each parameter
    // (steps, states by name, average, accumulated gradient, weights), the last three None where there is none.
    void restore(std::int64_t step_count, std::int64_t skipped_steps, const py::list& parameters);

    // Puts the averages in the parameters' place, and the weights back; meanwhile steps are refused. Only the block
    // that shows the averages can hide them.
    void show_averages(const py::object& block);
    void hide_averages(const py::object& block);
    bool shows_averages() const { return !block_.is_none(); }

    // For Python's garbage collector: visits every array that is held. An array of a subclass can have attributes, and
    // so lead back to the optimizer. Any such cycle goes through these attributes, which the collector clears, so that
    // a Plan needs no clearing of its own and is never seen half empty.
    int traverse(visitproc visit, void* arg) const;

private:
    // An array of the caller's that must stay where and what it was.
    struct Held {
        PyObject* array;  // kept alive by named_
        PyObject* descr;  // kept alive by named_
        char* data;
        int ndim;
        std::size_t extents;  // its shape and then its strides, from here on in extents_
    };
    struct Named {
        std::string who;  // "parameter 'w'"
        py::array array;
        py::dtype dtype;  // that it had
    };
    struct Bound {  // what Python holds of a tensor
        std::string name;
        Extents shape;
        Axes order;
        Extents dense;  // strides, in elements, of a gapless array in the step's order
        Extents logical_dense;
        py::dict states;
        py::object average = py::none();
        py::object accumulated = py::none();
    };
    // How the last gradient of a parameter lay. For one that lies like it, where no array of the optimizer is, the
    // address is all that has to be taken down: that is what makes a step over many small tensors quick.
    struct Known {
        PyObject* descr = nullptr;       // null: nothing is known
        std::size_t param;               // index of the parameter among held_
        std::size_t strides;             // from here on in extents_
        std::int64_t low = 0, high = 0;  // bytes that it reaches, from its first element
        OwnedMemory::Gap gap{};          // free memory that it lay in
        bool accumulated = false;        // whether it was added to earlier micro-batches'
    };
    enum class NotFinite { propagate, skip, raise };
    struct Hyperparameters {
        std::vector<Group> groups;
        double clip_norm;
        double average_rate;
        NotFinite not_finite;
    };
    enum class Use { step, step_accumulated, accumulate };

    // plan.cpp: binding
    void bind(const std::string& name, const py::object& parameter, const py::object& copy, int group,
              const py::object& state_dtype, bool averaged);
    void make_states(const py::object& state_dtype, bool averaged);
    void hold(const std::string& who, const py::object& array);
    const std::int64_t* shape_of(const Held& held) const { return extents_.data() + held.extents; }
    const std::int64_t* strides_of(const Held& held) const { return extents_.data() + held.extents + held.ndim; }
    // Whether the memory that was given is still the array's, and the array on it as it was then: writeable, of that
    // shape and dtype, whatever has become of the object since.
    bool has_its_memory(std::size_t k) const;
    py::array as_given(std::size_t k) const;
    const py::array& param(std::size_t i) const { return named_[known_[i].param].array; }
    const Variant& variant_of(const Tensor& tensor) const;
    template <class Wanted, class Keep>
    void make_arrays(int place, const py::object& dtype, Wanted wanted, Keep keep);
    void make_accumulated(std::size_t i);
    void own_all();
    void check_overlaps();
    Hyperparameters parse(const py::sequence& settings, const py::sequence& extras) const;

    // plan_step.cpp: stepping; plan_state.cpp has what concerns the arrays as a whole
    void take(Use use, py::handle gradients, py::handle evaluate, double grad_scale);
    void run_step(double grad_scale, bool release_gil);
    void check_arrays(Use use);
    void check_unchanged(const Held& held, std::size_t index) const;
    void bind_gradient(std::size_t i, Use use);
    bool bind_known(std::size_t i);
    void bind_given(std::size_t i);
    void bind_accumulated(std::size_t i, bool given, Use use);
    void note_known(std::size_t i, const ArrayFields& fields, const ByteRange& range);
    void take_scalar(py::object& gradient);
    bool confirm_separate(std::size_t i, const char* low, const char* high);

    std::vector<Held> held_;
    std::vector<Named> named_;  // of each in held_
    std::vector<Known> known_;  // by parameter
    std::vector<std::int64_t> extents_;
    std::vector<py::object> weak_;  // NumPy refuses to resize an array that has a weak reference
    std::vector<Bound> bound_;
    std::unique_ptr<Stepper> stepper_;
    std::vector<std::unique_ptr<Tensor>> unplanned_;  // until the stepper takes them
    std::unique_ptr<GradientCollector> collector_;
    OwnedMemory owned_;

    Hyperparameters hyperparameters_;
    std::vector<py::object> collected_;
    std::vector<py::object> pinned_;  // weak references to them, while other threads could resize them
    std::vector<const OwnedMemory::Owner*> neighbours_;
    struct Confirmed {  // these two were found not to share an element
        PyObject* gradient;
        const char* data;
        const OwnedMemory::Owner* owner;
    };
    std::vector<Confirmed> confirmed_;
    bool python_ran_ = false;  // during the checks, so what was checked may have been changed
    std::int64_t step_count_ = 0;
    std::int64_t skipped_steps_ = 0;
    py::object grad_norm_ = py::none();
    py::object block_ = py::none();    // that shows the averages
    std::vector<py::object> weights_;  // meanwhile
    StepLock lock_;
    std::unique_ptr<StepLock::Guard> acquired_;
};

}  // namespace instep
