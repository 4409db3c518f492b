#include "runtime/copying.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "runtime/tensor_view.hpp"

namespace instep {

namespace {

// The place of the next elements of an operand, and the number of them that lie at even distances.
class Runs {
public:
    Runs(const Operand& operand, std::int64_t count)
        : data_(operand.data),
          view_(operand.view),
          stride_(view_ == nullptr ? item_size(operand.format) : view_->strides[view_->ndim - 1]),
          left_(view_ == nullptr ? count : view_->shape[view_->ndim - 1]) {}

    // Goes on from this element.
    void start_at(std::int64_t element) {
        if (view_ == nullptr) return advance(element);
        std::int64_t outer = element / view_->shape[view_->ndim - 1];
        for (int axis = view_->ndim - 2; axis >= 0; --axis) {
            const std::int64_t index = outer % view_->shape[axis];
            index_[static_cast<std::size_t>(axis)] = index;
            data_ += index * view_->strides[axis];
            outer /= view_->shape[axis];
        }
        advance(element % view_->shape[view_->ndim - 1]);
    }

    char* data() const { return data_; }
    std::int64_t stride() const { return stride_; }
    std::int64_t left() const { return left_; }

    void advance(std::int64_t count) {
        data_ += count * stride_;
        left_ -= count;
        if (left_ > 0 || view_ == nullptr) return;
        const int inner = view_->ndim - 1;
        data_ -= view_->shape[inner] * stride_;
        left_ = view_->shape[inner];
        for (int axis = inner - 1; axis >= 0; --axis) {
            std::int64_t& index = index_[static_cast<std::size_t>(axis)];
            data_ += view_->strides[axis];
            if (++index < view_->shape[axis]) return;
            data_ -= view_->shape[axis] * view_->strides[axis];
            index = 0;
        }
    }

private:
    char* data_;
    const View* view_;
    std::int64_t stride_, left_;
    std::array<std::int64_t, 64> index_{};  // NumPy's own limit on axes
};

template <std::size_t Size>
void copy_run(const char* from, std::int64_t from_stride, char* into, std::int64_t into_stride, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) std::memcpy(into + i * into_stride, from + i * from_stride, Size);
}

}  // namespace

namespace {

void copy_all(Runs source, Runs target, std::int64_t size, std::int64_t count) {
    while (count > 0) {
        const std::int64_t run = std::min({count, source.left(), target.left()});
        if (source.stride() == size && target.stride() == size)
            std::memcpy(target.data(), source.data(), static_cast<std::size_t>(run * size));
        else
            (size == 8   ? copy_run<8>
             : size == 4 ? copy_run<4>
             : size == 2 ? copy_run<2>
                         : copy_run<1>)(source.data(), source.stride(), target.data(), target.stride(), run);
        source.advance(run);
        target.advance(run);
        count -= run;
    }
}

}  // namespace

void copy_elements(const Operand& from, const Operand& into, std::int64_t count) {
    copy_all({from, count}, {into, count}, item_size(from.format), count);
}

void copy_part(const Operand& from, std::int64_t begin, std::int64_t count, char* into) {
    Runs source(from, begin + count);
    source.start_at(begin);
    copy_all(source, {{into, from.format, nullptr}, count}, item_size(from.format), count);
}

}  // namespace instep
