#include "python/testing.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "python/arrays.hpp"
#include "python/garbage.hpp"
#include "python/introspection.hpp"
#include "python/measurement.hpp"
#include "python/plan.hpp"
#include "runtime/overlap.hpp"
#include "runtime/pace.hpp"
#include "runtime/team.hpp"
#include "runtime/windows.hpp"

namespace instep {

namespace {

using namespace pybind11::literals;

void define_pace(py::module_& m) {
    py::class_<Pace>(m, "Pace", py::is_final(), py::custom_type_setup(forbid_new),
                     "How many threads a step takes, found out by trying.")
        .def("choose", &Pace::choose, "most"_a, "work"_a, "Threads for the next step.")
        .def("took", &Pace::took, "nanoseconds"_a, "What it took.")
        .def_property_readonly("timed", &Pace::timed, "Whether the next step is to be timed.");
    m.def("make_pace", [] { return Pace(); });
}

void define_memory_traffic(py::module_& m) {
    py::class_<MemoryTraffic>(m, "MemoryTraffic", py::is_final(), py::custom_type_setup(forbid_new),
                              "What a step reads and writes, without its arithmetic.")
        .def("move", &MemoryTraffic::move, "threads"_a, "chunk"_a, "gradients"_a = py::none(), "flip"_a = 0,
             "Goes through all arrays once, and leaves them as they were but for the bits of flip.");
    m.def(
        "make_memory_traffic",
        [](const py::list& pieces, std::vector<std::pair<int, int>> passes, bool copied) {
            return MemoryTraffic(pieces, std::move(passes), copied);
        },
        "pieces"_a, "passes"_a, "copied"_a = false, "Checks the arrays of pieces, and keeps them.");
}

}  // namespace

void define_testing(py::module_& m) {
    define_pace(m);
    define_memory_traffic(m);
    m.def("counters", &counters, "What has happened so far in this process.");
    m.def("least_work", &team::least_work, "Work that makes a thread worth waking.");
    m.def("set_least_work", &team::set_least_work, "work"_a, "Change it.");
    m.def("window_bytes", &window_bytes, "States in a window, for optimizers with state_storage.");
    m.def("set_window_bytes", &set_window_bytes, "bytes"_a, "Change it, for windows that are laid out from now on.");
    m.def("set_input_thread", &set_input_thread, "wanted"_a, "Whether their steps have a thread for input and output.");
    m.def("fail_file_calls_after", &fail_file_calls_after, "calls"_a,
          "After so many more, each read and write of a file of states fails; -1 for none.");
    m.def("x86_64_level", &x86_64_level_of, "leaf1_ecx"_a, "leaf7_ebx"_a, "extended1_ecx"_a, "xcr0"_a,
          "Level (1 to 4) of a CPU that gives these CPUID and XCR0 words.");
    m.def(
        "looked_up", [](const Plan& plan) { return plan.looked_up(); }, "plan"_a,
        "What preparing the plan's steps has looked at so far.");
    m.def("overlap_work", &overlap_work, "How often searches for a shared byte have branched so far.");
    m.def(
        "share_memory",
        [](const py::array& a, const py::array& b) {
            return share_memory(Look(a.ptr(), "a").view(), Look(b.ptr(), "b").view());
        },
        "a"_a, "b"_a, "Whether an element of one array has a byte in common with an element of the other.");
    m.def(
        "overlaps_itself", [](const py::array& array) { return overlaps_itself(Look(array.ptr(), "array").view()); },
        "array"_a, "Whether two elements of the array share a byte.");
}

}  // namespace instep
