#include "runtime/state_files.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "runtime/team.hpp"

#if !defined(_WIN32)
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace instep {

namespace {

constexpr std::int64_t most_of_a_call = std::int64_t{1} << 30;  // systems move at most 2 GB at once
constexpr std::size_t mark_bytes = 48;

std::atomic<std::int64_t> calls_until_failure{-1};

bool is_to_fail() {
    if (calls_until_failure.load(std::memory_order_relaxed) < 0) return false;
    if (calls_until_failure.fetch_sub(1, std::memory_order_relaxed) > 0) return false;
    calls_until_failure.store(0, std::memory_order_relaxed);
    return true;
}

#if defined(_WIN32)  // state_storage.py refuses before anything of this is called
std::int64_t read_at(int, char*, std::int64_t, std::int64_t) { return 0; }
std::int64_t write_at(int, const char*, std::int64_t, std::int64_t) { return 0; }
std::int64_t size_of(int) { return 0; }
void close_file(int) {}
void remove_file(const std::string&) {}
#else
std::int64_t read_at(int file, char* into, std::int64_t bytes, std::int64_t offset) {
    return ::pread(file, into, static_cast<std::size_t>(bytes), offset);
}
std::int64_t write_at(int file, const char* from, std::int64_t bytes, std::int64_t offset) {
    return ::pwrite(file, from, static_cast<std::size_t>(bytes), offset);
}
std::int64_t size_of(int file) {
    struct stat status{};
    return ::fstat(file, &status) == 0 ? status.st_size : 0;
}
void close_file(int file) { ::close(file); }
void remove_file(const std::string& path) { ::unlink(path.c_str()); }
#endif

// Calls move(offset, bytes), which returns how many it has moved, until all are moved.
template <class Move>
void move_all(const std::string& path, std::int64_t bytes, Move move) {
    for (std::int64_t done = 0; done < bytes;) {
        errno = EIO;  // of a file that has become shorter, where no call fails
        const std::int64_t moved = is_to_fail() ? 0 : move(done, std::min(bytes - done, most_of_a_call));
        if (moved < 0 && errno == EINTR) continue;
        if (moved <= 0) throw FileError(errno, path);
        done += moved;
    }
}

}  // namespace

FileError::FileError(int number, std::string path)
    : number_(number), path_(std::move(path)), text_(std::generic_category().message(number)) {}

Descriptor::~Descriptor() {
    if (number_ >= 0) close_file(number_);
}

StateFiles::StateFiles(std::string folder, std::string lock_path, Descriptor lock)
    : folder_(std::move(folder)),
      lock_path_(std::move(lock_path)),
      lock_(std::move(lock)),
      fork_generation_(team::fork_generation()) {}

StateFiles::~StateFiles() { remove(); }

bool StateFiles::forked() const { return fork_generation_ != team::fork_generation(); }

void StateFiles::add(std::string path, Descriptor descriptor, const char* map, std::int64_t bytes) {
    files_.push_back({std::move(path), std::move(descriptor), map, bytes});
}

void StateFiles::cut(std::size_t count) {
    for (; files_.size() > count; files_.pop_back())
        if (!forked()) remove_file(files_.back().path);
}

void StateFiles::remove() {
    cut(0);
    if (!forked() && !lock_path_.empty()) remove_file(lock_path_);  // the lock itself ends with its descriptor, later
    lock_path_.clear();
}

StateFiles::Where StateFiles::find(const char* address) const {
    for (std::size_t k = 0; k < files_.size(); ++k) {
        const File& file = files_[k];
        if (address >= file.map && address < file.map + file.bytes) return {static_cast<int>(k), address - file.map};
    }
    return {};
}

void StateFiles::read(Where from, char* into, std::int64_t bytes) const {
    const File& file = files_[static_cast<std::size_t>(from.file)];
    move_all(file.path, bytes, [&](std::int64_t done, std::int64_t next) {
        return read_at(file.descriptor.number(), into + done, next, from.offset + done);
    });
}

void StateFiles::write(Where into, const char* from, std::int64_t bytes) const {
    const File& file = files_[static_cast<std::size_t>(into.file)];
    move_all(file.path, bytes, [&](std::int64_t done, std::int64_t next) {
        return write_at(file.descriptor.number(), from + done, next, into.offset + done);
    });
}

void StateFiles::begin(const char* what) {
    std::string text = std::string("half a ") + what + ", number " + std::to_string(next_);
    text.resize(mark_bytes, ' ');
    move_all(lock_path_, static_cast<std::int64_t>(text.size()), [&](std::int64_t done, std::int64_t next) {
        return write_at(lock_.number(), text.data() + done, next, done);
    });
    half_ = what;
}

// An error is of no consequence: the mark then says more than is true, and nothing depends on it but a warning.
void StateFiles::end() {
    half_ = nullptr;
    static_cast<void>(write_at(lock_.number(), "whole", 5, 0));
}

std::string StateFiles::half() const {
    if (half_ == nullptr) return "";
    return std::string("half a ") + half_ + " is in " + folder_ + "; resume from a checkpoint";
}

void StateFiles::require_own_process() const {
    if (forked())
        throw std::runtime_error(
            "an optimizer with state_storage must stay in the process that made it, as its states "
            "lie in " +
            folder_ + ", got a call in a forked process; make a new optimizer there");
}

void StateFiles::require_whole() const {
    require_own_process();
    if (half_ != nullptr) throw std::runtime_error(half());
    for (const File& file : files_) {
        if (size_of(file.descriptor.number()) >= file.bytes) continue;
        FileError error(EIO, file.path);
        error.add("another program has shortened the file; make a new optimizer, and resume from a checkpoint");
        throw FileError(error);
    }
}

void fail_file_calls_after(std::int64_t calls) { calls_until_failure = calls; }

}  // namespace instep
