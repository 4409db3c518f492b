// Information about the core itself.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace instep {

// A path may have any bytes; it is decoded like os.fsdecode.
pybind11::object decoded_path(const char* bytes);

pybind11::dict rules();

std::vector<std::string> compiled_level_names();
std::vector<std::string> usable_level_names();
std::string level_name();
std::string level_target();
void set_level_by_name(const std::string& name);
int x86_64_level_of(std::uint32_t leaf1_ecx, std::uint32_t leaf7_ebx, std::uint32_t extended1_ecx, std::uint64_t xcr0);

pybind11::dict counters();
pybind11::dict build();

// Called once when the module is loaded. Throws ImportError if no level that is compiled in runs here.
void start();

}  // namespace instep
