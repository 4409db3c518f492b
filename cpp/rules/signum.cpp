#include "rules/signum.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily signum;
constexpr RuleFamily signum = make_family<Signum>();

}  // namespace instep::INSTEP_LEVEL::rules
