// Which instruction-set levels were compiled in, which run here, which is used.
#pragma once

#include <string>
#include <vector>

#include "kernels/interface.hpp"

namespace instep {

std::vector<const Level*> compiled_levels();  // best first
std::vector<const Level*> usable_levels();    // those of them that this CPU and operating system support

const Level& current_level();
void set_level(const Level& level);

// Which of the level's rules has that name; -1: none.
int find_family(const Level& level, const std::string& name);

}  // namespace instep
