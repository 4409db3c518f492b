#include "rules/adan.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adan;
constexpr RuleFamily adan = make_family<Adan>();

}  // namespace instep::INSTEP_LEVEL::rules
