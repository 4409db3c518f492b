#include "rules/adadelta.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adadelta;
constexpr RuleFamily adadelta = make_family<Adadelta>();

}  // namespace instep::INSTEP_LEVEL::rules
