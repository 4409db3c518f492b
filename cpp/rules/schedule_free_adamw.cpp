#include "rules/schedule_free_adamw.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily schedule_free_adamw;
constexpr RuleFamily schedule_free_adamw = make_family<ScheduleFreeAdamW>();

}  // namespace instep::INSTEP_LEVEL::rules
