// The passes of a step over states that lie in files, window by window.
#include "runtime/step.hpp"
#include "runtime/tensor_view.hpp"

namespace instep {

namespace {

// Sums go over states and remainders in logical order: where this is not the order of the file, they read the file's
// map.
bool lies_in_logical_order(const Operands& logical) {
    // NOLINTNEXTLINE(readability-use-anyofallof): the analyzer takes std::all_of for a read beyond the array
    for (const Operand& state : logical.states)
        if (state.view != nullptr) return false;
    return logical.param.companion_view == nullptr;
}

}  // namespace

void Stepper::lay_out_windows() {
    windows_->clear();
    for (std::size_t unit = 0; unit + 1 < units_.size(); ++unit) {
        for (std::size_t k = units_[unit]; k < units_[unit + 1]; ++k) {
            const auto& [i, begin, count] = segments_[k];
            windows_->append(i, begin, count, tensors_[i]->operands);
        }
        windows_->close_unit();
    }
    windows_->make_room();
}

void Stepper::go_through_windows(int threads, void (Stepper::*work)(std::size_t, std::size_t), bool changes) {
    Windows::Pass pass;
    pass.changes = changes;
    pass.takes_part = [this, changes](std::size_t i) {
        return turns_[i].present && (changes || (takes_part(i) && lies_in_logical_order(*tensors_[i]->logical)));
    };
    pass.work = [&](std::size_t first_unit, std::size_t end_unit) {
        if (changes && !windows_->files().is_changing()) windows_->files().begin("step");
        first_unit_ = first_unit;
        end_unit_ = end_unit;
        run(threads, {{work, nullptr}});
        first_unit_ = 0;
        end_unit_ = units_.size() - 1;
    };
    try {
        windows_->go_through(pass);
    } catch (FileError& error) {
        windows_->files().explain(error);
        throw;
    }
}

void Stepper::run_sweep_in_windows(int threads) { go_through_windows(threads, &Stepper::sweep_in_window, true); }

void Stepper::copy_into_file(const Level& level, std::size_t segment, Operand Operands::* from, const Operand& target) {
    const Segment& its = segments_[segment];
    const Tensor& tensor = *tensors_[its.tensor];
    windows_->replace(target, its.begin, its.count, [&](char* memory) {
        Operand into = target;
        into.data = Windows::address(memory, its.begin, item_size(target.format));
        level.accumulate[static_cast<int>(tensor.compute)](Operand{}, tensor.operands.*from, into, its.begin,
                                                           its.count);
    });
}

}  // namespace instep
