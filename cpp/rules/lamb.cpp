#include "rules/lamb.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily lamb;
constexpr RuleFamily lamb = make_family<LAMB>();

}  // namespace instep::INSTEP_LEVEL::rules
