// What only measurements call.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/memory_limit.hpp"

namespace instep {

// The traffic of a step without its arithmetic: pieces (lists of NumPy arrays that are gone through together, a stream
// each), and passes over them, each (read, written). A pass writes the first streams of a piece and reads, besides
// these, the last ones: the norm of a gradient, which lies last, is the pass (1, 0). Where there is a copy, a further
// array of half the bytes ends each piece, which the last pass writes.
//
// Throws TypeError or ValueError unless the arrays of a piece are dense, of one size, apart from each other, and those
// to be written writeable. Pieces aren't compared with each other.
class MemoryTraffic {
public:
    MemoryTraffic(const pybind11::list& pieces, std::vector<std::pair<int, int>> passes, bool copied);

    // Takes all passes once. Gradients, where given, stand for the last stream of the pieces, this once: they aren't
    // kept. See memory_limit for the rest; returns the sum of what each pass gives, modulo 256.
    int move(int threads, std::int64_t chunk, const pybind11::object& gradients, std::uint8_t flip) const;

private:
    std::vector<pybind11::array> checked_gradients(const pybind11::object& gradients) const;
    std::vector<Streams> streams_of(std::size_t pass, const std::vector<pybind11::array>& gradients) const;

    std::vector<std::pair<int, int>> passes_;
    bool copied_;
    std::size_t streams_ = 0;  // in each piece
    std::size_t written_ = 0;  // of these, by any pass
    std::vector<std::vector<pybind11::array>> pieces_;
};

}  // namespace instep
