#include "rules/nadam.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily nadam;
constexpr RuleFamily nadam = make_family<NAdam>();

}  // namespace instep::INSTEP_LEVEL::rules
