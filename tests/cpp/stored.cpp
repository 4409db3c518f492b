#include "stored.hpp"

#include "runtime/tensor_view.hpp"

namespace instep::digests {

Format state_format(const Case& settings, const StateKind& kind, Format compute) {
    if (kind.narrow == Narrow::iterate) return compute;
    if (settings.coded) {
        if (!kind.eight_bits) return compute;
        return kind.is_signed ? Format::signed8 : Format::unsigned8;
    }
    return settings.state == Format::float16 && kind.root ? Format::root16 : settings.state;
}

bool is_state_random(const Case& settings, const StateKind& kind, Format format) {
    if (item_size(format) > 2) return false;
    if (is_coded(format) || kind.in_16_bits == Rounding::chosen) return settings.stochastic_states;
    return kind.in_16_bits == Rounding::stochastic;
}

void set_random_state(Operand& operand, int k, bool is_random) {
    operand.stochastic = is_random;
    operand.stream = k < 2 ? 0 : 2;
    operand.part = static_cast<unsigned char>(k % 2);
}

void set_random_parameter(Operand& operand, const Case& settings) {
    operand.stochastic = settings.stochastic_parameters;
    operand.stream = parameter_stream;
    operand.part = 1;
}

Axes order_of(const Case& settings, const Variant& variant, Format compute, const Axes& in_memory) {
    bool by_element = settings.stochastic_parameters;
    for (int k = 0; k < variant.state_count; ++k) {
        if (!variant.states[k].used) continue;
        const Format format = state_format(settings, variant.states[k].kind, compute);
        by_element = by_element || is_coded(format) || is_state_random(settings, variant.states[k].kind, format);
    }
    return by_element ? logical_order(static_cast<int>(in_memory.size())) : in_memory;
}

}  // namespace instep::digests
