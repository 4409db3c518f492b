#include "python/ranks.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "python/garbage.hpp"
#include "python/gil.hpp"
#include "runtime/team.hpp"

namespace instep {

using namespace pybind11::literals;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// Asks a function of Python's.
class Asking final : public Exchange {
public:
    explicit Asking(py::object function) : function_(std::move(function)) {}

    void gather(const std::vector<bool>& included, std::size_t width, std::vector<double>& values) override {
        const py::gil_scoped_acquire held;
        std::string flags(included.size(), '\0');
        std::copy(included.begin(), included.end(), flags.begin());
        values = ask("gather", flags, width, values);
    }
    double largest(double value) override {
        const py::gil_scoped_acquire held;
        return ask("largest", "", 1, {value}).at(0);
    }
    Found first(Found found) override {
        const py::gil_scoped_acquire held;
        const std::vector<double> first =
            ask("first", "", 2, {static_cast<double>(found.stepper), static_cast<double>(found.tensor)});
        return {static_cast<std::size_t>(first.at(0)), static_cast<std::ptrdiff_t>(first.at(1))};
    }

private:
    std::vector<double> ask(const char* what, const std::string& included, std::size_t width,
                            const std::vector<double>& values) {
        const Doubles sent(static_cast<py::ssize_t>(values.size()), values.data());
        const Doubles found = function_(what, py::bytes(included), width, sent).cast<Doubles>();
        return {found.data(), found.data() + found.size()};
    }

    py::object function_;
};

}  // namespace

py::bytes Ranks::prepare(const py::sequence& numbers, const py::sequence& limits,
                         const std::vector<std::string>& present, double grad_scale) {
    limits_.take(py::tuple(), limits);
    Extras extras = limits_.extras(grad_scale);
    participants_.clear();
    matrices_ = false;
    std::vector<unsigned char> bytes;
    for (std::size_t k = 0; k < plans_.size(); ++k) {
        Steps& steps = this->steps(k);
        const auto own = numbers[k].cast<py::tuple>();
        steps.hyperparameters().take(own[0].cast<py::sequence>(), own[1].cast<py::sequence>());
        steps.sum_gradients_of(present.at(k));
        extras.average_rate = steps.hyperparameters().average_rate;
        steps.prepare(extras);
        steps.stepper().get_prepared(bytes);
        matrices_ = matrices_ || steps.stepper().has_matrices();
        participants_.push_back({&steps.stepper(), limited(steps.stepper().most_threads())});
    }
    Stepper::make_room({participants_.data(), participants_.size()});
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void Ranks::set_prepared(const std::string& bytes) {
    const auto* next = reinterpret_cast<const unsigned char*>(bytes.data());
    for (const Participant& one : participants_) {
        std::vector<unsigned char> own;
        one.stepper->get_prepared(own);
        one.stepper->set_prepared(next);
        next += own.size();
    }
}

void Ranks::sum_up(const py::sequence& contributions) {
    std::vector<std::vector<Contributions>> of_plans(plans_.size());
    for (const py::handle item : contributions) {
        const auto fields = item.cast<py::tuple>();
        Contributions one{
            fields[1].cast<std::size_t>(), fields[2].cast<std::int64_t>(), fields[3].cast<std::int64_t>(), {}};
        for (const py::handle gradient : fields[4].cast<py::sequence>()) {
            const Look look(gradient.ptr(), "a gradient");
            one.gradients.emplace_back(look.view().data, look.view().format);
        }
        of_plans.at(fields[0].cast<std::size_t>()).push_back(std::move(one));
    }
    without_gil(are_long(), [&] {
        for (std::size_t k = 0; k < of_plans.size(); ++k) {
            const int threads = most_threads_ > 0 ? most_threads_ : team::own().threads();
            participants_[k].stepper->sum_up(of_plans[k], threads);
        }
    });
}

bool Ranks::are_long() const {
    std::int64_t work = 0;
    for (const Participant& one : participants_) work += one.stepper->most_work();
    return Steps::is_long(work) || matrices_;
}

py::object Ranks::take(const py::object& exchange) {
    Asking asking(exchange);
    const Together all{participants_.data(), participants_.size(), exchange.is_none() ? nullptr : &asking};
    const bool release_gil = are_long();
    const Found bad = without_gil(release_gil, [&] { return Stepper::take_up_to_sweep(all); });
    grad_norm_ = py::none();
    if (limits_.extras(1.0).needs_norm()) grad_norm_ = py::float_(all.first->stepper->norm());
    if (bad.tensor >= 0) return py::make_tuple(bad.stepper, bad.tensor);
    if (matrices_) {
        for (std::size_t k = 0; k < plans_.size(); ++k)
            if (steps(k).stepper().has_matrices()) steps(k).make_orthogonal();
    }
    without_gil(release_gil, [&] { Stepper::take_sweeps(all); });
    for (std::size_t k = 0; k < plans_.size(); ++k) steps(k).count_step();
    return py::none();
}

void Ranks::refuse_not_finite(std::size_t k, std::size_t place) const {
    steps(k).refuse_not_finite(place, plans_.size() > 1 ? "optimizers[" + std::to_string(k) + "]: " : "");
}

int Ranks::traverse(visitproc visit, void* arg) const {
    for (const py::object& plan : plans_) Py_VISIT(plan.ptr());
    Py_VISIT(grad_norm_.ptr());
    return 0;
}

void bind_ranks(py::module_& m) {
    py::class_<Ranks>(m, "Ranks", py::is_final(), py::custom_type_setup(traversed<Ranks>),
                      "Plans over stretches, and steps over them together with other processes; made by make_ranks.")
        .def("set_most_threads", &Ranks::set_most_threads, "count"_a, "Of this process; 0: as any step.")
        .def("prepare", &Ranks::prepare, "numbers"_a, "limits"_a, "present"_a, "grad_scale"_a,
             "Prepares a step, and returns the numbers computed for it.")
        .def("set_prepared", &Ranks::set_prepared, "numbers"_a, "Puts another process's numbers in their place.")
        .def("sum_up", &Ranks::sum_up, "contributions"_a, "Adds gradients of all processes, in their order.")
        .def("take", &Ranks::take, "exchange"_a, "Takes the step, or returns the first place that isn't finite.")
        .def("count_skipped", &Ranks::count_skipped, "Counts a step that changed nothing.")
        .def("refuse_not_finite", &Ranks::refuse_not_finite, "k"_a, "place"_a, "Raises FloatingPointError.")
        .def_property_readonly("grad_norm", &Ranks::grad_norm, "Norm in the last step, None without one.");
    m.def(
        "make_ranks", [](Plans plans) { return std::make_unique<Ranks>(std::move(plans)); }, "plans"_a,
        "The plans of one process.");
    m.def(
        "needs_whole",
        [](const std::string& rule, const py::sequence& options) {
            return variant_of(make_group(rule, options)).of_matrices;
        },
        "rule"_a, "options"_a, "Whether a rule needs a whole parameter in one array.");
}

}  // namespace instep
