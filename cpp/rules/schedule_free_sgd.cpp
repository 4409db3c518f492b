#include "rules/schedule_free_sgd.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily schedule_free_sgd;
constexpr RuleFamily schedule_free_sgd = make_family<ScheduleFreeSGD>();

}  // namespace instep::INSTEP_LEVEL::rules
