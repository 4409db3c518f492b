#include "case.hpp"

#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "array.hpp"
#include "hostile_environment.hpp"
#include "runtime/float_environment.hpp"
#include "runtime/step.hpp"
#include "stored.hpp"

namespace instep::digests {

namespace {

// Roles of arrays: what tests/helpers/digests.py calls PARAMETERS and GRADIENTS, and others that only choose a layout.
constexpr std::uint64_t parameters = 0;
constexpr std::uint64_t gradients = 1;
constexpr std::uint64_t copies = 100;

std::uint64_t seed(std::uint64_t role, std::size_t i) { return fold(fold(0, role), i); }

template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <class T>
T number_of(std::uint64_t bits) {
    const auto same_size = static_cast<Bits<T>>(bits);
    T number{};
    std::memcpy(&number, &same_size, sizeof number);
    return number;
}

template <class T>
std::uint64_t bits_of(T number) {
    Bits<T> bits = 0;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

struct Parameter {
    Axes order;
    std::unique_ptr<Array> param, remainder, average, copy, accumulated, grad;
    std::vector<std::unique_ptr<Array>> states;  // each followed by its units if it has codes
    std::vector<std::shared_ptr<double>> scalar_states;
    std::unique_ptr<Array> kept;  // with the shorter axis first
};

StridedLayout& layout_of(Tensor& tensor) {
    tensor.layouts.push_back(std::make_unique<StridedLayout>());
    return *tensor.layouts.back();
}

class Run {
public:
    Run(const Case& settings, const Rule& rule, const Table& table, const Manner& manner)
        : settings_(settings),
          rule_(rule),
          table_(table),
          manner_(manner),
          compute_(settings.param == Format::float64 ? Compute::float64 : Compute::float32) {
        std::vector<std::unique_ptr<Tensor>> tensors;
        const bool of_matrices = rule.family.variants[rule.options].of_matrices;
        for (const Extents& shape : table.shapes.at(of_matrices ? "matrices" : settings.shapes))
            tensors.push_back(bind(shape));
        stepper_ = std::make_unique<Stepper>();
        stepper_->set_seed(settings.seed);
        stepper_->append(tensors.size());
        for (std::size_t i = 0; i < tensors.size(); ++i) stepper_->bind(i, std::move(tensors[i]), settings.late);
        for (Operand Operands::* follower : {&Operands::average, &Operands::copy})
            stepper_->copy_all(manner.level, &Operands::param, follower);
    }

    std::uint64_t digest() {
        std::size_t taken = 0;
        for (std::size_t step = 0; step < table_.rates.size(); ++step) {
            const HostileEnvironment environment(step % 2 == 1);
            for (int batch = 0; batch < settings_.accumulate; ++batch) {
                fill_gradients(step, batch);
                stepper_->accumulate(manner_.level, manner_.threads);
                stepper_->count_accumulation();
            }
            fill_gradients(step, settings_.accumulate);
            if (take(table_.rates[taken])) {
                ++taken;
                if (!std::isnan(settings_.clip_norm)) digest_norm();
            }
            if (!environment.intact()) throw std::runtime_error("the floating-point environment was changed");
        }
        for (const Parameter& parameter : parameters_) {
            digest(*parameter.param);
            for (const auto& state : parameter.states) digest(*state);
            for (const auto& state : parameter.scalar_states) digest_number(*state);
            if (parameter.remainder) digest(*parameter.remainder);
            if (parameter.average) digest(*parameter.average);
            if (parameter.copy) digest(*parameter.copy);
        }
        return digest_;
    }

private:
    // An array of the caller's, which may lie anywhere and anyhow.
    std::unique_ptr<Array> make(std::uint64_t role, std::size_t i, const Extents& shape, Format format) const {
        const auto turn = manner_.dense ? 0 : (role + 2 * i + rule_.options + 1) % layout_count;
        return std::make_unique<Array>(format, shape,
                                       strides_of(static_cast<Layout>(turn), shape, encoding(format).size()),
                                       static_cast<std::int64_t>((role + i) % 5));
    }

    // An array of the optimizer's own: zeros, without gaps in the order of the parameter.
    static std::unique_ptr<Array> make_own(const Parameter& parameter, Format format) {
        const Extents& shape = parameter.param->shape();
        auto array =
            std::make_unique<Array>(format, shape, dense_strides(shape, parameter.order, encoding(format).size()), 0);
        array->fill_with_zeros();
        return array;
    }

    std::unique_ptr<Tensor> bind(const Extents& shape) {
        const Format compute_format = compute_ == Compute::float64 ? Format::float64 : Format::float32;
        const Variant& variant = rule_.family.variants[rule_.options];
        const std::size_t i = parameters_.size();
        Parameter made;
        auto tensor = std::make_unique<Tensor>();
        made.param = make(parameters, i, shape, settings_.param);
        made.param->fill_with_numbers(settings_.special, seed(parameters, i));
        made.order = order_of(settings_, variant, compute_format, memory_order(shape, made.param->strides()));
        tensor->operands.number = i;
        tensor->operands.param = made.param->operand(made.order, layout_of(*tensor));
        set_random_parameter(tensor->operands.param, settings_);
        if (settings_.master_bits != 0) add_remainder(tensor->operands.param, made);
        tensor->size = made.param->size();
        tensor->work = 0;  // decides about threads, and those are given here
        tensor->compute = compute_;
        tensor->group = 0;
        tensor->of_its_own = variant.of_each_tensor;
        const Axes logical = logical_order(static_cast<int>(shape.size()));
        if (variant.sum_count > 0) {
            tensor->logical = std::make_unique<Operands>();
            tensor->logical->param = made.param->operand(logical, layout_of(*tensor));
            if (made.remainder) {
                const Operand rest = made.remainder->operand(logical, layout_of(*tensor));
                tensor->logical->param.format = tensor->operands.param.format;
                tensor->logical->param.companion = rest.data;
                tensor->logical->param.companion_view = rest.view;
            }
        }
        for (int k = 0; k < max_scalar_states; ++k) {
            if (!variant.scalar_states[k].used) continue;
            const std::size_t number = made.scalar_states.size();
            made.scalar_states.push_back(variant.joint && !parameters_.empty()
                                             ? parameters_.front().scalar_states[number]
                                             : std::make_shared<double>(0.0));
            tensor->scalar_states[k] = made.scalar_states.back().get();
        }
        for (int k = 0; k < variant.state_count; ++k) {
            if (!variant.states[k].used) continue;
            const StateKind& kind = variant.states[k].kind;
            const Format format = state_format(settings_, kind, compute_format);
            made.states.push_back(make_own(made, format));
            Operand& operand = tensor->operands.states[k];
            operand = made.states.back()->operand(made.order, unused_);
            set_random_state(operand, k, is_state_random(settings_, kind, format));
            if (tensor->logical) tensor->logical->states[k] = made.states.back()->operand(logical, layout_of(*tensor));
            if (is_coded(format)) add_units(*tensor, made, k);
        }
        if (variant.of_matrices) keep(*tensor, made, variant.state_count);
        if (settings_.average) {
            made.average = make_own(made, compute_format);
            tensor->operands.average = made.average->operand(made.order, unused_);
        }
        if (settings_.copy) {
            made.copy = make(copies, i, shape, *settings_.copy);
            tensor->operands.copy = made.copy->operand(made.order, layout_of(*tensor));
        }
        if (settings_.accumulate > 0) {
            made.accumulated = make_own(made, compute_format);
            tensor->accumulated = made.accumulated->operand(made.order, unused_);
            tensor->logical_order_of_accumulated =
                made.accumulated->operand(logical_order(static_cast<int>(shape.size())), layout_of(*tensor));
        }
        parameters_.push_back(std::move(made));
        return tensor;
    }

    static void add_units(Tensor& tensor, Parameter& made, int k) {
        made.states.push_back(std::make_unique<Array>(Format::float32, Extents{code_blocks(tensor.size)},
                                                      Extents{item_size(Format::float32)}, 0));
        Array& units = *made.states.back();
        units.fill_with_zeros();
        StridedLayout none;
        tensor.operands.states[k].companion = units.operand({0}, none).data;
        if (tensor.logical) tensor.logical->states[k].companion = tensor.operands.states[k].companion;
    }

    void add_remainder(Operand& param, Parameter& made) {
        const bool is_short = settings_.master_bits == 24;
        made.remainder = make_own(made, is_short ? Format::signed8 : Format::rest16);
        param.format = is_short ? Format::bfloat16_8 : Format::bfloat16_16;
        param.companion = made.remainder->operand(made.order, unused_).data;
    }

    // Room for what a rule of matrices keeps: like the core's binding, with the shorter axis first.
    void keep(Tensor& tensor, Parameter& made, int after_states) const {
        const Format format = compute_ == Compute::float64 ? Format::float64 : Format::float32;
        const Extents& shape = made.param->shape();
        tensor.rows = shape[0];
        tensor.columns = shape[1];
        made.kept = std::make_unique<Array>(
            format, shape,
            strides_of(shape[0] > shape[1] ? Layout::fortran : Layout::dense, shape, encoding(format).size()), 0);
        tensor.logical->kept = made.kept->operand(logical_order(2), layout_of(tensor));
        tensor.operands.states[after_states] = made.kept->operand(made.order, layout_of(tensor));
        tensor.operands.states[after_states].constant = true;
    }

    // What stands for the products: the division by the length alone.
    template <class T>
    void divide_kept(std::size_t i, double eps) {
        const FloatEnvironment environment;
        const double length = std::sqrt(stepper_->tensor(i).sum);
        const auto divisor = static_cast<T>(eps > length ? eps : length);
        Array& kept = *parameters_[i].kept;
        for (std::size_t k = 0; k < static_cast<std::size_t>(kept.size()); ++k)
            kept.set(k, bits_of(number_of<T>(kept.get(k)) / divisor));
    }

    std::ptrdiff_t take_with_matrices() {
        const Participant alone{stepper_.get(), manner_.threads};
        const Found found = Stepper::take_up_to_sweep({&alone, 1});
        if (found.tensor >= 0) return found.tensor;
        const double eps = hyperparameter("eps", 0);
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            if (stepper_->present(i))
                compute_ == Compute::float64 ? divide_kept<double>(i, eps) : divide_kept<float>(i, eps);
        stepper_->take_sweep(manner_.threads);
        return -1;
    }

    void fill_gradients(std::size_t step, int batch) {
        const auto batches = static_cast<std::size_t>(settings_.accumulate) + 1;
        const std::size_t turn = step * batches + static_cast<std::size_t>(batch);
        const bool accumulating = batch < settings_.accumulate;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            Tensor& tensor = stepper_->tensor(i);
            const bool given = (i + turn) % parameters_.size() != 1;
            const bool pending = stepper_->pending(i);
            stepper_->set_present(i, given || (pending && !accumulating));
            tensor.operands.accumulated = tensor.logical_accumulated = Operand{};
            if (given) {
                give(i, turn, settings_.special && step != 1);
                if (!pending) continue;
                tensor.operands.accumulated = tensor.accumulated;
                tensor.logical_accumulated = tensor.logical_order_of_accumulated;
            } else if (pending) {
                tensor.operands.grad = tensor.accumulated;
                tensor.logical_grad = tensor.logical_order_of_accumulated;
            }
        }
    }

    void give(std::size_t i, std::uint64_t turn, bool special) {
        Parameter& parameter = parameters_[i];
        Tensor& tensor = stepper_->tensor(i);
        const Extents& shape = parameter.param->shape();
        const std::uint64_t role = gradients + turn;
        if (parameter.grad) check(*parameter.grad);
        parameter.grad = make(role, i, shape, settings_.grad);
        parameter.grad->fill_with_numbers(special, seed(role, i));
        tensor.operands.grad = parameter.grad->operand(parameter.order, tensor.grad_layout);
        tensor.logical_grad =
            parameter.grad->operand(logical_order(static_cast<int>(shape.size())), tensor.logical_grad_layout);
    }

    double hyperparameter(const std::string& name, double rate) const {
        if (name == "lr") return rate;
        const auto found = table_.numbers.find(name);
        if (found == table_.numbers.end())
            throw std::runtime_error("the table has no number for '" + name +
                                     "': enter it in tests/helpers/digests.py");
        return found->second;
    }

    // Whether the step was taken, and not held back for a gradient that is not finite.
    bool take(double rate) {
        Group& group = groups_.front();
        group = {};
        group.family = rule_.index;
        group.options = rule_.options;
        for (int k = 0; k < rule_.family.hyperparameter_count; ++k)
            group.hyperparameters[k] = hyperparameter(rule_.family.hyperparameters[k], rate);
        const double l2 = rule_.owns("weight_decay") ? 0 : settings_.l2;
        const double l1 = rule_.owns("l1") ? 0 : settings_.l1;
        group.terms = {false,
                       std::isfinite(settings_.clip_value),
                       settings_.maximize,
                       l2 != 0,
                       l1 != 0 && !settings_.decoupled_l1,
                       1.0,
                       settings_.clip_value,
                       l2,
                       l1};
        group.decoupled_l1 = settings_.decoupled_l1 ? l1 : 0;
        const Extras extras{settings_.clip_norm, settings_.scale, 1.0 - settings_.average.value_or(1.0),
                            settings_.guarded};
        stepper_->prepare(manner_.level, groups_, extras);
        const bool in_parts = manner_.in_parts && extras.needs_norm();
        const bool taken = (stepper_->has_matrices() ? take_with_matrices()
                            : in_parts               ? take_in_parts()
                                                     : stepper_->take(manner_.threads)) < 0;
        taken ? stepper_->count_step() : stepper_->clear_pending();
        return taken;
    }

    std::ptrdiff_t take_in_parts() {
        stepper_->measure(manner_.threads);
        const Participant alone{stepper_.get(), manner_.threads};
        if (!Stepper::conclude({&alone, 1})) {
            const Found found = Stepper::look_closer({&alone, 1});
            if (found.tensor >= 0) return found.tensor;
        }
        stepper_->apply(manner_.threads);
        return -1;
    }

    void digest_norm() { digest_number(stepper_->norm()); }

    void digest_number(double number) {
        digest_ = fold(fold(digest_, 1), element(Format::float64, bits_of(number), 0));
    }

    void digest(Array& array) {
        check(array);
        digest_ = array.fold_into(digest_);
    }

    static void check(Array& array) {
        if (!array.surroundings_intact()) throw std::runtime_error("written outside an array");
    }

    const Case& settings_;
    const Rule& rule_;
    const Table& table_;
    const Manner& manner_;
    Compute compute_;
    StridedLayout unused_;  // of arrays without gaps
    std::vector<Parameter> parameters_;
    std::vector<Group> groups_{1};
    std::unique_ptr<Stepper> stepper_;
    std::uint64_t digest_ = 0;
};

}  // namespace

bool Rule::owns(const std::string& number) const {
    for (int k = 0; k < family.option_count; ++k)
        if (number == "weight_decay" && std::string("decoupled_decay") == family.options[k])
            return has(family.options[k]);
    for (int k = 0; k < family.hyperparameter_count; ++k)
        if (number == family.hyperparameters[k]) return true;
    return false;
}

bool Rule::has(const std::string& option) const {
    for (int k = 0; k < family.option_count; ++k)
        if (option == family.options[k]) return (options >> static_cast<unsigned>(k) & 1U) != 0;
    return false;
}

std::string Rule::name() const {
    std::string name = family.name;
    for (int k = 0; k < family.option_count; ++k)
        if (has(family.options[k])) name += std::string("+") + family.options[k];
    return name;
}

std::uint64_t run(const Case& settings, const Rule& rule, const Table& table, const Manner& manner) {
    return Run(settings, rule, table, manner).digest();
}

}  // namespace instep::digests
