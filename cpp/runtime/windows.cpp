#include "runtime/windows.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "runtime/tensor_view.hpp"

#if !defined(_WIN32)
#include <csignal>
#endif

namespace instep {

namespace {

std::atomic<std::int64_t> bytes_of_a_window{std::int64_t{1} << 25};
std::atomic<bool> input_thread{true};

constexpr std::int64_t page = 4096;

std::int64_t rounded(std::int64_t bytes, std::int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Signals of the process go to the threads of the program, not to the one for input and output.
class SignalsBlocked {
public:
#if defined(_WIN32)
    SignalsBlocked() {}
#else
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    SignalsBlocked(SignalsBlocked&&) = delete;
    SignalsBlocked& operator=(SignalsBlocked&&) = delete;

private:
    sigset_t before_;
#endif
};

}  // namespace

std::int64_t window_bytes() { return bytes_of_a_window.load(std::memory_order_relaxed); }
void set_window_bytes(std::int64_t bytes) { bytes_of_a_window = bytes; }
void set_input_thread(bool wanted) { input_thread = wanted; }

// ---- the layout -----------------------------------------------------------------------------------------------------

void Windows::clear() {
    windows_.clear();
    runs_.clear();
    of_unit_.clear();
    slots_.clear();
    units_ = 0;
}

// An array of the tensor that may lie in a file; without data if there is none.
Operand Windows::operand_of(const Operands& operands, int kind) {
    if (kind < average) return operands.states[kind];
    if (kind == average) return operands.average;
    const Operand& owner = kind == remainder ? operands.param : operands.states[kind - first_units];
    return owner.companion == nullptr ? Operand{} : companion_of(owner);
}

void Windows::append(std::size_t tensor, std::int64_t begin, std::int64_t count, const Operands& operands) {
    if (!of_unit_.empty() && of_unit_.back().tensor == tensor) {
        of_unit_.back().count += count;
        return;
    }
    Run& run = of_unit_.emplace_back(Run{tensor, begin, count, {}});
    for (int kind = 0; kind < kinds; ++kind) {
        const Operand operand = operand_of(operands, kind);
        Piece& piece = run.pieces[kind];
        if (operand.data == nullptr) continue;
        piece.item = item_size(operand.format);
        if (kind >= first_units && kind < remainder) piece.together = code_block;
        piece.where = files_->find(operand.data);
        piece.where.offset += piece.bytes_of(begin);
    }
}

std::int64_t Windows::bytes_of(const std::vector<Run>& runs) {
    std::int64_t bytes = 0;
    for (const Run& run : runs)
        for (const Piece& piece : run.pieces) bytes += piece.where.file >= 0 ? piece.bytes_of(run.count) : 0;
    return bytes;
}

void Windows::open_window(std::size_t first_unit) {
    windows_.push_back({first_unit, first_unit, runs_.size(), runs_.size(), 0});
    window_bytes_ = 0;
}

void Windows::take_over(const Run& run) {
    Window& window = windows_.back();
    if (runs_.size() > window.first_run && runs_.back().tensor == run.tensor)
        runs_.back().count += run.count;
    else
        runs_.push_back(run);
    window.end_run = runs_.size();
}

void Windows::close_unit() {
    const std::int64_t bytes = bytes_of(of_unit_);
    if (windows_.empty() || (window_bytes_ > 0 && window_bytes_ + bytes > window_bytes())) {
        close_window();
        open_window(units_);
    }
    for (const Run& run : of_unit_) take_over(run);
    window_bytes_ += bytes;
    windows_.back().end_unit = ++units_;
    of_unit_.clear();
}

// Gives each piece its place in the buffer: what is side by side in a file is side by side there, too, so that it is
// read by one call. The arrays of a kind begin at another offset within a page than those of other kinds (see Room).
void Windows::close_window() {
    if (windows_.empty()) return;
    Window& window = windows_.back();
    std::int64_t end = 0;
    for (int kind = 0; kind < kinds; ++kind) {
        const int number = kind + 1;
        end = rounded(end, page) + cache_line + number % 4 * (page / 4) + number / 4 * (page / 16);
        const Piece* before = nullptr;
        for (std::size_t k = window.first_run; k < window.end_run; ++k) {
            Piece& piece = runs_[k].pieces[kind];
            if (piece.where.file < 0) continue;
            piece.bytes = piece.bytes_of(runs_[k].count);
            const bool follows = before != nullptr && before->where.file == piece.where.file &&
                                 rounded(before->where.offset + before->bytes, cache_line) == piece.where.offset;
            piece.at = follows ? before->at + piece.where.offset - before->where.offset : rounded(end, cache_line);
            end = piece.at + piece.bytes;
            before = &piece;
        }
    }
    window.bytes = end;
}

void Windows::make_room() {
    close_window();
    std::int64_t most = 0;
    for (const Window& window : windows_) most = std::max(most, window.bytes);
    slots_.resize(std::min(windows_.size(), most_slots));
    for (Slot& slot : slots_) {
        slot.room = std::make_unique<char[]>(static_cast<std::size_t>(most + page));
        const auto address = reinterpret_cast<std::uintptr_t>(slot.room.get()) % page;
        slot.data = slot.room.get() + (page - address) % page;
    }
    backwards_ = false;
}

void Windows::forget() {
    for (Slot& slot : slots_) slot.window = none;
}

// ---- input and output -----------------------------------------------------------------------------------------------

// Calls action(where, at, bytes) for each stretch of a file that holds included pieces, side by side.
template <class Included, class Action>
void Windows::for_each_extent(const Window& window, Included included, Action action) const {
    for (int kind = 0; kind < kinds; ++kind) {
        StateFiles::Where where;
        std::int64_t at = 0;
        std::int64_t bytes = 0;
        const auto finish = [&] {
            if (bytes > 0) action(where, at, bytes);
            bytes = 0;
        };
        for (std::size_t k = window.first_run; k < window.end_run; ++k) {
            const Piece& piece = runs_[k].pieces[kind];
            if (piece.where.file < 0) continue;
            if (!included(k - window.first_run, kind)) {
                finish();
                continue;
            }
            if (bytes == 0 || piece.where.file != where.file || piece.at != at + rounded(bytes, cache_line) ||
                piece.where.offset != where.offset + rounded(bytes, cache_line)) {
                finish();
                where = piece.where;
                at = piece.at;
            }
            bytes = piece.at + piece.bytes - at;
        }
        finish();
    }
}

void Windows::read(std::size_t window, Slot& slot, const Pass& pass) const {
    const Window& its = windows_[window];
    if (slot.window != window) {
        slot.window = none;
        slot.loaded.assign(its.end_run - its.first_run, 0);
        slot.window = window;
    }
    const auto lacks = [&](std::size_t k, int kind) {
        return (slot.loaded[k] & bit(kind)) == 0 && (pass.changes || kind != average) &&
               pass.takes_part(runs_[its.first_run + k].tensor);
    };
    for_each_extent(its, lacks, [&](StateFiles::Where where, std::int64_t at, std::int64_t bytes) {
        files_->read(where, slot.data + at, bytes);
    });
    for (std::size_t k = 0; k < slot.loaded.size(); ++k)
        for (int kind = 0; kind < kinds; ++kind)
            if (lacks(k, kind)) slot.loaded[k] |= bit(kind);
}

void Windows::write(std::size_t window, const Slot& slot, const Pass& pass) const {
    if (!pass.changes) return;
    const Window& its = windows_[window];
    for_each_extent(
        its, [&](std::size_t k, int) { return pass.takes_part(runs_[its.first_run + k].tensor); },
        [&](StateFiles::Where where, std::int64_t at, std::int64_t bytes) {
            files_->write(where, slot.data + at, bytes);
        });
}

// For each window in this order, the buffer that it gets: one that has it already, or that of the window three before.
std::vector<Windows::Slot*> Windows::slots_in_order(const std::vector<std::size_t>& order) {
    std::vector<Slot*> found(order.size());
    std::vector<bool> taken(slots_.size());
    const std::size_t first = slots_.size();
    for (std::size_t j = 0; j < first; ++j)
        for (std::size_t k = 0; k < first && found[j] == nullptr; ++k)
            if (slots_[k].window == order[j]) {
                found[j] = &slots_[k];
                taken[k] = true;
            }
    for (std::size_t j = 0; j < first; ++j)
        for (std::size_t k = 0; k < first && found[j] == nullptr; ++k)
            if (!taken[k]) {
                found[j] = &slots_[k];
                taken[k] = true;
            }
    for (std::size_t j = first; j < order.size(); ++j) found[j] = found[j - first];
    return found;
}

// The thread for input and output, for one pass. It reads ahead as far as there are buffers, and writes otherwise.
struct Windows::Ferry {
    const Windows& windows;
    const Pass& pass;
    const std::vector<std::size_t>& order;
    const std::vector<Slot*>& slots;
    std::size_t buffers;
    std::mutex mutex{};
    std::condition_variable news{};
    std::size_t read = 0, swept = 0, written = 0;  // so many of the order
    bool stopped = false;
    std::exception_ptr error{};

    bool can_read() const { return read < order.size() && read < written + buffers; }
    bool can_write() const { return written < swept; }

    void carry() {
        std::unique_lock<std::mutex> lock(mutex);
        while (!stopped && written < order.size()) {
            if (!can_read() && !can_write()) {
                news.wait(lock);
                continue;
            }
            const bool reads = can_read();
            const std::size_t j = reads ? read : written;
            lock.unlock();
            std::exception_ptr failed;
            try {
                reads ? windows.read(order[j], *slots[j], pass) : windows.write(order[j], *slots[j], pass);
            } catch (...) {
                failed = std::current_exception();
            }
            lock.lock();
            error = failed;
            stopped = stopped || failed != nullptr;
            ++(reads ? read : written);
            news.notify_all();
        }
    }

    // None if the system has no more threads: then the calling thread does everything.
    std::optional<std::thread> started() {
        if (!input_thread.load(std::memory_order_relaxed)) return std::nullopt;
        const SignalsBlocked blocked;
        try {
            return std::thread([this] { carry(); });
        } catch (const std::system_error&) {
            return std::nullopt;
        }
    }

    // Waits until so many have been read, or written; throws the thread's error.
    void await(const std::size_t& done, std::size_t count) {
        std::unique_lock<std::mutex> lock(mutex);
        news.wait(lock, [&] { return stopped || done >= count; });
        if (error != nullptr) std::rethrow_exception(error);
    }

    void note_swept() {
        const std::scoped_lock lock(mutex);
        ++swept;
        news.notify_all();
    }

    void stop() {
        const std::scoped_lock lock(mutex);
        stopped = true;
        news.notify_all();
    }
};

void Windows::go_through(const Pass& pass) {
    const std::size_t count = windows_.size();
    std::vector<std::size_t> order(count);
    for (std::size_t j = 0; j < count; ++j) order[j] = backwards_ ? count - 1 - j : j;
    const std::vector<Slot*> slots = slots_in_order(order);
    Ferry ferry{*this, pass, order, slots, slots_.size()};
    std::optional<std::thread> thread = ferry.started();
    try {
        for (std::size_t j = 0; j < count; ++j) {
            if (thread)
                ferry.await(ferry.read, j + 1);
            else
                read(order[j], *slots[j], pass);
            present_ = slots[j];
            pass.work(windows_[order[j]].first_unit, windows_[order[j]].end_unit);
            present_ = nullptr;
            if (thread)
                ferry.note_swept();
            else
                write(order[j], *slots[j], pass);
        }
        if (thread) ferry.await(ferry.written, count);
    } catch (...) {
        present_ = nullptr;
        ferry.stop();
        if (thread) thread->join();
        forget();
        throw;
    }
    if (thread) thread->join();
    backwards_ = !backwards_;
}

void Windows::place(std::size_t tensor, Operands& operands) const {
    const Window& window = windows_[present_->window];
    const auto end = runs_.begin() + static_cast<std::ptrdiff_t>(window.end_run);
    const auto run = std::lower_bound(runs_.begin() + static_cast<std::ptrdiff_t>(window.first_run), end, tensor,
                                      [](const Run& its, std::size_t wanted) { return its.tensor < wanted; });
    if (run == end || run->tensor != tensor) return;
    const Bits loaded = present_->loaded[static_cast<std::size_t>(run - runs_.begin()) - window.first_run];
    for (int kind = 0; kind < kinds; ++kind) {
        const Piece& piece = run->pieces[kind];
        if (piece.where.file < 0 || (loaded & bit(kind)) == 0) continue;
        const Operand operand = operand_of(operands, kind);
        if (operand.data == nullptr || operand.view != nullptr) continue;
        char* const there = address(present_->data + piece.at, run->begin / piece.together, piece.item);
        if (kind < average)
            operands.states[kind].data = there;
        else if (kind == average)
            operands.average.data = there;
        else
            (kind == remainder ? operands.param : operands.states[kind - first_units]).companion = there;
    }
}

void Windows::replace(const Operand& target, std::int64_t begin, std::int64_t count,
                      const std::function<void(char* memory)>& fill) {
    forget();
    const std::int64_t item = item_size(target.format);
    bounce_.resize(static_cast<std::size_t>(count * item));
    fill(bounce_.data());
    StateFiles::Where where = files_->find(target.data);
    where.offset += begin * item;
    files_->write(where, bounce_.data(), count * item);
}

// NOLINTNEXTLINE(readability-non-const-parameter): what is there is changed through the address
char* Windows::address(char* memory, std::int64_t begin, std::int64_t item) {
    const auto number = reinterpret_cast<std::uintptr_t>(memory) - static_cast<std::uintptr_t>(begin * item);
    return reinterpret_cast<char*>(number);  // NOLINT(performance-no-int-to-ptr): nothing may be taken from a pointer
}

}  // namespace instep
