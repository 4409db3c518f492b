#include "rules/ademamix.hpp"

#include "kernels/family.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily ademamix;
constexpr RuleFamily ademamix = make_family<AdEMAMix>();

}  // namespace instep::INSTEP_LEVEL::rules
