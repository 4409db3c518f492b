#include "python/bind_threads.hpp"

#include <cstdint>
#include <memory>
#include <string>

#include "python/garbage.hpp"
#include "python/introspection.hpp"
#include "runtime/shared_team.hpp"

namespace instep {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

// A path may have any bytes; it is encoded like os.fsencode.
std::string encoded(const py::object& path) {
    PyObject* bytes = nullptr;
    if (PyUnicode_FSConverter(path.ptr(), static_cast<void*>(&bytes)) == 0) throw py::error_already_set();
    return py::reinterpret_steal<py::bytes>(bytes);
}

}  // namespace

void bind_threads(py::module_& m) {
    m.def("start_openmp", &team::start_runtime, "Has the OpenMP runtime read the environment and the affinity.");
    m.def("set_default_threads", &team::set_default_threads, "count"_a, "What the environment grants.");
    m.def("wanted_threads", &team::wanted, "The program's choice of threads; 0 for the default.");
    m.def("set_threads", &team::set_threads, "count"_a, "The program's choice; 0 for the default.");
    m.def("threads", [] { return team::own().threads(); }, "Most threads that a step uses.");
    m.def(
        "threads_for", [](std::int64_t work) { return team::own().threads_for(work); }, "work"_a,
        "Threads that a step of so much work (bytes) uses.");
    m.def("set_idle_threads_spin", &team::set_idle_threads_spin, "spin"_a,
          "Whether idle threads of the OpenMP runtime spin, so that only long steps go parallel.");
    m.def("forked", &team::forked, "Whether this process was forked since instep was loaded.");

    using Team = team::SharedTeam;
    py::class_<Team, std::unique_ptr<Team, py::nodelete>>(m, "Team", py::is_final(), py::custom_type_setup(forbid_new),
                                                          "Threads of another library; found by find_team.")
        .def_property_readonly("threads", &Team::threads, "Most threads that a step uses.")
        .def("threads_for", &Team::threads_for, "work"_a, "Threads that a step of so much work (bytes) uses.")
        .def_property_readonly(
            "library", [](const Team& team) { return decoded_path(team.file().c_str()); }, "Where its runtime lies.");
    m.def(
        "find_team", [](const py::object& library) { return Team::of(encoded(library).c_str()); }, "library"_a,
        py::return_value_policy::reference, "The team of the OpenMP runtime that a loaded library calls, or None.");
}

}  // namespace instep
