// The moving averages in the parameters' place, for as long as a block of Python's lasts.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "python/steps.hpp"

namespace instep {

namespace py = pybind11;

// Sets parameters and copies aside, bit for bit, and puts the averages there; and the reverse. The lock is held by the
// caller.
class Averages {
public:
    explicit Averages(Steps& steps) : steps_(steps) {}

    // What shows them is known by its address.
    bool shown() const { return shown_by_ != nullptr; }
    const void* shown_by() const { return shown_by_; }
    // Throws where they are shown already, or where an array is no longer what it was.
    void show(const void* block);
    // Puts back what was there. Throws ValueError, with all others put back, where an array's memory is no longer its
    // own.
    void hide();

private:
    struct SetAside {
        std::size_t place;
        Operand Operands::* operand;
        Operand saved;
    };

    Steps& steps_;
    const void* shown_by_ = nullptr;
    std::vector<SetAside> aside_;
    std::vector<char> memory_;
};

}  // namespace instep
