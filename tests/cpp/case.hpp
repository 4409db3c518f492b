// One case of the table on the core's Stepper: what cpp/python's Plan does with NumPy's arrays, done with those of
// array.hpp.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/interface.hpp"
#include "table.hpp"

namespace instep::digests {

struct Rule {
    const RuleFamily& family;
    int index;  // of the family
    unsigned options;

    bool has(const std::string& option) const;
    // Whether weight_decay or l1 is a number of the rule, and no term of the gradient.
    bool owns(const std::string& number) const;
    std::string name() const;  // as in the table: the family's and those of the options that are on
};

// What must make no difference.
struct Manner {
    const Level& level;
    int threads;
    bool dense;     // all arrays in C order without gaps; otherwise every layout beside every other
    bool in_parts;  // the sums of squares, what follows from them and the sweep called one by one, where there are such
};

// The digest of all arrays after the case's steps, and of each step's norm. Throws std::runtime_error where anything
// else was changed: memory around an array, the floating-point environment.
std::uint64_t run(const Case& settings, const Rule& rule, const Table& table, const Manner& manner);

}  // namespace instep::digests
