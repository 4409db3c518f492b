// An optimizer in the core: its places, the containers of its parameters and gradients, its averages, and the
// hyperparameters that its steps have seen.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/averages.hpp"
#include "python/containers.hpp"
#include "python/steps.hpp"

namespace instep {

class Plan {
public:
    // For `current` see CurrentNumbers.
    // `storage` is None, or makes the files in which states and averages lie (state_storage.hpp).
    struct Stored {
        RandomRounding rounding;
        std::uint64_t seed;
        int master_bits;             // of parameters in bfloat16: 24 or 32; 0 for those of the format alone
        std::int64_t min_8bit_size;  // parameters with fewer elements have no state in 8 bits
    };
    Plan(bool averaged, py::object current, py::object storage, const Stored& stored);

    // Adds groups: one (rule, options, structure, names, arrays, copies, state_dtypes) for each; see _core.pyi. If the
    // arrays are stretches of parameters, an eighth item has for each (shape of the whole, place of the first element).
    // Their states are zero, their averages are the parameters. Read-only parameters are refused here or, if they are
    // taken, by each step until they are writeable; averages and copies are then left as they are. `grouped` says
    // whether gradients come by groups from now on. If everything is accepted, `now` replaces the present
    // hyperparameters, and the optimizer's attribute `_held` becomes `held`, all in this one call; otherwise nothing
    // changes. Returns false if the hyperparameters are others than `before`: another thread has changed them
    // meanwhile.
    bool add(const py::list& groups, bool grouped, bool take_read_only, const py::object& before, const py::object& now,
             const py::object& optimizer, const py::object& held);

    // A step asks the optimizer for its numbers if they may have changed: see CurrentNumbers.
    void step(py::handle gradients, py::handle optimizer, double grad_scale);
    // A step with the accumulated gradients alone.
    void step_accumulated(py::handle optimizer, double grad_scale);
    void accumulate(py::handle gradients);
    // Checks gradients, and all arrays, as a step does, and returns the gradients by place: arrays and None. None alone
    // stands for no gradient at all.
    py::list checked(py::handle gradients);
    void discard_accumulated();
    // The remainders of all parameters become 0.
    void reset_remainders();
    std::uint64_t seed() const { return steps_.stepper().seed(); }
    // Parts of these calls, for a step that several take as one. The caller holds the lock.
    Steps& places() { return steps_; }
    void settle(py::handle optimizer);
    void collect(py::handle gradients) { collector_.collect(gradients, steps_.gradients()); }

    std::int64_t step_count() const { return steps_.step_count(); }
    std::int64_t skipped_steps() const { return steps_.skipped_steps(); }
    py::object grad_norm() const { return steps_.grad_norm(); }
    std::vector<std::int64_t> steps() const;
    py::dict states() const;
    py::dict averages() const;
    py::dict accumulated() const;
    std::int64_t pending_changes() const { return steps_.stepper().pending_changes(); }
    std::int64_t looked_up() const { return steps_.stepper().looked_up(); }

    // Makes steps on other threads wait, while arrays are read or written.
    void acquire();
    void release();
    // The same for those who only read. They are let in also where a call on this thread has the lock and has changed
    // nothing yet, or only reads itself: in a schedule or a signal handler. Returns whether there is such a call;
    // then the lock is not theirs to release.
    bool acquire_to_read();
    void release_read();

    // Called between acquire and release. Sets other counts and arrays: for each parameter (steps, states by name,
    // average, accumulated gradient, weights), of which the last three may be None. Before the first array is written,
    // everything is checked, and arrays that lie in memory of the optimizer itself are copied. `now`, unless it is
    // None, replaces the present one. In a new optimizer, the arrays of copy_to have come with the parameters, and stay
    // as they are.
    void restore(std::int64_t step_count, std::int64_t skipped_steps, const py::sequence& parameters,
                 const py::object& now, bool is_new, const py::object& seed);
    // The same for several Plans as one.
    struct Restored {
        Plan* plan;
        std::int64_t step_count, skipped_steps;
        py::sequence parameters;
        py::object now, seed;  // None: as they are
    };
    static void restore_all(const std::vector<Restored>& restored, bool is_new);
    // Rounds the parameters into their copies.
    void refresh_copies();

    // Put the averages in place of the parameters, and the weights back; meanwhile steps are refused.
    void show_averages(const void* block);
    // Hides the averages only if this block shows them; null stands for any block. If this thread has the lock itself,
    // as when the garbage collector ends a block in the middle of a call, the averages are hidden when the lock is
    // released. The same holds if another thread has the lock and this call is not to wait for it.
    void hide_averages(const void* block, bool wait = true);
    bool shows_averages() const { return averages_.shown(); }
    // Throws RuntimeError, which names what is refused, if the parameters' arrays hold the averages.
    void refuse_averages(const char* what) const;

    // Of states that lie in files: throws RuntimeError if half a step is there; removes them, if the optimizer could
    // not be made.
    void require_whole() const;
    void remove_files();

    // For Python's garbage collector: visits every array that is held. An array of a subclass can have attributes that
    // lead back to the optimizer. Every such cycle goes through these attributes, and the collector clears them, so a
    // Plan needs no clearing of its own, and nobody sees a half empty Plan.
    int traverse(visitproc visit, void* arg) const;

private:
    // Holds the lock for a scope. At its end, gradients are released, and averages are hidden that could not be hidden
    // before.
    class Hold {
    public:
        explicit Hold(Plan& plan) : plan_(plan), guard_(plan.steps_.lock()) {}
        ~Hold() {
            plan_.steps_.let_go();
            plan_.hide_late();
        }
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        Hold(Hold&&) = delete;
        Hold& operator=(Hold&&) = delete;

    private:
        Plan& plan_;
        StepLock::Guard guard_;
    };

    class Load;
    struct Like;
    struct ArrayLike {
        Extents shape;
        Axes order;
        Format format;

        std::int64_t bytes() const {
            std::int64_t bytes = item_size(format);
            for (const std::int64_t length : shape) bytes *= length;
            return bytes;
        }
    };

    // plan_arrays.cpp
    Like like(const Binding& binding, const Variant& variant, const py::object& state_dtypes) const;
    std::vector<py::object> make_arrays(int place, const std::string& name,
                                        const std::vector<std::optional<ArrayLike>>& likes);
    void bind_all(const std::vector<Binding>& bindings, std::size_t first_group,
                  const std::vector<py::object>& state_dtypes);
    void make_states(int k, const std::vector<Like>& parameters, std::vector<Binding>& bindings);
    void make_scalar_states(std::vector<Binding>& bindings);
    void hide_late() noexcept;

    Steps steps_;
    Averages averages_{steps_};
    GradientCollector collector_;
    CurrentNumbers numbers_;
    py::object storage_;
    Stored stored_;
    bool averaged_;
    bool hide_later_ = false;
    std::unique_ptr<Hold> held_;                   // between acquire and release
    std::optional<StepLock::Readable> lets_read_;  // of acquire_to_read
};

}  // namespace instep
