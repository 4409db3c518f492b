// The moving averages in place of the parameters, for as long as a block in Python lasts.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "python/steps.hpp"

namespace instep {

namespace py = pybind11;

// Sets parameters and copies aside, bit for bit, and puts the averages in their place; and the reverse. The caller
// holds the lock.
class Averages {
public:
    explicit Averages(Steps& steps) : steps_(steps) {}

    // The block that shows the averages is identified by its address.
    bool shown() const { return shown_by_ != nullptr; }
    const void* shown_by() const { return shown_by_; }
    // Throws if the averages are shown already, or if an array has changed since it was bound.
    // `groups` have the numbers that don't depend on the step, for rules that show an average of their own.
    void show(const void* block, const std::vector<Group>& groups);
    // Puts the weights and copies back. Throws ValueError if an array's memory is no longer its own; all others are put
    // back then.
    void hide();

private:
    struct SetAside {
        std::size_t place;
        Operand Operands::* operand;
        Operand saved;
    };

    bool has_average(std::size_t place) const;

    Steps& steps_;
    const void* shown_by_ = nullptr;
    std::vector<SetAside> aside_;
    std::vector<char> memory_;
};

}  // namespace instep
