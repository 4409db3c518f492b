#include "rules/ftrl.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily ftrl;
constexpr RuleFamily ftrl = make_family<FTRL>();

}  // namespace instep::INSTEP_LEVEL::rules
