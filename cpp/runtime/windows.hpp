// States that lie in files, in windows: each window is read before a pass goes over it and written afterwards, on a
// thread for input and output, while the pass goes over another window.
//
// The windows are kept in a few buffers. A pass goes over them in the direction opposite to the last pass, so that the
// last windows of one pass are the first of the next and need not be read again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/interface.hpp"
#include "runtime/state_files.hpp"

namespace instep {

class Windows {
public:
    explicit Windows(std::unique_ptr<StateFiles> files) : files_(std::move(files)) {}

    StateFiles& files() { return *files_; }
    const StateFiles& files() const { return *files_; }
    // Whether an operand lies in one of the files: its data are then the file's map, which can only be read.
    bool have(const Operand& operand) const { return files_->find(operand.data).file >= 0; }

    // Lays out the windows anew: first clear, then the segments of each unit in their order, then make_room.
    void clear();
    void append(std::size_t tensor, std::int64_t begin, std::int64_t count, const Operands& operands);
    void close_unit();
    void make_room();
    std::size_t count() const { return windows_.size(); }

    // Calls work(first unit, end) for each window, with the states of the tensors that take part in memory. If the pass
    // changes them, they are in the files when this returns. Throws FileError, or what work throws.
    struct Pass {
        std::function<bool(std::size_t tensor)> takes_part;
        std::function<void(std::size_t first_unit, std::size_t end)> work;
        bool changes;  // otherwise it reads the states alone, without averages
    };
    void go_through(const Pass& pass);
    // Inside work: gives the operands that lie in files, side by side, the addresses that they have in the window.
    void place(std::size_t tensor, Operands& operands) const;

    // Writes elements of an operand that lies in a file: fill(memory) puts them side by side there. Throws FileError.
    void replace(const Operand& target, std::int64_t begin, std::int64_t count,
                 const std::function<void(char* memory)>& fill);
    // The address of element 0 of an array of which this memory has the elements from `begin` on. It may lie before the
    // memory, where nothing is read.
    static char* address(char* memory, std::int64_t begin, std::int64_t item);

private:
    // The states, the average, the units of the states, and the parameter's remainder.
    static constexpr int average = max_states;
    static constexpr int first_units = average + 1;
    static constexpr int remainder = first_units + max_states;
    static constexpr int kinds = remainder + 1;
    using Bits = std::uint16_t;  // one for each kind
    static_assert(kinds <= 16);
    static constexpr std::size_t most_slots = 3;  // one is swept, one read ahead, one written

    // What a window has of one array.
    struct Piece {
        StateFiles::Where where;
        std::int64_t bytes = 0;
        std::int64_t item = 0;
        std::int64_t together = 1;  // elements of the tensor that have one item
        std::int64_t at = 0;        // in the buffer

        // Of so many elements of the tensor, from a place on that begins an item.
        std::int64_t bytes_of(std::int64_t elements) const { return (elements + together - 1) / together * item; }
    };
    // What a window has of one tensor.
    struct Run {
        std::size_t tensor;
        std::int64_t begin, count;
        Piece pieces[kinds];
    };
    struct Window {
        std::size_t first_unit, end_unit, first_run, end_run;
        std::int64_t bytes;  // of the buffer
    };
    struct Slot {
        std::unique_ptr<char[]> room;
        char* data = nullptr;
        std::size_t window = none;
        std::vector<Bits> loaded;  // by run of the window: the kinds that are there, as bits
    };
    static constexpr std::size_t none = static_cast<std::size_t>(-1);
    struct Ferry;

    static Operand operand_of(const Operands& operands, int kind);
    static Bits bit(int kind) { return static_cast<Bits>(1U << static_cast<unsigned>(kind)); }
    void forget();
    void open_window(std::size_t first_unit);
    void close_window();
    void take_over(const Run& run);
    static std::int64_t bytes_of(const std::vector<Run>& runs);
    std::vector<Slot*> slots_in_order(const std::vector<std::size_t>& order);
    template <class Included, class Action>
    void for_each_extent(const Window& window, Included included, Action action) const;
    void read(std::size_t window, Slot& slot, const Pass& pass) const;
    void write(std::size_t window, const Slot& slot, const Pass& pass) const;

    std::unique_ptr<StateFiles> files_;
    std::vector<Window> windows_;
    std::vector<Run> runs_;
    std::vector<Run> of_unit_;  // of the unit that is being appended
    std::size_t units_ = 0;
    std::int64_t window_bytes_ = 0;  // of the states in the window that is being laid out
    std::vector<Slot> slots_;
    bool backwards_ = false;  // the next pass
    const Slot* present_ = nullptr;
    std::vector<char> bounce_;
};

// The most bytes of states in a window, and whether a pass has a thread for input and output. Tests set them.
std::int64_t window_bytes();
void set_window_bytes(std::int64_t bytes);
void set_input_thread(bool wanted);

}  // namespace instep
