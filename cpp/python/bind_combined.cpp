#include "python/bind_combined.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "python/combined.hpp"
#include "python/garbage.hpp"

namespace instep {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_combined(py::module_& m) {
    py::class_<Combined>(m, "Combined", py::is_final(), py::custom_type_setup(traversed<Combined>),
                         "Several plans, and steps over them as one; made by make_combined.")
        .def("step", &Combined::step, "gradients"_a, "owner"_a, "grad_scale"_a,
             "Takes one step; the owner is asked for clip_norm and nonfinite where these have changed.")
        .def("step_accumulated", &Combined::step_accumulated, "owner"_a, "grad_scale"_a,
             "Takes one step with the accumulated gradients alone.")
        .def("accumulate", &Combined::accumulate, "gradients"_a, "Adds gradients for the next step.")
        .def("checked", &Combined::checked, "gradients"_a, "Gradients by place of all plans, checked as by a step.")
        .def("discard_accumulated", &Combined::discard_accumulated, "Forgets what was accumulated.")
        .def("refresh_copies", &Combined::refresh_copies, "Rounds the parameters into their copies.")
        .def("check_memory", &Combined::check_memory, "Raises where two plans' arrays share memory.")
        .def("__enter__", &Combined::acquire, "Keeps steps on other threads waiting.")
        .def(
            "__exit__", [](Combined& combined, const py::args&) { combined.release(); }, "Lets them go on.")
        .def(
            "reading", [](const Combined& all) { return std::make_unique<ReadingBlock>(all.plans_to_lock()); },
            "A block that reads, also in the middle of a call that has changed nothing yet.")
        .def(
            "averaged", [](const Combined& all) { return std::make_unique<AveragedBlock>(all.plans()); },
            "A block that puts the averages of all in the parameters' place.")
        .def(
            "end_averaged", [](const Combined& all) { hide_averages(all.plans(), nullptr); },
            "Puts the weights back, whichever blocks show averages.")
        .def("refuse_averages", &Combined::refuse_averages, "what"_a, "Raises where averages are shown.")
        .def("restore", &Combined::restore, "step_count"_a, "skipped_steps"_a, "members"_a, "now"_a,
             "Goes on from these counts, with what Plan.restore takes for each plan.")
        .def("set_counts", &Combined::set_counts, "step_count"_a, "skipped_steps"_a, "Of a new one.")
        .def_property_readonly("step_count", &Combined::step_count, "Completed steps.")
        .def_property_readonly("skipped_steps", &Combined::skipped_steps, "Steps that changed nothing.")
        .def_property_readonly("grad_norm", &Combined::grad_norm, "Norm in the last step, None without one.");

    m.def(
        "make_combined",
        [](py::tuple optimizers, Plans plans, py::object current) {
            return std::make_unique<Combined>(std::move(optimizers), std::move(plans), std::move(current));
        },
        "optimizers"_a, "plans"_a, "current"_a, "Several plans as one.");
}

}  // namespace instep
