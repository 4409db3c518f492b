#include "rules/rmsprop.hpp"

#include "kernels/coded_loop.hpp"
#include "kernels/family.hpp"
#include "kernels/random_loop.hpp"
#include "kernels/sixteens.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily rmsprop;
constexpr RuleFamily rmsprop = make_family<RMSprop>();

}  // namespace instep::INSTEP_LEVEL::rules
