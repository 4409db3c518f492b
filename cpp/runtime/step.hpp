// A step over all parameters of an optimizer, in plain C++. The caller has checked everything; after prepare nothing
// can fail.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"
#include "runtime/pace.hpp"
#include "runtime/storage.hpp"
#include "runtime/team.hpp"
#include "runtime/windows.hpp"

namespace instep {

// A parameter and its arrays, as they lie in memory; the fields that a step needs come first. The norm goes over a
// gradient in logical order, so that its bits don't depend on the layout of the parameter.
struct Tensor {
    Operands operands;  // parameter, states, average and copy are bound once, the gradient at each step
    Operand logical_grad, logical_accumulated;

    Operand accumulated;  // the sum of micro-batches; it is among the operands only if a step uses it
    Operand logical_order_of_accumulated;
    StridedLayout grad_layout, logical_grad_layout;
    // The parameter and its states in logical order, for a rule's sums; null if its variant has none.
    std::unique_ptr<Operands> logical;
    bool of_its_own = false;  // its scalars follow from scalar states or sums
    double* scalar_states[max_scalar_states] = {};
    double next_scalar_states[max_scalar_states] = {};    // after the step that is being prepared
    std::vector<std::unique_ptr<StridedLayout>> layouts;  // of those among the other arrays that have gaps
    std::int64_t rows = 0, columns = 0;                   // if its rule is for matrices
    double sum = 0;                                       // of the squares of what such a rule has kept
    std::int64_t size;
    std::int64_t whole = 0;  // the elements of the parameter of which this is a stretch; 0: of no larger one
    std::int64_t work;       // the bytes that a step over it moves, counted in the compute type
    Compute compute;
    int group;
    Arrangement arrangement;  // set by the Stepper
};

// Parameters that share a rule and hyperparameters.
struct Group {
    int family;
    unsigned options;
    double hyperparameters[max_hyperparameters];
    GradientTerms terms;
    double decoupled_l1 = 0;
    double decay_after = 0;  // the weight decay after the rule
};

// The work of a step besides its rules.
struct Extras {
    double clip_norm;  // NaN: none
    double grad_scale;
    double average_rate;  // 1 - decay
    bool guarded;         // change nothing if a gradient is not finite

    bool needs_norm() const { return guarded || clip_norm == clip_norm; }
};

class Stepper;

// Steppers that take a step as one, each prepared with the same Extras but for average_rate, and the most threads for
// each. They have one norm, over the gradients of all in this order, and one guard. A Stepper alone is the usual case.
struct Participant {
    Stepper* stepper;
    int most_threads;
};
class Exchange;
struct Together {
    const Participant* first;
    std::size_t count;
    Exchange* others = nullptr;  // null: no other process takes part

    const Participant* begin() const { return first; }
    const Participant* end() const { return first + count; }
};
// A tensor of one of the Steppers; -1 for none.
struct Found {
    std::size_t stepper;
    std::ptrdiff_t tensor;
};

// What a step asks of the other processes that take it, too. All have the same places, but each has stretches of its
// own of their parameters. All make the same calls in the same order; an error of a call ends the step, which has
// changed nothing yet.
class Exchange {
public:
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    Exchange(Exchange&&) = delete;
    Exchange& operator=(Exchange&&) = delete;

    // Puts the values of all processes in the place of those of this one: `width` for each chunk of each included
    // tensor, in the order of the Steppers, their tensors, and the chunks of the whole parameters.
    virtual void gather(const std::vector<bool>& included, std::size_t width, std::vector<double>& values) = 0;
    // The largest of all processes' values.
    virtual double largest(double value) = 0;
    // The first tensor of those that the processes have found.
    virtual Found first(Found found) = 0;

protected:
    Exchange() = default;
    ~Exchange() = default;
};

// Elements of a tensor, and their gradients from several processes, side by side in memory.
struct Contributions {
    std::size_t tensor;
    std::int64_t begin, count;  // whole chunks
    std::vector<std::pair<char*, Format>> gradients;
};

// A step consists of passes over the gradients, or over all arrays. A pass has the work of a thread on a run of
// segments, and the work of the last thread when all are done. All passes go through the same units, in one parallel
// region.
struct Pass {
    void (Stepper::*work)(std::size_t first, std::size_t last);
    void (Stepper::*finish)();  // on one thread while the others wait; may end the step; may be null
};

// Places 0 to count() - 1, each empty or with a tensor, and the step over the places that have a gradient. The order of
// summation is that of the places, so it makes no difference when a place was filled, or which other places are empty.
class Stepper {
public:
    std::size_t count() const { return tensors_.size(); }
    void append(std::size_t count);
    // Removes the places from this number on, which must be empty.
    void cut(std::size_t count);
    // The tensor must keep its size until it is removed.
    void bind(std::size_t place, std::unique_ptr<Tensor> tensor, std::int64_t steps);
    std::unique_ptr<Tensor> unbind(std::size_t place);
    bool is_bound(std::size_t i) const { return tensors_[i] != nullptr; }
    Tensor& tensor(std::size_t i) { return *tensors_[i]; }
    const Tensor& tensor(std::size_t i) const { return *tensors_[i]; }

    // Completed steps of a tensor.
    std::int64_t steps(std::size_t i) const { return turns_[i].steps; }
    void set_steps(std::size_t i, std::int64_t steps) { turns_[i].steps = steps; }
    // Whether the tensor has accumulated gradients that the next step takes.
    bool pending(std::size_t i) const { return turns_[i].pending; }
    void set_pending(std::size_t i, bool pending) {
        turns_[i].pending = pending;
        ++pending_changes_;
    }
    bool present(std::size_t i) const { return turns_[i].present; }
    bool any_pending() const;
    // This number changes whenever other tensors may have accumulated gradients.
    std::int64_t pending_changes() const { return pending_changes_; }
    void clear_pending();
    // Lays out chunks and units anew after places have been filled or emptied, if this has not been done yet.
    void arrange();
    // Sets whether the tensor has a gradient in the step that is being prepared.
    void set_present(std::size_t i, bool present) {
        Turn& turn = turns_[i];
        work_ += (static_cast<int>(present) - static_cast<int>(turn.present)) * turn.work;
        turn.present = present;
    }

    // States that lie in files are swept in windows (step_windows.cpp), and only read where they are mapped.
    void set_windows(std::unique_ptr<Windows> windows) { windows_ = std::move(windows); }
    Windows* windows() { return windows_.get(); }
    const Windows* windows() const { return windows_.get(); }

    // The work of a step: the bytes that it would move if every array were stored in its compute type.
    std::int64_t most_work() const { return most_work_; }  // with all gradients present
    std::int64_t present_work() const { return work_; }    // with the gradients that are present
    // The seed of random numbers.
    void set_seed(std::uint64_t seed) { seed_ = seed; }
    std::uint64_t seed() const { return seed_; }

    // The team of all steps from now on; and the most threads of it that are worth waking for the present gradients.
    void set_team(const team::Team& team);
    int most_threads() const { return team_->threads_for(work_); }

    // Prepares everything that a step needs, except its threads. It may allocate memory, and changes no parameter. The
    // groups must stay until the step has been taken.
    void prepare(const Level& level, const std::vector<Group>& groups, const Extras& extras);
    // Takes the prepared step, on at most so many threads. If the step is guarded and a gradient is not finite, it
    // changes nothing and returns the first such tensor, otherwise -1. It may run without the GIL. count_step, which
    // follows, needs the GIL, because other threads read the counts when they hold it.
    std::ptrdiff_t take(int most_threads);
    // The same in two parts: for rules of matrices, of which something must be replaced that they have kept; and for
    // several Steppers as one. First the norm and the rules' sums of all. It returns the first tensor that ends the
    // step, or none, and needs room for the sums of all, which may allocate memory.
    bool has_matrices() const { return has_matrices_; }
    static void make_room(Together all);
    static Found take_up_to_sweep(Together all);
    // Then the sweep of each.
    void take_sweep(int most_threads);
    // Those with states in files come first, since they alone can fail.
    static void take_sweeps(Together all);
    // The same in parts, for callers that have sums of other processes to add, if extras.needs_norm(): the sums of
    // squares by segment, which the caller may change, ...
    std::vector<double>& measure(int threads);
    // ... the conclusion from all sums, in the order of the places, and whether the sweep may come next, ...
    static bool conclude(Together all);
    // ... if not, a closer look: the first tensor with a gradient that is not finite if the step is guarded, otherwise
    // none and a norm that can be used, ...
    static Found look_closer(Together all);
    // ... and the sweep.
    void apply(int threads);
    // Counts the step that was taken, for each parameter; the accumulated gradients are used up.
    void count_step();
    // The norm of the gradients of the last step, if it was needed.
    double norm() const { return norm_; }
    // The number of look-ups in preparing all steps so far, for tests: it grows only with the number of tensors.
    std::int64_t looked_up() const { return looked_up_; }

    // Puts the sums of gradients of several processes, added in their order, in the place of accumulated gradients, and
    // notes the squares if the prepared step needs a norm. Called until all elements of all tensors with a gradient
    // have their sums; these tensors' gradients are their accumulated gradients.
    void sum_up(const std::vector<Contributions>& contributions, int most_threads);
    // The numbers that prepare has computed, and those of another process in their place.
    void get_prepared(std::vector<unsigned char>& bytes) const;
    void set_prepared(const unsigned char* bytes);

    // Adds the gradients to the accumulated gradients of each tensor.
    void accumulate(const Level& level, int most_threads);
    // Called with the GIL again: notes that each of these tensors has accumulated gradients now.
    void count_accumulation();
    // Puts what averaged() shows by the tensor's rule, if this isn't the average, in the place of its parameter and
    // copy.
    void show(const Level& level, std::size_t i, const Group& group);
    // Rounds one operand of each tensor, from a place on, into another: the parameters into the averages or copies, or
    // the averages into the parameters or copies.
    void copy_all(const Level& level, Operand Operands::* from, Operand Operands::* into, std::size_t first = 0);

private:
    struct Segment {  // at most one chunk of one tensor
        std::size_t tensor;
        std::int64_t begin, count;
    };
    // The fields of every tensor that every step reads, side by side in memory.
    struct Turn {
        std::int64_t steps = 0;
        std::int64_t work = 0;
        std::uint32_t recipe = 0;  // index in recipes_
        std::uint32_t kind = 0;    // tensors of a kind share group, compute type and arrangement
        bool present = false;
        bool pending = false;
        bool of_its_own = false;  // no other tensor shares its recipe
    };
    struct Prepared {
        std::uint32_t kind;
        std::int64_t t;
        void (*sweep)(const Operands&, const Recipe&, std::int64_t begin, std::int64_t count);
        Recipe recipe;
    };
    struct Progress {  // of a pass
        std::atomic<std::size_t> next{0};
        std::atomic<std::size_t> left{0};
    };
    struct KindAndStep {
        std::uint32_t kind;
        std::int64_t t;
        bool operator==(const KindAndStep& other) const { return kind == other.kind && t == other.t; }
    };
    struct Hash {
        std::size_t operator()(const KindAndStep& key) const {
            return static_cast<std::size_t>(key.t) * 0x9E3779B97F4A7C15 + key.kind;
        }
    };
    static constexpr std::size_t most_passes = 4;
    static constexpr std::uint32_t no_kind = UINT32_MAX;  // of a recipe that no other tensor may take

    std::uint32_t find_recipe(std::uint32_t kind, std::int64_t t);
    std::uint32_t make_recipe(std::size_t i, std::int64_t t);
    template <class Action>
    void for_each_stretch(std::size_t first, std::size_t last, Action action);
    void set_scale(double scale);
    void set_scalar_states();
    const Variant& variant_of(std::size_t i) const;
    bool takes_part(std::size_t i) const { return recipes_[turns_[i].recipe].recipe.sum_count > 0; }
    void complete(std::size_t i, const double* sums);
    static std::int64_t whole_of(const Tensor& tensor) { return tensor.whole > 0 ? tensor.whole : tensor.size; }
    void run(int threads, std::initializer_list<Pass> passes);
    void run_sums(int threads);
    void run_terms(int threads);
    void run_sweep(int threads);
    void work_on_passes(bool idle);
    // The passes.
    void add_squares(std::size_t first, std::size_t last);
    void add_scaled_squares(std::size_t first, std::size_t last);
    void find_largest(std::size_t first, std::size_t last);
    void add_rule_terms(std::size_t first, std::size_t last);
    void complete_all();
    void sweep(std::size_t first, std::size_t last);
    void add_to_accumulated(std::size_t first, std::size_t last);
    void conclude_here();
    void gather_rule_sums();
    void complete_from(const std::vector<double>& of_chunks);
    void complete_jointly(const std::vector<double>& of_chunks);

    // The passes over states that lie in files.
    void lay_out_windows();
    void go_through_windows(int threads, void (Stepper::*work)(std::size_t, std::size_t), bool changes);
    void run_sweep_in_windows(int threads);
    void sweep_in_window(std::size_t first, std::size_t last);
    void copy_into_file(const Level& level, std::size_t segment, Operand Operands::* from, const Operand& target);

    // The norm of one or several Steppers.
    static Found measure(Together all);
    static double total(Together all);
    static double total_of_processes(Together all);
    static void measure_scaled(Together all);
    std::size_t gather_sums(std::vector<double>& into, std::size_t count) const;
    void conclude_from(double sum, bool wide);
    void conclude_from_scaled(double sum, int exponent);
    double largest(int threads);
    std::ptrdiff_t find_not_finite() const;

    static constexpr Pass no_pass{nullptr, nullptr};
    static const Pass norm_pass, sums_pass, sweep_pass;

    std::vector<std::unique_ptr<Tensor>> tensors_;  // by place
    std::vector<Turn> turns_;
    std::int64_t most_work_ = 0;
    std::int64_t work_ = 0;
    bool arranged_ = true;
    std::vector<Segment> segments_;
    std::vector<std::size_t> units_{0};  // the first segment of each run that a thread takes at a time, and the end
    std::size_t first_unit_ = 0, end_unit_ = 0;  // of the units that passes go through: all, or those of a window
    std::unique_ptr<Windows> windows_;           // null if all states lie in memory

    // Data of the present step.
    const Level* level_ = nullptr;
    std::vector<Prepared> recipes_;
    std::unordered_map<KindAndStep, std::uint32_t, Hash> recipes_by_step_;  // used if there are many
    const team::Team* team_ = &team::own();
    Pace step_pace_, accumulate_pace_;
    bool parallel_ = false;
    std::array<Pass, most_passes> passes_{};
    std::array<Progress, most_passes> progress_;
    std::size_t pass_count_ = 0;
    Extras extras_{};
    bool wide_ = false;  // some gradient is in float64, whose squares may overflow
    double norm_ = 0;
    bool stopped_ = false;  // between two passes
    bool needs_scaling_ = false;
    int exponent_ = 0;          // the gradients are scaled by 2^exponent while their squares are added up
    std::vector<double> sums_;  // by segment
    bool has_rule_sums_ = false;
    bool is_measured_ = false;         // sum_up has noted the squares
    bool has_numbers_ = false;         // some tensor has scalar states
    bool has_matrices_ = false;        // some tensor's rule is for matrices
    std::vector<double> rule_sums_;    // by segment, max_sums each
    std::vector<double> sums_of_all_;  // the same without those of tensors that take no part, and of all processes
    const std::vector<Group>* groups_ = nullptr;
    std::uint64_t seed_ = 0;
    std::int64_t looked_up_ = 0;
    std::int64_t pending_changes_ = 0;
};

}  // namespace instep
