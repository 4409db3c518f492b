#include "runtime/overlap.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

namespace instep {

namespace {

// No process of any system has more addresses than this; and the sum of the reach of two arrays must not overflow.
constexpr std::int64_t farthest = std::int64_t{1} << 57;
// NumPy's own limit on axes, for two arrays, and one term for the bytes of their items.
constexpr std::size_t most_terms = 2 * 64 + 1;
constexpr std::int64_t most_work = 1'000'000;

std::atomic<std::int64_t> work_done{0};

std::int64_t address_of(const char* pointer) {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(pointer));
}

// Whether there are whole numbers 0 <= x_k <= bound_k for which the sum of coefficient_k * x_k is the wanted number.
class BoundedSum {
public:
    void add(std::int64_t coefficient, std::int64_t bound) {
        if (bound == 0) return;
        for (std::size_t k = 0; k < count_; ++k) {
            if (terms_[k].coefficient != coefficient) continue;
            terms_[k].bound += bound;
            return;
        }
        terms_[count_++] = {coefficient, bound, 0, 0};
    }

    bool reaches(std::int64_t wanted) {
        std::sort(terms_.begin(), terms_.begin() + static_cast<std::ptrdiff_t>(count_),
                  [](const Term& a, const Term& b) { return a.coefficient > b.coefficient; });
        std::int64_t divisor = 0;
        std::int64_t reach = 0;
        for (std::size_t k = count_; k-- > 0;) {
            terms_[k].divisor = divisor = std::gcd(divisor, terms_[k].coefficient);
            terms_[k].reach = reach += terms_[k].coefficient * terms_[k].bound;
        }
        left_ = most_work;
        const bool found = search(0, wanted);
        work_done.fetch_add(most_work - left_, std::memory_order_relaxed);
        return found;
    }

private:
    struct Term {
        std::int64_t coefficient, bound;
        std::int64_t divisor, reach;  // common to this term and all later terms; the largest sum of these terms
    };

    // The least x >= from for which `divisor` divides rest - coefficient * x, and the distance between such x.
    static std::pair<std::int64_t, std::int64_t> first_that_fits(std::int64_t coefficient, std::int64_t divisor,
                                                                 std::int64_t rest, std::int64_t from) {
        const std::int64_t common = std::gcd(coefficient, divisor);
        const std::int64_t modulus = divisor / common;
        if (modulus == 1) return {from, 1};
        // The inverse of coefficient / common by Euclid's algorithm.
        std::int64_t a = coefficient / common % modulus;
        std::int64_t b = modulus;
        std::int64_t inverse = 1;
        std::int64_t other = 0;
        while (b != 0) {
            const std::int64_t quotient = a / b;
            std::tie(a, b) = std::pair(b, a - quotient * b);
            std::tie(inverse, other) = std::pair(other, inverse - quotient * other);
        }
        std::int64_t x = rest / common % modulus;
        x = multiplied(x, (inverse % modulus + modulus) % modulus, modulus);
        const std::int64_t ahead = ((x - from) % modulus + modulus) % modulus;
        return {from + ahead, modulus};
    }

    // a * b modulo m without a wider integer.
    static std::int64_t multiplied(std::int64_t a, std::int64_t b, std::int64_t m) {
        std::int64_t sum = 0;
        for (; b > 0; b /= 2, a = (a + a) % m)
            if (b % 2 == 1) sum = (sum + a) % m;
        return sum;
    }

    // NOLINTNEXTLINE(misc-no-recursion): a level for each term
    bool search(std::size_t k, std::int64_t rest) {
        if (k == count_) return rest == 0;
        const Term& term = terms_[k];
        if (rest < 0 || rest > term.reach || rest % term.divisor != 0) return false;
        if (k + 1 == count_) return true;  // the divisor of the last term is its coefficient
        const Term& next = terms_[k + 1];
        const std::int64_t beyond = rest - next.reach;
        const std::int64_t least = beyond <= 0 ? 0 : (beyond + term.coefficient - 1) / term.coefficient;
        const std::int64_t most = std::min(term.bound, rest / term.coefficient);
        if (least > most) return false;
        auto [x, apart] = first_that_fits(term.coefficient, next.divisor, rest, least);
        for (; x <= most; x += apart) {
            if (--left_ < 0 || search(k + 1, rest - term.coefficient * x)) return true;
        }
        return false;
    }

    std::array<Term, most_terms> terms_;
    std::size_t count_ = 0;
    std::int64_t left_ = 0;
};

// Strides of an array without elements, and of an axis of length 1, mean nothing and may be any number.
bool is_empty(const TensorView& view) {
    return std::find(view.shape, view.shape + view.ndim, 0) != view.shape + view.ndim;
}

}  // namespace

ByteRange byte_range(const TensorView& view) {
    if (is_empty(view)) return {view.data, view.data};
    std::int64_t low = 0;
    std::int64_t high = item_size(view.format);
    for (int axis = 0; axis < view.ndim; ++axis) {
        const std::int64_t reach = (view.shape[axis] - 1) * view.strides[axis];
        (reach < 0 ? low : high) += reach;
    }
    return {view.data + low, view.data + high};
}

bool is_within_memory(const TensorView& view) {
    if (is_empty(view)) return true;
    std::int64_t left = farthest;
    for (int axis = 0; axis < view.ndim; ++axis) {
        const std::int64_t length = view.shape[axis];
        const std::int64_t stride = view.strides[axis];
        if (length == 1) continue;
        if (stride < -farthest || stride > farthest || std::llabs(stride) > left / (length - 1)) return false;
        left -= (length - 1) * std::llabs(stride);
    }
    return true;
}

bool share_memory(const TensorView& a, const TensorView& b) {
    const ByteRange range_a = byte_range(a);
    const ByteRange range_b = byte_range(b);
    if (range_a.empty() || range_b.empty() || !range_a.meets(range_b)) return false;
    // The byte low_a + (strides of a) + (byte of an item) is to be a byte of b. The bytes of b are counted from its
    // high end, so that all terms are positive.
    BoundedSum sum;
    for (const TensorView* view : {&a, &b})
        for (int axis = 0; axis < view->ndim; ++axis)
            if (view->shape[axis] > 1 && view->strides[axis] != 0)
                sum.add(std::llabs(view->strides[axis]), view->shape[axis] - 1);
    sum.add(1, item_size(a.format) - 1 + item_size(b.format) - 1);
    return sum.reaches(address_of(range_b.high) - 1 - address_of(range_a.low));
}

bool overlaps_itself(const TensorView& view) {
    if (is_empty(view)) return false;
    const std::int64_t item = item_size(view.format);
    std::array<std::pair<std::int64_t, std::int64_t>, 64> axes;  // stride and length
    std::size_t count = 0;
    for (int axis = 0; axis < view.ndim; ++axis) {
        if (view.shape[axis] > 1) axes[count++] = {std::llabs(view.strides[axis]), view.shape[axis]};
    }
    std::sort(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(count));
    std::int64_t reach = item;
    bool nested = true;  // each axis steps over everything that the inner axes reach: no overlap, and the usual case
    for (std::size_t k = 0; k < count; ++k) {
        if (axes[k].first == 0) return true;
        nested = nested && axes[k].first >= reach;
        reach += (axes[k].second - 1) * axes[k].first;
    }
    if (nested) return false;
    // Two elements differ first along axis k, by at least one, and along the later axes in either direction. The
    // distance between them is to be less than the bytes of an item.
    for (std::size_t k = 0; k < count; ++k) {
        BoundedSum sum;
        const auto [stride, length] = axes[k];
        sum.add(stride, length - 2);
        std::int64_t wanted = item - 1 - stride;
        for (std::size_t j = k + 1; j < count; ++j) {
            sum.add(axes[j].first, 2 * (axes[j].second - 1));
            wanted += axes[j].first * (axes[j].second - 1);
        }
        sum.add(1, 2 * (item - 1));
        if (wanted >= 0 && sum.reaches(wanted)) return true;
    }
    return false;
}

std::int64_t overlap_work() { return work_done.load(std::memory_order_relaxed); }

OccupiedMemory::Entry OccupiedMemory::entry_of(const TensorView& view) {
    Entry entry{};
    entry.range = byte_range(view);
    if (entry.range.empty()) return entry;
    for (int axis = 0; axis < view.ndim; ++axis)
        if (view.shape[axis] > 1) entry.period = std::gcd(entry.period, view.strides[axis]);
    entry.item = item_size(view.format);
    entry.format = view.format;
    entry.ndim = view.ndim;
    entry.data = view.data;
    return entry;
}

void OccupiedMemory::add(const TensorView& view, std::size_t id) {
    Entry entry = entry_of(view);
    if (entry.range.empty()) return;
    entry.id = id;
    entry.extents = extents_.size();
    extents_.insert(extents_.end(), view.shape, view.shape + view.ndim);
    extents_.insert(extents_.end(), view.strides, view.strides + view.ndim);
    entries_.push_back(entry);
    ready_ = false;
}

void OccupiedMemory::clear() {
    entries_.clear();
    extents_.clear();
    ready_ = false;
}

TensorView OccupiedMemory::view_of(const Entry& entry) const {
    const std::int64_t* shape = extents_.data() + entry.extents;
    return {entry.data, entry.ndim, shape, shape + entry.ndim, entry.format, false};
}

void OccupiedMemory::prepare() const {
    if (ready_) return;
    bands_.clear();
    lattices_.clear();
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& a, const Entry& b) { return a.range.low < b.range.low; });
    for (std::size_t first = 0; first < entries_.size();) {
        Band band{entries_[first].range, lattices_.size(), 0};
        std::size_t last = first;
        for (; last < entries_.size() && entries_[last].range.low < band.range.high; ++last)
            band.range.high = std::max(band.range.high, entries_[last].range.high);
        const auto begin = entries_.begin() + static_cast<std::ptrdiff_t>(first);
        const auto end = entries_.begin() + static_cast<std::ptrdiff_t>(last);
        for (auto entry = begin; entry != end; ++entry)
            entry->remainder = entry->period == 0 ? 0 : address_of(entry->range.low) % entry->period;
        std::stable_sort(begin, end, [](const Entry& a, const Entry& b) {
            return std::pair(a.period, a.remainder) < std::pair(b.period, b.remainder);
        });
        for (; first < last; ++first) {
            Entry& entry = entries_[first];
            const bool is_new = lattices_.size() == band.first || lattices_.back().period != entry.period;
            if (is_new) lattices_.push_back({entry.period, first, first});
            const bool goes_on = !is_new && entries_[first - 1].remainder == entry.remainder;
            entry.reach = goes_on ? std::max(entries_[first - 1].reach, entry.range.high) : entry.range.high;
            lattices_.back().last = first + 1;
        }
        band.last = lattices_.size();
        bands_.push_back(band);
    }
    ready_ = true;
}

std::vector<OccupiedMemory::Band>::const_iterator OccupiedMemory::first_band_ending_after(const char* address) const {
    return std::upper_bound(bands_.begin(), bands_.end(), address,
                            [](const char* low, const Band& band) { return low < band.range.high; });
}

std::size_t OccupiedMemory::find(const TensorView& view, std::size_t except) const {
    prepare();
    const Entry probe = entry_of(view);
    if (probe.range.empty()) return none;
    for (auto band = first_band_ending_after(probe.range.low);
         band != bands_.end() && band->range.low < probe.range.high; ++band)
        for (std::size_t k = band->first; k < band->last; ++k)
            if (const std::size_t found = find_in(lattices_[k], view, probe, except); found != none) return found;
    return none;
}

std::size_t OccupiedMemory::find_in(const Lattice& lattice, const TensorView& view, const Entry& probe,
                                    std::size_t except) const {
    const auto begin = entries_.begin() + static_cast<std::ptrdiff_t>(lattice.first);
    const auto end = entries_.begin() + static_cast<std::ptrdiff_t>(lattice.last);
    const auto shares = [&](const Entry& entry) {
        return entry.id != except && entry.range.meets(probe.range) && share_memory(view_of(entry), view);
    };
    const std::int64_t period = lattice.period;
    // With another period, remainders say less: every entry is checked.
    if (period == 0 || (probe.period % period) != 0) {
        const auto found = std::find_if(begin, end, shares);
        return found == end ? none : found->id;
    }
    // Bytes are shared if the beginnings differ, modulo the period, by less than the item of the lower array.
    constexpr std::int64_t largest_item = 8;
    const std::int64_t near = std::min(largest_item - 1, period - 1);
    const std::int64_t far = std::min(probe.item - 1, period - 1 - near);
    const std::int64_t remainder = address_of(probe.range.low) % period;
    for (std::int64_t offset = -near; offset <= far; ++offset) {
        const std::int64_t wanted = (remainder + offset + period) % period;
        // Entries of this remainder that begin below the end of the range, backwards as long as an entry may still
        // reach into the range.
        auto entry = std::partition_point(begin, end, [&](const Entry& e) {
            return e.remainder < wanted || (e.remainder == wanted && e.range.low < probe.range.high);
        });
        while (entry != begin && (entry - 1)->remainder == wanted && (entry - 1)->reach > probe.range.low)
            if (shares(*--entry)) return entry->id;
    }
    return none;
}

bool OccupiedMemory::is_free(const ByteRange& range) const {
    prepare();
    const auto band = first_band_ending_after(range.low);
    return band == bands_.end() || band->range.low >= range.high;
}

ByteRange OccupiedMemory::gap_around(const ByteRange& range) const {
    prepare();
    const auto next = first_band_ending_after(range.low);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a bound for comparisons, never read
    const auto* const top = reinterpret_cast<const char*>(std::numeric_limits<std::uintptr_t>::max());
    return {next == bands_.begin() ? nullptr : (next - 1)->range.high, next == bands_.end() ? top : next->range.low};
}

}  // namespace instep
