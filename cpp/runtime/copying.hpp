// Elements copied as they are, bit for bit: weights set aside and put back, states loaded.
#pragma once

#include <cstdint>

#include "kernels/interface.hpp"

namespace instep {

// Copies all elements of one operand into another of the same format; both are seen in the same order.
void copy_elements(const Operand& from, const Operand& into, std::int64_t count);

}  // namespace instep
