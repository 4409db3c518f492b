// The functions that an instruction-set level has for all rules, and the table of its rules. CMake builds this file and
// those in cpp/rules once for each level; INSTEP_LEVEL is the level's namespace and INSTEP_LEVEL_NAME the level's name.
#include "kernels/gradients.hpp"
#include "kernels/sweep.hpp"

#if !defined(INSTEP_LEVEL) || !defined(INSTEP_LEVEL_NAME)
#error "compile through CMake, which defines INSTEP_LEVEL and INSTEP_LEVEL_NAME"
#endif

#if defined(__FAST_MATH__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0)
#error "the kernels need IEEE arithmetic in the type as written"
#endif

namespace instep::INSTEP_LEVEL {

// CMake writes this file: INSTEP_RULE(name) for each cpp/rules/name.cpp that it found.
namespace rules {
#define INSTEP_RULE(name) extern const RuleFamily name;
#include "found_rules.inc"
#undef INSTEP_RULE
}  // namespace rules

namespace {

constexpr const RuleFamily* families[] = {
#define INSTEP_RULE(name) &rules::name,
#include "found_rules.inc"
#undef INSTEP_RULE
};

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
constexpr const char* compiled_for = "AVX-512 F BW CD DQ VL";
#elif defined(__AVX2__)
constexpr const char* compiled_for = "AVX2";
#elif defined(__SSE4_2__)
constexpr const char* compiled_for = "SSE4.2";
#elif defined(__SSE2__) || defined(_M_X64)
constexpr const char* compiled_for = "SSE2";
#elif defined(__ARM_NEON) || defined(_M_ARM64)
constexpr const char* compiled_for = "NEON";
#else
constexpr const char* compiled_for = "the compiler's default target";
#endif

}  // namespace

extern const Level level;
const Level level = {
    INSTEP_LEVEL_NAME,
    compiled_for,
    sizeof(families) / sizeof(families[0]),
    families,
    {sweep<float>, sweep<double>},
    {rule_sums<float>, rule_sums<double>},
    {sums_of_squares<float>, sums_of_squares<double>},
    {sums_of_scaled_squares<float>, sums_of_scaled_squares<double>},
    {largest<float>, largest<double>},
    {all_finite<float>, all_finite<double>},
    {accumulate<float>, accumulate<double>},
};

}  // namespace instep::INSTEP_LEVEL
