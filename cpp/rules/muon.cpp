#include "rules/muon.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily muon;
constexpr RuleFamily muon = make_family<Muon>();

}  // namespace instep::INSTEP_LEVEL::rules
