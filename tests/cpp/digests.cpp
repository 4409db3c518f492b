// Whether the core computes on this machine what tests/helpers/reference.py computes: runs every rule the registry has,
// with every choice of options, over the cases of digests.txt and compares digests.
//
//     digests FILE [--threads N | --each]
//
// At every level this CPU has, with dense arrays and with arrays of every layout, each step as one call and in parts.
// On 1 to 4 threads at the first of these levels: which chunk a thread takes does not depend on the level. Or, with
// everything that differs at once, on so many threads.
// --each prints the digest of each case instead, for `python tests/helpers/digests.py --each` to be compared with.
#include <exception>
#include <iomanip>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bits.hpp"
#include "case.hpp"
#include "runtime/levels.hpp"
#include "runtime/team.hpp"

namespace instep::digests {

namespace {

// Calls action(rule) for each rule and choice of options of the level.
template <class Action>
void for_each_rule(const Level& level, Action action) {
    for (int k = 0; k < level.family_count; ++k) {
        const RuleFamily& family = *level.families[k];
        for (unsigned options = 0; options < 1U << static_cast<unsigned>(family.option_count); ++options)
            if (family.variants[options].valid) action(Rule{family, k, options});
    }
}

const Digest& wanted_of(const Table& table, const std::string& rule, Format format) {
    const auto found = table.digests.find({rule, format});
    if (found == table.digests.end())
        throw std::runtime_error("no digest of " + rule + " " + encoding(format).name +
                                 ": enter the rule in FAMILIES of tests/helpers/digests.py");
    return found->second;
}

// Calls action(settings) for each case of which that digest is.
template <class Action>
void for_each_case(const Table& table, Format format, const Digest& wanted, Action action) {
    for (const Case& settings : table.cases)
        if (settings.param == format && (wanted.thorough || !settings.thorough)) action(settings);
}

void print_each(const Table& table, const Manner& manner) {
    for_each_rule(manner.level, [&](const Rule& rule) {
        for (int k = 0; k < parameter_format_count; ++k) {
            const auto format = static_cast<Format>(k);
            for_each_case(table, format, wanted_of(table, rule.name(), format), [&](const Case& settings) {
                std::cout << rule.name() << ' ' << encoding(settings.param).name << ' ' << settings.name << ' '
                          << std::setfill('0') << std::setw(16) << std::hex << run(settings, rule, table, manner)
                          << '\n';
            });
        }
    });
}

// Prints what differs and returns how much does.
int compare(const Table& table, const Manner& manner) {
    int wrong = 0;
    std::set<std::pair<std::string, Format>> seen;
    for_each_rule(manner.level, [&](const Rule& rule) {
        for (int k = 0; k < parameter_format_count; ++k) {
            const auto format = static_cast<Format>(k);
            const Digest& wanted = wanted_of(table, rule.name(), format);
            std::uint64_t digest = 0;
            for_each_case(table, format, wanted,
                          [&](const Case& settings) { digest = fold(digest, run(settings, rule, table, manner)); });
            seen.insert({rule.name(), format});
            if (digest == wanted.value) continue;
            ++wrong;
            std::cout << "DIFFERS: " << rule.name() << " " << encoding(format).name << ", " << manner.level.name << ", "
                      << manner.threads << " threads\n";
        }
    });
    if (seen.size() != table.digests.size())
        throw std::runtime_error("the table has digests of rules that are not here");
    std::cout << manner.level.name << ", threads: " << manner.threads << ", "
              << (manner.dense ? "dense" : "every layout") << (manner.in_parts ? ", in parts" : "") << ": "
              << static_cast<int>(seen.size()) - wrong << " of " << seen.size()
              << " digests as the reference has them\n"
              << std::flush;
    return wrong;
}

int compare_all(const Table& table, const std::vector<int>& thread_counts) {
    int wrong = 0;
    for (const Level* level : usable_levels()) {
        wrong += compare(table, {*level, thread_counts.back(), false, true});
        if (thread_counts.size() == 1) continue;  // under an emulator: everything that differs, at once
        wrong += compare(table, {*level, thread_counts.front(), true, false});
        if (level != usable_levels().front()) continue;
        for (const int threads : thread_counts) wrong += compare(table, {*level, threads, false, false});
    }
    return wrong == 0 ? 0 : 1;
}

int main_of(const std::vector<std::string>& arguments) {
    const std::string option = arguments.size() > 1 ? arguments[1] : "";
    const bool threads_given = option == "--threads" && arguments.size() == 3;
    if (arguments.empty() || (!threads_given && arguments.size() > (option == "--each" ? 2 : 1)))
        throw std::runtime_error("digests FILE [--threads N | --each] is wanted");
    const Table table = read_table(arguments[0]);
    team::set_least_work(1);  // as many threads as are asked for
    if (usable_levels().empty()) throw std::runtime_error("no level of this build runs on this machine");
    if (threads_given) return compare_all(table, {std::stoi(arguments[2])});
    if (option.empty()) return compare_all(table, {1, 2, 3, 4});
    print_each(table, {*usable_levels().front(), 1, true, false});
    return 0;
}

}  // namespace

}  // namespace instep::digests

int main(int argc, char** argv) {
    try {
        return instep::digests::main_of({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        std::cerr << "digests: " << error.what() << '\n';
        return 2;
    }
}
