#include "array.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace instep::digests {

namespace {

constexpr unsigned char untouched = 0xa5;

}  // namespace

Extents strides_of(Layout layout, const Extents& shape, std::int64_t item_size) {
    Axes order = logical_order(static_cast<int>(shape.size()));
    Extents room = shape;
    if (layout == Layout::fortran) std::reverse(order.begin(), order.end());
    if (layout == Layout::gaps) item_size *= 2;
    if (layout == Layout::padded && !room.empty()) room.back() += 3;
    Extents strides = dense_strides(room, order, item_size);
    if (layout == Layout::backwards)
        for (std::int64_t& stride : strides) stride = -stride;
    return strides;
}

Array::Array(Format format, Extents shape, Extents strides, std::int64_t offset)
    : format_(format), shape_(std::move(shape)), strides_(std::move(strides)) {
    const std::int64_t item_size = encoding(format).size();
    char anywhere = 0;
    const TensorView view{&anywhere, static_cast<int>(shape_.size()), shape_.data(), strides_.data(), format, true};
    const ByteRange range = byte_range(view);
    bytes_ = offset * item_size + (range.high - range.low);
    memory_.reset(static_cast<unsigned char*>(::operator new(static_cast<std::size_t>(bytes_), line)));
    std::memset(memory_.get(), untouched, static_cast<std::size_t>(bytes_));
    first_ = memory_.get() + offset * item_size - (range.low - view.data);
    std::int64_t size = 1;
    for (const std::int64_t length : shape_) size *= length;
    elements_.assign(static_cast<std::size_t>(size), first_);
    if (size == 0) return;
    // From the innermost axis outwards: what is known of one run goes for the next ones, a stride further on.
    std::int64_t run = 1;
    for (std::size_t axis = shape_.size(); axis-- > 0; run *= shape_[axis])
        for (std::int64_t i = run; i < run * shape_[axis]; ++i)
            elements_[static_cast<std::size_t>(i)] = elements_[static_cast<std::size_t>(i - run)] + strides_[axis];
}

std::uint64_t Array::get(std::size_t i) const {
    const unsigned char* bytes = elements_[i];
    const auto read = [bytes](auto bits) {
        std::memcpy(&bits, bytes, sizeof bits);
        return std::uint64_t{bits};
    };
    switch (encoding(format_).size()) {
        case 8: return read(std::uint64_t{});
        case 4: return read(std::uint32_t{});
        case 2: return read(std::uint16_t{});
        default: return read(std::uint8_t{});
    }
}

void Array::set(std::size_t i, std::uint64_t bits) {
    unsigned char* bytes = elements_[i];
    const auto write = [bytes](auto narrowed) { std::memcpy(bytes, &narrowed, sizeof narrowed); };
    switch (encoding(format_).size()) {
        case 8: return write(bits);
        case 4: return write(static_cast<std::uint32_t>(bits));
        case 2: return write(static_cast<std::uint16_t>(bits));
        default: return write(static_cast<std::uint8_t>(bits));
    }
}

void Array::fill_with_zeros() {
    for (std::size_t i = 0; i < elements_.size(); ++i) set(i, 0);
}

void Array::fill_with_numbers(bool special, std::uint64_t seed) {
    for (std::size_t i = 0; i < elements_.size(); ++i) set(i, number(format_, special, seed, i));
}

std::uint64_t Array::fold_into(std::uint64_t state) const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < elements_.size(); ++i) sum += element(format_, get(i), i);
    return fold(fold(state, elements_.size()), sum);
}

Operand Array::operand(const Axes& order, StridedLayout& layout) const {
    Operand operand{reinterpret_cast<char*>(first_), format_, nullptr};
    const Extents dense = dense_strides(shape_, order, 1);
    if (!same_strides(shape_.data(), strides_.data(), dense.data(), static_cast<int>(shape_.size()),
                      encoding(format_).size())) {
        layout.assign(shape_.data(), strides_.data(), order);
        operand.view = &layout.view();
    }
    return operand;
}

bool Array::surroundings_intact() {
    std::vector<std::uint64_t> kept(elements_.size());
    for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = get(i);
    std::uint64_t covered = 0;
    std::memset(&covered, untouched, sizeof covered);
    for (std::size_t i = 0; i < kept.size(); ++i) set(i, covered);
    const bool intact =
        std::all_of(memory_.get(), memory_.get() + bytes_, [](unsigned char byte) { return byte == untouched; });
    for (std::size_t i = 0; i < kept.size(); ++i) set(i, kept[i]);
    return intact;
}

}  // namespace instep::digests
