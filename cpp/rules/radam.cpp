#include "rules/radam.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily radam;
constexpr RuleFamily radam = make_family<RAdam>();

}  // namespace instep::INSTEP_LEVEL::rules
