// A rule without options, hyperparameters and states has a table like any other: it is enough that this compiles.
#define INSTEP_LEVEL bare

#include "kernels/family.hpp"
#include "rules/rule.hpp"

namespace instep::INSTEP_LEVEL {
namespace {

template <class T, unsigned /* Options */>
struct Bare {
    static constexpr const char* name = "bare";

    T half_;

    static Bare prepare(const Moment& /* now */) { return {T(0.5)}; }

    INSTEP_INLINE void operator()(T& p, T g) const { p = p - half_ * g; }
};

constexpr RuleFamily bare = make_family<Bare>();
static_assert(bare.option_count == 0 && bare.hyperparameter_count == 0);

constexpr const Variant& only = Variants<Bare, std::index_sequence<0>>::table[0];
static_assert(only.valid && only.state_count == 0 && !only.states[0].used);
constexpr const Loops& loops = loops_of<Bare<float, 0>, float>;
static_assert(loops.by[0][with_l2] == nullptr && loops.by[1][0] == nullptr, "only hot rules have more than one loop");

}  // namespace
}  // namespace instep::INSTEP_LEVEL
