#include "rules/yogi.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily yogi;
constexpr RuleFamily yogi = make_family<Yogi>();

}  // namespace instep::INSTEP_LEVEL::rules
