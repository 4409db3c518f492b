// The storage of a tensor's arrays, and the choice of a rule's loop for it. The choice is made once for all tensors
// that are alike, so that a step over many small tensors only calls the chosen loop.
#pragma once

#include <cstdint>

#include "kernels/interface.hpp"

namespace instep {

// The properties of a tensor's arrays that decide its loops. The gradient is not among them: its layout may change at
// each step.
struct Arrangement {
    Storage storage;
    bool averaged;
    Format weights;

    static Arrangement of(const Operands& operands, Compute compute);
    std::uint32_t number() const { return static_cast<std::uint32_t>(storage) * 2 + (averaged ? 1 : 0); }
};
constexpr std::uint32_t arrangement_count = (static_cast<std::uint32_t>(Storage::other) + 1) * 2;

// Sets the loops that the sweep is to call, by the recipe's terms and by what follows the rule.
void choose_loops(Recipe& recipe, const Loops& loops, const Arrangement& arrangement);

}  // namespace instep
