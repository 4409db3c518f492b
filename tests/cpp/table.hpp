// digests.txt, read. tests/helpers/digests.py says what its lines mean.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/layout.hpp"

namespace instep::digests {

struct Case {
    std::string name;
    Format param;
    Format grad = Format::float64;
    Format state = Format::float64;
    bool coded = false;  // states in 8 bits instead
    bool stochastic_states = false, stochastic_parameters = false;
    std::uint64_t seed = 0;
    int master_bits = 0;  // of parameters in bfloat16: 24 or 32
    std::optional<Format> copy;
    std::optional<double> average;
    std::string shapes = "few";
    double scale = 1;
    double clip_value = std::numeric_limits<double>::infinity();
    double clip_norm = std::numeric_limits<double>::quiet_NaN();
    double l2 = 0, l1 = 0;
    bool maximize = false, decoupled_l1 = false, guarded = false, special = false;
    bool thorough = false;  // left out by the digests that are not thorough
    std::int64_t late = 0;
    int accumulate = 0;
};

struct Digest {
    std::uint64_t value;
    bool thorough;  // of all cases
};

struct Table {
    std::map<std::string, double> numbers;
    std::vector<double> rates;
    std::map<std::string, std::vector<Extents>> shapes;
    std::vector<Case> cases;
    std::map<std::pair<std::string, Format>, Digest> digests;  // by rule and parameters' format
};

// Throws std::runtime_error in words.
Table read_table(const std::string& path);

}  // namespace instep::digests
