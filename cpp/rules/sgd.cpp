#include "rules/sgd.hpp"

#include "kernels/coded_loop.hpp"
#include "kernels/family.hpp"
#include "kernels/random_loop.hpp"
#include "kernels/sixteens.hpp"

namespace instep::INSTEP_LEVEL::rules {

extern const RuleFamily sgd;
constexpr RuleFamily sgd = make_family<SGD>();

}  // namespace instep::INSTEP_LEVEL::rules
