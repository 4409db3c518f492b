#include "rules/lion.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily lion;
constexpr RuleFamily lion = make_family<Lion>();

}  // namespace instep::INSTEP_LEVEL::rules
