#include "python/averages.hpp"

#include <stdexcept>
#include <string>
#include <utility>

#include "runtime/copying.hpp"
#include "runtime/levels.hpp"

namespace instep {

// Whether something else is shown in the place of a parameter: not so for an optimizer without averages, which is among
// several that show theirs together.
bool Averages::has_average(std::size_t place) const {
    const Tensor& tensor = steps_.stepper().tensor(place);
    const Variant& variant = variant_of(steps_.group_of(place));
    return tensor.operands.average.data != nullptr || variant.loops[static_cast<int>(tensor.compute)]->shown != nullptr;
}

void Averages::show(const void* block, const std::vector<Group>& groups) {
    if (shown())
        throw std::runtime_error("a block of averaged() must end before the next begins, got a block in a block");
    steps_.arrange();
    steps_.check_unchanged();
    Stepper& stepper = steps_.stepper();
    // First all memory: the rest can't fail.
    stepper.arrange();
    std::vector<SetAside> aside;
    std::size_t bytes = 0;
    const auto room_for = [&](std::size_t place, Operand Operands::* operand) {
        const Tensor& tensor = stepper.tensor(place);
        const Operand& found = tensor.operands.*operand;
        if (found.data == nullptr) return;
        aside.push_back({place, operand, {nullptr, found.format, nullptr}});
        bytes += static_cast<std::size_t>(tensor.size * item_size(found.format));
        bytes += bytes % sizeof(double) == 0 ? 0 : sizeof(double) - bytes % sizeof(double);
    };
    for (std::size_t i = 0; i < steps_.count(); ++i) {
        if (!stepper.is_bound(i) || !has_average(i)) continue;
        room_for(i, &Operands::param);
        room_for(i, &Operands::copy);
    }
    std::vector<char> memory(bytes);
    char* next = memory.data();
    for (SetAside& item : aside) {
        const Tensor& tensor = stepper.tensor(item.place);
        item.saved.data = next;
        const auto size = static_cast<std::size_t>(tensor.size * item_size(item.saved.format));
        next += (size + sizeof(double) - 1) / sizeof(double) * sizeof(double);
        copy_elements(tensor.operands.*item.operand, item.saved, tensor.size);
    }
    aside_ = std::move(aside);
    memory_ = std::move(memory);
    shown_by_ = block;
    for (std::size_t i = 0; i < steps_.count(); ++i)
        if (stepper.is_bound(i))
            stepper.show(current_level(), i, groups[static_cast<std::size_t>(stepper.tensor(i).group)]);
    stepper.copy_all(current_level(), &Operands::average, &Operands::param);
    stepper.copy_all(current_level(), &Operands::average, &Operands::copy);
}

void Averages::hide() {
    if (!shown()) return;
    const std::vector<SetAside> aside = std::move(aside_);
    const std::vector<char> memory = std::move(memory_);
    aside_.clear();
    memory_.clear();
    shown_by_ = nullptr;  // first, so that whatever happens the optimizer can be used again
    Stepper& stepper = steps_.stepper();
    std::string lost;
    for (const SetAside& item : aside) {
        const Tensor& tensor = stepper.tensor(item.place);
        if (steps_.has_its_memory(item.place, item.operand))
            copy_elements(item.saved, tensor.operands.*item.operand, tensor.size);
        else
            lost = (item.operand == &Operands::copy ? "the copy of '" : "parameter '") + steps_.bound(item.place).name +
                   "'";
    }
    if (!lost.empty())
        throw py::value_error(
            refusal(lost, "keep its memory inside averaged()", "an array that has been resized or moved in memory") +
            ", so its weights can't be put back");
}

}  // namespace instep
