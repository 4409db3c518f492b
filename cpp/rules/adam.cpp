#include "rules/adam.hpp"

#include "kernels/coded_loop.hpp"
#include "kernels/family.hpp"
#include "kernels/random_loop.hpp"
#include "kernels/sixteens.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily adam;
constexpr RuleFamily adam = make_family<Adam>();

}  // namespace instep::INSTEP_LEVEL::rules
