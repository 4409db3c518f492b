#include "rules/adabelief.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adabelief;
constexpr RuleFamily adabelief = make_family<AdaBelief>();

}  // namespace instep::INSTEP_LEVEL::rules
