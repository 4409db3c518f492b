// The module instep._core: names and docstrings only.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>
#include <vector>

#include "python/bind_combined.hpp"
#include "python/bind_steps.hpp"
#include "python/bind_threads.hpp"
#include "python/blocks_of_plans.hpp"
#include "python/garbage.hpp"
#include "python/hyperparameters.hpp"
#include "python/introspection.hpp"
#include "python/plan.hpp"
#include "python/ranks.hpp"
#include "python/snapshot.hpp"
#include "python/state_storage.hpp"
#include "python/testing.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = INSTEP_VERSION;
    m.doc() = "The compiled core of instep. Private: use the package instep.";

    py::class_<instep::Plan>(m, "Plan", py::is_final(), py::custom_type_setup(instep::traversed<instep::Plan>),
                             "Parameters and states bound once, and the step over them; made by make_plan.")
        .def("add", &instep::Plan::add, "groups"_a, "grouped"_a, "take_read_only"_a, "before"_a, "now"_a, "optimizer"_a,
             "held"_a, "Binds more parameters and makes their states.")
        .def("step", &instep::Plan::step, "gradients"_a, "optimizer"_a, "grad_scale"_a = 1.0,
             "Takes one step; the optimizer is asked for its hyperparameters where these have changed.")
        .def("step_accumulated", &instep::Plan::step_accumulated, "optimizer"_a, "grad_scale"_a = 1.0,
             "Takes one step with the accumulated gradients alone.")
        .def("accumulate", &instep::Plan::accumulate, "gradients"_a, "Adds gradients for the next step.")
        .def("checked", &instep::Plan::checked, "gradients"_a, "Gradients by place, checked as by a step.")
        .def("__enter__", &instep::Plan::acquire, "Keeps steps on other threads waiting.")
        .def(
            "__exit__", [](instep::Plan& plan, const py::args&) { plan.release(); }, "Lets them go on.")
        .def(
            "reading",
            [](const py::object& plan) { return std::make_unique<instep::ReadingBlock>(instep::Plans{plan}); },
            "A block that reads, also in the middle of a call that has changed nothing yet.")
        .def(
            "averaged",
            [](const py::object& plan) { return std::make_unique<instep::AveragedBlock>(instep::Plans{plan}); },
            "A block that puts the averages in the parameters' place.")
        .def(
            "end_averaged", [](instep::Plan& plan) { plan.hide_averages(nullptr); },
            "Puts the weights back, whichever block shows averages.")
        .def_property_readonly("shows_averages", &instep::Plan::shows_averages, "Steps are refused.")
        .def("refuse_averages", &instep::Plan::refuse_averages, "what"_a, "Raises where the averages are shown.")
        .def("require_whole", &instep::Plan::require_whole, "Raises where half a step is in the files of the states.")
        .def("remove_files", &instep::Plan::remove_files, "Removes the files of the states.")
        .def("refresh_copies", &instep::Plan::refresh_copies, "Rounds the parameters into their copies.")
        .def("reset_remainders", &instep::Plan::reset_remainders, "Makes all remainders of parameters 0.")
        .def("discard_accumulated", &instep::Plan::discard_accumulated, "Forgets what was accumulated.")
        .def("restore", &instep::Plan::restore, "step_count"_a, "skipped_steps"_a, "parameters"_a, "now"_a = py::none(),
             "is_new"_a = false, "seed"_a = py::none(),
             "Goes on from these counts, for each parameter its own and its arrays, and these hyperparameters.")
        .def_property_readonly("seed", &instep::Plan::seed, "Of its random numbers.")
        .def_property_readonly("step_count", &instep::Plan::step_count, "Completed steps.")
        .def_property_readonly("skipped_steps", &instep::Plan::skipped_steps, "Steps that changed nothing.")
        .def_property_readonly("averages", &instep::Plan::averages, "Parameter name -> moving average.")
        .def_property_readonly("accumulated", &instep::Plan::accumulated, "Parameter name -> pending sum.")
        .def_property_readonly("pending_changes", &instep::Plan::pending_changes,
                               "Another number whenever accumulated may have other names.")
        .def_property_readonly("grad_norm", &instep::Plan::grad_norm, "Norm in the last step, None without one.")
        .def_property_readonly("steps", &instep::Plan::steps, "Completed steps of each parameter.")
        .def_property_readonly("states", &instep::Plan::states, "Parameter name -> state name -> array.");

    m.def(
        "make_plan",
        [](bool averaged, py::object current, py::object storage, std::pair<bool, bool> rounding, std::uint64_t seed,
           int master_bits, std::int64_t min_8bit_size) {
            return std::make_unique<instep::Plan>(
                averaged, std::move(current), std::move(storage),
                instep::Plan::Stored{{rounding.first, rounding.second}, seed, master_bits, min_8bit_size});
        },
        "averaged"_a, "current"_a, "storage"_a = py::none(), py::kw_only(), "rounding"_a = std::pair(true, false),
        "seed"_a = 0, "master_bits"_a = 0, "min_8bit_size"_a = 4096, "A plan without parameters.");
    instep::translate_file_errors();
    instep::bind_combined(m);
    instep::bind_ranks(m);
    py::class_<instep::Memory>(m, "Memory", py::is_final(), py::buffer_protocol(),
                               py::custom_type_setup(instep::forbid_new),
                               "Bytes that arrays of an optimizer's own lie in.")
        .def_buffer([](instep::Memory& memory) { return memory.bytes.request(); });
    py::class_<instep::ReadingBlock>(m, "ReadingBlock", py::is_final(),
                                     py::custom_type_setup(instep::traversed<instep::ReadingBlock>),
                                     "No step on another thread, while it lasts.")
        .def("__enter__", &instep::ReadingBlock::enter)
        .def("__exit__", [](instep::ReadingBlock& block, const py::args&) { block.leave(); });
    py::class_<instep::AveragedBlock>(m, "AveragedBlock", py::is_final(),
                                      py::custom_type_setup(instep::traversed<instep::AveragedBlock>),
                                      "The averages in the parameters' place, while it lasts.")
        .def("__enter__", &instep::AveragedBlock::show)
        .def("__exit__", [](instep::AveragedBlock& block, const py::args&) { block.hide(); });

    m.def("in_default_environment", &instep::in_default_environment, "function"_a,
          "Calls the function with the floating-point environment of a step, and returns what it does.");

    m.def("rules", &instep::rules, "Rule name -> its hyperparameters, options and states.");

    m.def("compiled_levels", &instep::compiled_level_names, "Instruction-set levels compiled in, best first.");
    m.def("usable_levels", &instep::usable_level_names, "Those that this CPU and operating system support.");
    m.def("level", &instep::level_name, "The level in use.");
    m.def("level_target", &instep::level_target, "What the compiler said it compiled that level for.");
    m.def("set_level", &instep::set_level_by_name, "name"_a, "Use this level from now on.");

    m.def("build", &instep::build, "How the core was compiled.");

    instep::bind_threads(m);
    instep::bind_steps(m);
    instep::bind_snapshot(m);
    auto testing = m.def_submodule("testing", "What nothing but tests and measurements uses.");
    instep::define_testing(testing);

    instep::start();
}
