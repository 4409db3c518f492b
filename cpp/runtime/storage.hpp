// How a tensor's arrays are stored, and which of a rule's loops follows from it: decided once for all tensors that are
// alike, so that a step over many small ones only calls what was chosen.
#pragma once

#include <cstdint>

#include "kernels/interface.hpp"

namespace instep {

// What of a tensor's own arrays decides about its loops: all but the gradient, which may lie anew at each step.
struct Arrangement {
    Storage storage;
    bool averaged;
    Format weights;

    static Arrangement of(const Operands& operands, Compute compute);
    std::uint32_t number() const { return static_cast<std::uint32_t>(storage) * 2 + (averaged ? 1 : 0); }
};
constexpr std::uint32_t arrangement_count = (storage_count + 1) * 2;

// Sets what the sweep is to call, by the settings' terms.
void choose_loops(Settings& settings, const Loops& loops, const Arrangement& arrangement);

}  // namespace instep
