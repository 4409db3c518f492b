// Every float through the split of a parameter in bfloat16 with a remainder, at every level that this CPU has: with 16
// bits of remainder each comes back as it was, and with 8 bits each number of 24 bits. It takes some ten seconds a
// level; the tests in Python take a part of the floats.
#include <cstdint>
#include <iostream>
#include <vector>

#include "runtime/levels.hpp"

namespace {

using namespace instep;

constexpr std::int64_t piece = std::int64_t{1} << 20;
constexpr std::uint32_t infinity = 0x7f800000, standard_nan = 0x7fc00000;

// The number of floats with bits begin + i * step that come back as others.
std::int64_t count_others(const Level& level, Format format, std::uint64_t begin, std::uint64_t step) {
    constexpr auto size = static_cast<std::size_t>(piece);
    static std::vector<std::uint32_t> before(size);
    static std::vector<std::uint32_t> after(size);
    static std::vector<std::uint16_t> high(size);
    static std::vector<std::uint16_t> rest(size);
    for (std::size_t i = 0; i < size; ++i) before[i] = static_cast<std::uint32_t>(begin + i * step);
    const Operand from{reinterpret_cast<char*>(before.data()), Format::float32, nullptr};
    const Operand into{reinterpret_cast<char*>(after.data()), Format::float32, nullptr};
    Operand split{reinterpret_cast<char*>(high.data()), format, nullptr};
    split.companion = reinterpret_cast<char*>(rest.data());
    const auto copy = level.accumulate[static_cast<int>(Compute::float32)];
    copy(Operand{}, from, split, 0, piece);
    copy(Operand{}, split, into, 0, piece);
    std::int64_t others = 0;
    for (std::size_t i = 0; i < size; ++i) {
        const bool is_nan = (before[i] & 0x7fffffff) > infinity;
        others += after[i] != (is_nan ? standard_nan : before[i]) ? 1 : 0;
    }
    return others;
}

}  // namespace

int main() {
    constexpr std::uint64_t all = std::uint64_t{1} << 32;
    std::int64_t others = 0;
    for (const Level* level : usable_levels()) {
        std::int64_t of_32 = 0;
        std::int64_t of_24 = 0;
        for (std::uint64_t begin = 0; begin < all; begin += piece)
            of_32 += count_others(*level, Format::bfloat16_16, begin, 1);
        for (std::uint64_t begin = 0; begin < all; begin += piece << 8)
            of_24 += count_others(*level, Format::bfloat16_8, begin, 256);
        std::cout << level->name << ": of 2^32 floats, " << of_32 << " changed; of 2^24 numbers of 24 bits, " << of_24
                  << '\n';
        others += of_32 + of_24;
    }
    return others == 0 ? 0 : 1;
}
