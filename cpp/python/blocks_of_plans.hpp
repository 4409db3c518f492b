// ``with`` blocks over an optimizer, or over several as one.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "python/plan.hpp"

namespace instep {

// The Plans of a block, which it keeps alive.
using Plans = std::vector<py::object>;

// Hides the averages of all; see Plan::hide_averages. Throws the first error when all has been tried.
void hide_averages(const Plans& plans, const void* block, bool wait = true);

// A block that reads; see Plan::acquire_to_read.
class ReadingBlock {
public:
    explicit ReadingBlock(Plans plans) : plans_(std::move(plans)) {}

    void enter();
    void leave();
    int traverse(visitproc visit, void* arg) const;

private:
    Plans plans_;  // in the order in which they are locked
    std::vector<Plan*> taken_;
};

// A block that shows averages. It is entered and left by C functions, within which no Python signal handler runs. A
// block that is dropped before its end hides the averages, too.
class AveragedBlock {
public:
    explicit AveragedBlock(Plans plans) : plans_(std::move(plans)) {}
    ~AveragedBlock();
    AveragedBlock(const AveragedBlock&) = delete;
    AveragedBlock& operator=(const AveragedBlock&) = delete;
    AveragedBlock(AveragedBlock&&) = delete;
    AveragedBlock& operator=(AveragedBlock&&) = delete;

    // Shows the averages of all, or of none if it throws.
    void show();
    void hide() { hide_averages(plans_, this); }
    int traverse(visitproc visit, void* arg) const;

private:
    Plans plans_;
};

}  // namespace instep
