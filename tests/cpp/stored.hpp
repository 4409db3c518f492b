// How a case stores a parameter and its states, besides in one array of an element format: what cpp/python's Steps
// decides by the arrays that it is given.
#pragma once

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"
#include "table.hpp"

namespace instep::digests {

// The format of a state in a case.
Format state_format(const Case& settings, const StateKind& kind, Format compute);

// Whether an operand in this format is rounded at random; and by which of the random numbers state k is.
bool is_state_random(const Case& settings, const StateKind& kind, Format format);
void set_random_state(Operand& operand, int k, bool is_random);
void set_random_parameter(Operand& operand, const Case& settings);

// The order in which a step walks over a parameter: codes and random numbers go by the place in logical order.
Axes order_of(const Case& settings, const Variant& variant, Format compute, const Axes& in_memory);

}  // namespace instep::digests
