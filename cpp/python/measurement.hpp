// Functions that only measurements call.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/memory_limit.hpp"

namespace instep {

// The memory traffic of a step without its arithmetic: pieces (lists of NumPy arrays that are gone through together,
// each a stream), and passes over them, each (read, written). A pass writes the first streams of a piece and, besides
// these, reads the last streams: the norm of a gradient, which comes last, is the pass (1, 0). If there is a copy, each
// piece ends with a further array of half the bytes, which the last pass writes.
//
// Throws TypeError or ValueError unless the arrays of a piece are dense, of one size, share no memory, and are
// writeable if they are to be written. Pieces aren't compared with each other.
class MemoryTraffic {
public:
    MemoryTraffic(const pybind11::list& pieces, std::vector<std::pair<int, int>> passes, bool copied);

    // Takes all passes once. If gradients are given, they replace the last stream of the pieces for this call; they
    // aren't kept. See memory_limit for the other arguments. Returns the sum of the results of all passes, modulo 256.
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
