#include "python/blocks_of_plans.hpp"

#include <exception>

#include "python/unraisable.hpp"

namespace instep {

namespace {

Plan& plan_of(const py::object& plan) { return plan.cast<Plan&>(); }

int traverse_all(const Plans& plans, visitproc visit, void* arg) {
    for (const py::object& plan : plans) Py_VISIT(plan.ptr());
    return 0;
}

}  // namespace

void ReadingBlock::enter() {
    taken_.reserve(plans_.size());
    try {
        for (const py::object& plan : plans_)
            if (!plan_of(plan).acquire_to_read()) taken_.push_back(&plan_of(plan));
    } catch (...) {
        leave();
        throw;
    }
}

void ReadingBlock::leave() {
    for (; !taken_.empty(); taken_.pop_back()) taken_.back()->release_read();
}

int ReadingBlock::traverse(visitproc visit, void* arg) const { return traverse_all(plans_, visit, arg); }

void hide_averages(const Plans& plans, const void* block, bool wait) {
    std::exception_ptr first;
    for (const py::object& plan : plans) {
        try {
            plan_of(plan).hide_averages(block, wait);
        } catch (...) {
            if (!first) first = std::current_exception();
        }
    }
    if (first) std::rethrow_exception(first);
}

void AveragedBlock::show() {
    Plans shown;
    shown.reserve(plans_.size());
    try {
        for (const py::object& plan : plans_) {
            plan_of(plan).show_averages(this);
            shown.push_back(plan);
        }
    } catch (...) {
        unraisable([&] { hide_averages(shown, this); });
        throw;
    }
}

AveragedBlock::~AveragedBlock() {
    unraisable([this] { hide_averages(plans_, this, false); });
}

int AveragedBlock::traverse(visitproc visit, void* arg) const { return traverse_all(plans_, visit, arg); }

}  // namespace instep
