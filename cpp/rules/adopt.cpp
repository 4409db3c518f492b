#include "rules/adopt.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adopt;
constexpr RuleFamily adopt = make_family<ADOPT>();

}  // namespace instep::INSTEP_LEVEL::rules
