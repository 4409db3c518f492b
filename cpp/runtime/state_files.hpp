// The files in which an optimizer keeps its states: scratch of this one optimizer, in a folder that it has locked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace instep {

// An error of the system about a file. `what` is the text without the path, as OSError wants it.
class FileError : public std::exception {
public:
    FileError(int number, std::string path);
    const char* what() const noexcept override { return text_.c_str(); }
    int number() const { return number_; }
    const std::string& path() const { return path_; }
    void add(const std::string& note) { text_ += "; " + note; }

private:
    int number_;
    std::string path_, text_;
};

// An open file's descriptor, owned.
class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor();
    Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor& operator=(Descriptor&&) = delete;
    int number() const { return number_; }

private:
    int number_;
};

class StateFiles {
public:
    // Takes the open lock file, whose lock lasts as long as this object (and every process forked meanwhile).
    StateFiles(std::string folder, std::string lock_path, Descriptor lock);
    // Removes the files, unless this is a forked process: there they are the parent's.
    ~StateFiles();
    StateFiles(const StateFiles&) = delete;
    StateFiles& operator=(const StateFiles&) = delete;
    StateFiles(StateFiles&&) = delete;
    StateFiles& operator=(StateFiles&&) = delete;

    // Takes a file of so many bytes, and the address at which it is mapped to be read.
    void add(std::string path, Descriptor descriptor, const char* map, std::int64_t bytes);
    std::size_t count() const { return files_.size(); }
    // Removes the files from this number on.
    void cut(std::size_t count);
    // Removes all files and the lock file, as for an optimizer that could not be made.
    void remove();

    // The file that is mapped at an address; -1 for none.
    struct Where {
        int file = -1;
        std::int64_t offset = 0;
    };
    Where find(const char* address) const;
    // Both throw FileError.
    void read(Where from, char* into, std::int64_t bytes) const;
    void write(Where into, const char* from, std::int64_t bytes) const;

    // The mark of a change of several windows: it is in the lock file, too, for whoever finds the folder after a crash.
    // begin throws FileError, and then nothing has begun.
    void begin(const char* what);
    void end();
    bool is_changing() const { return half_ != nullptr; }
    // The number of the next step, for the mark.
    void set_next(std::int64_t step) { next_ = step; }
    // "half a step is in FOLDER; resume from a checkpoint"; empty if no change has been left half-way.
    std::string half() const;
    // Throws std::runtime_error in a forked process.
    void require_own_process() const;
    // The same, and if a change has been left half-way; FileError if a file has become shorter.
    void require_whole() const;
    // Says in an error of a pass what it has left.
    void explain(FileError& error) const { error.add(half_ == nullptr ? "nothing has changed" : half()); }

private:
    struct File {
        std::string path;
        Descriptor descriptor;
        const char* map;
        std::int64_t bytes;
    };

    bool forked() const;

    std::string folder_, lock_path_;
    Descriptor lock_;
    std::vector<File> files_;
    const char* half_ = nullptr;  // what has begun, and has been left half-way unless it still goes on
    std::int64_t next_ = 1;
    std::uint64_t fork_generation_;
};

// For tests: after so many more reads and writes, each fails as if the disk were broken; a negative number for none.
void fail_file_calls_after(std::int64_t calls);

}  // namespace instep
