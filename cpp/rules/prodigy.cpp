#include "rules/prodigy.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily prodigy;
constexpr RuleFamily prodigy = make_family<Prodigy>();

}  // namespace instep::INSTEP_LEVEL::rules
