#include "rules/adamax.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adamax;
constexpr RuleFamily adamax = make_family<Adamax>();

}  // namespace instep::INSTEP_LEVEL::rules
