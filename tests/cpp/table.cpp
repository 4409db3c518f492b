#include "table.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "bits.hpp"

namespace instep::digests {

namespace {

Format format_named(const std::string& name) {
    for (std::size_t k = 0; k < encodings.size(); ++k)
        if (name == encodings[k].name) return static_cast<Format>(k);
    throw std::runtime_error("'" + name + "' names no format");
}

double as_number(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

void apply(Case& settings, const std::string& key, const std::string& value) {
    const double number = as_number(value);
    if (key == "grad")
        settings.grad = format_named(value);
    else if (key == "state" && value == "8bit")
        settings.coded = true;
    else if (key == "state")
        settings.state = format_named(value);
    else if (key == "stochastic_states")
        settings.stochastic_states = number != 0;
    else if (key == "stochastic_parameters")
        settings.stochastic_parameters = number != 0;
    else if (key == "seed")
        settings.seed = std::strtoull(value.c_str(), nullptr, 10);
    else if (key == "master")
        settings.master_bits = static_cast<int>(number);
    else if (key == "copy")
        settings.copy = format_named(value);
    else if (key == "shapes")
        settings.shapes = value;
    else if (key == "average")
        settings.average = number;
    else if (key == "scale")
        settings.scale = number;
    else if (key == "clip_value")
        settings.clip_value = number;
    else if (key == "clip_norm")
        settings.clip_norm = number;
    else if (key == "l2")
        settings.l2 = number;
    else if (key == "l1")
        settings.l1 = number;
    else if (key == "decoupled_l1")
        settings.decoupled_l1 = number != 0;
    else if (key == "maximize")
        settings.maximize = number != 0;
    else if (key == "guarded")
        settings.guarded = number != 0;
    else if (key == "special")
        settings.special = number != 0;
    else if (key == "thorough")
        settings.thorough = number != 0;
    else if (key == "late")
        settings.late = static_cast<std::int64_t>(number);
    else if (key == "accumulate")
        settings.accumulate = static_cast<int>(number);
    else
        throw std::runtime_error("'" + key + "' is no setting of a case");
}

void take_line(Table& table, const std::string& line) {
    std::istringstream words(line);
    std::string kind;
    std::string name;
    std::string word;
    words >> kind;
    if (kind.empty() || kind.front() == '#') return;
    if (kind == "number" && words >> name >> word) {
        table.numbers[name] = as_number(word);
    } else if (kind == "rates") {
        while (words >> word) table.rates.push_back(as_number(word));
    } else if (kind == "shape" && words >> name) {
        Extents shape;
        while (words >> word) shape.push_back(static_cast<std::int64_t>(as_number(word)));
        table.shapes[name].push_back(shape);
    } else if (kind == "case" && words >> word >> name) {
        Case& settings = table.cases.emplace_back();
        settings.name = name;
        settings.param = format_named(word);
        while (words >> word) apply(settings, word.substr(0, word.find('=')), word.substr(word.find('=') + 1));
    } else if (kind == "digest" && words >> name >> word) {
        const Format format = format_named(word);
        words >> word;
        const std::uint64_t value = std::strtoull(word.c_str(), nullptr, 16);
        table.digests[{name, format}] = {value, static_cast<bool>(words >> word)};
    } else {
        throw std::runtime_error("not understood: " + line);
    }
}

}  // namespace

Table read_table(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + " can not be read");
    Table table;
    std::string line;
    while (std::getline(file, line)) take_line(table, line);
    return table;
}

}  // namespace instep::digests
