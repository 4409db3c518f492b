// An array of any format, shape and layout, whose surroundings must stay as they are.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "bits.hpp"
#include "runtime/layout.hpp"
#include "runtime/tensor_view.hpp"

namespace instep::digests {

// How the elements lie: in C order, in Fortran order, with a gap after each, with a gap after each row, backwards.
enum class Layout : unsigned char { dense, fortran, gaps, padded, backwards };
constexpr int layout_count = 5;

Extents strides_of(Layout layout, const Extents& shape, std::int64_t item_size);

class Array {
public:
    // Begins offset elements behind a cache line and ends with its allocation, so that a sanitizer sees what is past
    // it.
    Array(Format format, Extents shape, Extents strides, std::int64_t offset);

    Format format() const { return format_; }
    const Extents& shape() const { return shape_; }
    const Extents& strides() const { return strides_; }
    std::int64_t size() const { return static_cast<std::int64_t>(elements_.size()); }

    // Elements by their place in C order.
    std::uint64_t get(std::size_t i) const;
    void set(std::size_t i, std::uint64_t bits);
    void fill_with_zeros();
    void fill_with_numbers(bool special, std::uint64_t seed);
    std::uint64_t fold_into(std::uint64_t state) const;

    // The array as a step that walks over axes in that order sees it.
    Operand operand(const Axes& order, StridedLayout& layout) const;

    // Whether no byte but those of elements has been written. Not while another thread looks at them.
    bool surroundings_intact();

private:
    static constexpr std::align_val_t line{64};
    struct Free {
        void operator()(unsigned char* bytes) const { ::operator delete(bytes, line); }
    };

    Format format_;
    Extents shape_;
    Extents strides_;
    std::int64_t bytes_;
    std::unique_ptr<unsigned char, Free> memory_;
    unsigned char* first_;
    std::vector<unsigned char*> elements_;
};

}  // namespace instep::digests
