// Releases the GIL for a scope, and stops the thread if the interpreter has ended meanwhile.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

namespace instep {

inline bool interpreter_is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}

// A daemon thread that wants the GIL back while the interpreter shuts down doesn't get it. Up to Python 3.13,
// pthread_exit ends this thread, and glibc does so by unwinding the stack. Destructors on the way would touch Python
// objects without the GIL, or end the whole process if they may not throw. Here such a thread sleeps instead until the
// process ends, as it does inside Python itself from 3.14 on.
class GilReleased {
public:
    GilReleased() : state_(PyEval_SaveThread()) {}
    ~GilReleased() {
#if defined(__GLIBCXX__)
        try {
            PyEval_RestoreThread(state_);
        } catch (abi::__forced_unwind&) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
#else
        PyEval_RestoreThread(state_);
#endif
    }
    GilReleased(const GilReleased&) = delete;
    GilReleased& operator=(const GilReleased&) = delete;
    GilReleased(GilReleased&&) = delete;
    GilReleased& operator=(GilReleased&&) = delete;

private:
    PyThreadState* state_;
};

// Runs the work with or without the GIL.
template <class Work>
auto without_gil(bool release_gil, Work work) {
    if (!release_gil) return work();
    const GilReleased released;
    return work();
}

}  // namespace instep
