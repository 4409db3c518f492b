#include "rules/adagrad.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adagrad;
constexpr RuleFamily adagrad = make_family<Adagrad>();

}  // namespace instep::INSTEP_LEVEL::rules
