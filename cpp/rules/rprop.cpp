#include "rules/rprop.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily rprop;
constexpr RuleFamily rprop = make_family<Rprop>();

}  // namespace instep::INSTEP_LEVEL::rules
