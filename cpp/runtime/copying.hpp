// Copying of elements, bit for bit: for weights that are set aside and put back, and for states that are loaded.
#pragma once

#include <cstdint>

#include "kernels/interface.hpp"

namespace instep {

// Copies all elements of one operand into another operand of the same format, in the same order.
void copy_elements(const Operand& from, const Operand& into, std::int64_t count);

// Copies elements [begin, begin + count) of one operand side by side into memory.
void copy_part(const Operand& from, std::int64_t begin, std::int64_t count, char* into);

}  // namespace instep
