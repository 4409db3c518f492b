#include "rules/asgd.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily asgd;
constexpr RuleFamily asgd = make_family<ASGD>();

}  // namespace instep::INSTEP_LEVEL::rules
