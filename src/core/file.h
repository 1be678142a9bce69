#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla::core {

/// A whole file mapped read-only into memory. Throws Error where it cannot be opened.
class MappedFile {
public:
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

/// The whole file as text. Throws Error where it cannot be read or exceeds `max_bytes`.
std::string read_text(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 31);

/// An open file for positioned writes. Every call throws Error (full disk, no permission) naming the path.
class OutputFile {
public:
    explicit OutputFile(const std::filesystem::path& path);
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile& operator=(OutputFile&& other) noexcept;

    void write_at(std::size_t offset, std::span<const std::byte> bytes);
    /// Flushes to the disk and closes; a file destroyed without it may be incomplete.
    void sync_and_close();

private:
    std::filesystem::path path_;
    int descriptor_ = -1;
};

/// Keeps others that lock it, too, away from a file as long as this object lives.
class FileLock {
public:
    /// Creates the file where there is none. Throws Error where it cannot be written, or is locked.
    explicit FileLock(const std::filesystem::path& path);
    ~FileLock();
    FileLock(FileLock&& other) noexcept;
    FileLock& operator=(FileLock&& other) noexcept;

private:
    int descriptor_ = -1;
};

/// A file without a name, for what memory does not hold: it vanishes with the object, or with the process. Every call
/// throws Error (full disk, no permission) naming the directory.
class ScratchFile {
public:
    explicit ScratchFile(const std::filesystem::path& directory);
    ~ScratchFile();
    ScratchFile(ScratchFile&& other) noexcept;
    ScratchFile& operator=(ScratchFile&& other) noexcept;

    void write_at(std::size_t offset, std::span<const std::byte> bytes);
    /// Reads bytes that were written.
    void read_at(std::size_t offset, std::span<std::byte> out) const;

private:
    std::filesystem::path directory_;
    int descriptor_ = -1;
};

/// Flushes what was written to a file, or the names in a directory, to the disk. Throws Error.
void sync_to_disk(const std::filesystem::path& path);

/// Writes the text to a new file and flushes it to the disk.
void write_text(const std::filesystem::path& path, std::string_view text);

/// The absolute path of something to be written; a slash at its end does not count.
std::filesystem::path absolute_target(std::filesystem::path target);

/// TARGET.partial: where something lies that is made over several runs, until it is complete.
std::filesystem::path partial_path(const std::filesystem::path& target);

/// Renames a directory to `target`, which does not exist yet, and flushes both names to the disk. Throws Error.
void move_into_place(const std::filesystem::path& directory, const std::filesystem::path& target);

/// A directory that appears at `target` complete or not at all: filled under a temporary name beside it, then renamed.
/// Destroyed without commit(), it removes what it wrote and leaves the target untouched.
class StagedDirectory {
public:
    /// Throws Error when the target exists and `replace` is false, or the parent cannot be written.
    StagedDirectory(std::filesystem::path target, bool replace);
    ~StagedDirectory();
    StagedDirectory(const StagedDirectory&) = delete;
    StagedDirectory& operator=(const StagedDirectory&) = delete;

    /// Where to write meanwhile.
    const std::filesystem::path& path() const { return staging_; }
    void commit();

private:
    std::filesystem::path target_;
    std::filesystem::path staging_;
    bool committed_ = false;
};

}  // namespace mha2mla::core
