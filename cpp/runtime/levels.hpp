// The instruction-set levels: those that were compiled in, those that run here, and the one that is used.
#pragma once

#include <string>
#include <vector>

#include "kernels/interface.hpp"

namespace instep {

std::vector<const Level*> compiled_levels();  // best first
std::vector<const Level*> usable_levels();    // those that this CPU and operating system support

const Level& current_level();
void set_level(const Level& level);

// The index of the level's rule with this name; -1 if there is none.
int find_family(const Level& level, const std::string& name);

}  // namespace instep
