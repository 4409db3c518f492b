#include "rules/lars.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily lars;
constexpr RuleFamily lars = make_family<LARS>();

}  // namespace instep::INSTEP_LEVEL::rules
