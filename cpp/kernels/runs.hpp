// Runs: the pieces of a stretch of elements of a strided view.
#pragma once

#include "kernels/inlining.hpp"
#include "kernels/interface.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

// Calls action(byte offset, elements done so far, elements in this run) for each run along the innermost axis in
// elements [begin, begin + count) of the view.
template <class Action>
inline void for_each_run(const View& view, std::int64_t begin, std::int64_t count, Action action) {
    constexpr int max_dimensions = 64;  // NumPy's own limit
    std::int64_t index[max_dimensions];
    std::int64_t offset = 0;
    std::int64_t rest = begin;
    for (int axis = view.ndim - 1; axis >= 0; --axis) {
        index[axis] = rest % view.shape[axis];
        rest /= view.shape[axis];
        offset += index[axis] * view.strides[axis];
    }
    const int inner = view.ndim - 1;
    std::int64_t done = 0;
    while (done < count) {
        const std::int64_t room = view.shape[inner] - index[inner];
        const std::int64_t run = room < count - done ? room : count - done;
        action(offset, done, run);
        done += run;
        if (done == count) return;
        offset -= index[inner] * view.strides[inner];  // the run ended at the end of the axis
        index[inner] = 0;
        for (int axis = inner - 1; axis >= 0; --axis) {
            offset += view.strides[axis];
            if (++index[axis] < view.shape[axis]) break;
            offset -= view.shape[axis] * view.strides[axis];
            index[axis] = 0;
        }
    }
}

// Calls action(address, stride, elements done so far, elements) for the runs of elements [begin, begin + count) of an
// array with elements of `size` bytes.
template <class Action>
INSTEP_INLINE void for_each_part(char* data, const View* view, std::int64_t size, std::int64_t begin,
                                 std::int64_t count, Action action) {
    if (view == nullptr) return action(data + begin * size, size, 0, count);
    const std::int64_t stride = view->strides[view->ndim - 1];
    for_each_run(*view, begin, count, [&](std::int64_t offset, std::int64_t done, std::int64_t run) {
        action(data + offset, stride, done, run);
    });
}

}  // namespace
}  // namespace instep::INSTEP_LEVEL
