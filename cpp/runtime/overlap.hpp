// Whether arrays share memory: decided exactly, element by element, without running any Python code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/tensor_view.hpp"

namespace instep {

// Whether an element of one array has a byte in common with an element of the other. For some unusual strides the
// decision would take seconds (never for slices of one array); then the arrays count as sharing.
bool share_memory(const TensorView& a, const TensorView& b);

// Whether two elements of the array share a byte.
bool overlaps_itself(const TensorView& view);

// The number of branches in searches for a shared byte in this process. Tests count these instead of seconds.
std::int64_t overlap_work();

// A set of arrays, to find those that share memory with another array. Interleaved arrays of one layout, such as the
// columns of a matrix, are distinguished by their remainders, not pair by pair.
class OccupiedMemory {
public:
    // `find` returns this id.
    void add(const TensorView& view, std::size_t id);
    void clear();

    static constexpr std::size_t none = SIZE_MAX;
    // The id of an array, other than `except`, that shares memory with this one; `none` if there is no such array.
    std::size_t find(const TensorView& view, std::size_t except = none) const;
    // Whether the range is free of all arrays and of the gaps between their elements; and the whole free range around
    // it.
    bool is_free(const ByteRange& range) const;
    ByteRange gap_around(const ByteRange& range) const;

private:
    struct Entry {
        ByteRange range;
        std::int64_t period;     // all elements begin at multiples of this from `low` on; 0: there is only one
        std::int64_t remainder;  // of `low`
        std::int64_t item;
        std::size_t id;
        Format format;
        int ndim;
        std::size_t extents;  // shape and then strides begin here in extents_
        const char* reach;    // the highest end among entries of this remainder up to this one
        char* data;
    };
    struct Lattice {  // entries of one period in a band, by remainder and then by low
        std::int64_t period;
        std::size_t first, last;
    };
    struct Band {  // memory that arrays reach without a gap; no two bands meet
        ByteRange range;
        std::size_t first, last;  // of lattices_
    };

    void prepare() const;
    TensorView view_of(const Entry& entry) const;
    std::size_t find_in(const Lattice& lattice, const TensorView& view, const Entry& probe, std::size_t except) const;
    std::vector<Band>::const_iterator first_band_ending_after(const char* address) const;
    static Entry entry_of(const TensorView& view);

    // Sorted when first used.
    mutable std::vector<Entry> entries_;
    mutable std::vector<Lattice> lattices_;
    mutable std::vector<Band> bands_;
    mutable bool ready_ = true;
    std::vector<std::int64_t> extents_;
};

}  // namespace instep
