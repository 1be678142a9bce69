#include "core/file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/error.h"

namespace mha2mla::core {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& path, std::string_view what, std::string remedy = {}) {
    throw Error({.what = fmt::format("{} ({})", what, std::strerror(errno)),
                 .where = path.string(),
                 .remedy = std::move(remedy)});
}

void write_all(int descriptor, std::size_t offset, std::span<const std::byte> bytes, const fs::path& where) {
    while (!bytes.empty()) {
        const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(where, "cannot write", "check the free space and the permissions");
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        offset += static_cast<std::size_t>(written);
    }
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(path, "cannot open");
    struct stat status {};
    const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
    void* data = size_ > 0 ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
    ::close(descriptor);
    if (!regular) throw Error({.what = "not a regular file", .where = path.string()});
    if (data == MAP_FAILED) fail(path, "cannot map into memory");
    data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

std::string read_text(const fs::path& path, std::size_t max_bytes) {
    std::error_code error;
    if (fs::is_directory(path, error)) {
        throw Error({.what = "is a directory, not a file", .where = path.string(), .remedy = "name a file in it"});
    }
    if (!fs::is_regular_file(path, error)) throw Error({.what = "no such file", .where = path.string()});
    const auto size = fs::file_size(path, error);
    if (error) throw Error({.what = "cannot read its size", .where = path.string()});
    if (size > max_bytes) {
        throw Error({.what = "file is too large",
                     .expected = fmt::format("at most {} bytes", max_bytes),
                     .got = fmt::to_string(size),
                     .where = path.string()});
    }
    std::string text(size, '\0');
    std::ifstream stream(path, std::ios::binary);
    if (!stream.read(text.data(), static_cast<std::streamsize>(size))) fail(path, "cannot read");
    return text;
}

OutputFile::OutputFile(const fs::path& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail(path, "cannot create");
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

void OutputFile::write_at(std::size_t offset, std::span<const std::byte> bytes) {
    write_all(descriptor_, offset, bytes, path_);
}

void OutputFile::sync_and_close() {
    if (::fsync(descriptor_) != 0) fail(path_, "cannot flush to disk", "check the free space");
    if (::close(std::exchange(descriptor_, -1)) != 0) fail(path_, "cannot close", "check the free space");
}

FileLock::FileLock(const fs::path& path) : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail(path, "cannot open for writing");
    // A file system that has no locks is no reason to fail.
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    ::close(std::exchange(descriptor_, -1));
    throw Error({.what = "something else writes to this file",
                 .where = path.string(),
                 .remedy = "wait for it, or name another file"});
}

FileLock::~FileLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

ScratchFile::ScratchFile(const fs::path& directory) : directory_(directory) {
    std::string name = (directory / "mha2mla-scratch-XXXXXX").string();
    descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor_ < 0) fail(directory, "cannot create a temporary file here", "choose a writable place");
    ::unlink(name.c_str());
}

ScratchFile::~ScratchFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : directory_(std::move(other.directory_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

ScratchFile& ScratchFile::operator=(ScratchFile&& other) noexcept {
    std::swap(directory_, other.directory_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

void ScratchFile::write_at(std::size_t offset, std::span<const std::byte> bytes) {
    write_all(descriptor_, offset, bytes, directory_);
}

void ScratchFile::read_at(std::size_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
        const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(directory_, "cannot read a temporary file");
        invariant(got > 0, "only written bytes are read");
        out = out.subspan(static_cast<std::size_t>(got));
        offset += static_cast<std::size_t>(got);
    }
}

void sync_to_disk(const fs::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY);
    if (descriptor < 0) fail(path, "cannot open");
    const int result = ::fsync(descriptor);
    ::close(descriptor);
    if (result != 0) fail(path, "cannot flush to disk");
}

void write_text(const fs::path& path, std::string_view text) {
    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span(text)));
    file.sync_and_close();
}

fs::path absolute_target(fs::path target) {
    if (target.empty()) throw Error({.what = "the name of what is to be written is empty"});
    target = fs::absolute(target).lexically_normal();
    return target.has_filename() ? target : target.parent_path();
}

fs::path partial_path(const fs::path& target) { return absolute_target(target).string() + ".partial"; }

void move_into_place(const fs::path& directory, const fs::path& target) {
    const auto place = absolute_target(target);
    sync_to_disk(directory);
    if (fs::exists(place)) throw Error({.what = "already exists", .where = place.string()});
    if (::rename(directory.c_str(), place.c_str()) != 0) {
        fail(place, "cannot move the finished directory into place");
    }
    sync_to_disk(place.parent_path());
}

StagedDirectory::StagedDirectory(fs::path target, bool replace) : target_(absolute_target(std::move(target))) {
    std::error_code error;
    if (fs::exists(target_, error) && !replace) {
        throw Error({.what = "already exists",
                     .where = target_.string(),
                     .remedy = "choose another name; convert replaces a model with --force"});
    }
    if (!fs::is_directory(target_.parent_path(), error)) {
        throw Error(
            {.what = "no such directory", .where = target_.parent_path().string(), .remedy = "create it first"});
    }
    std::string name = fmt::format("{}.partial-XXXXXX", target_.string());
    if (::mkdtemp(name.data()) == nullptr)
        fail(target_.parent_path(), "cannot create a directory here", "choose a writable place");
    staging_ = name;
    fs::permissions(staging_, fs::perms(0755), error);
}

StagedDirectory::~StagedDirectory() {
    std::error_code ignored;
    if (!committed_) fs::remove_all(staging_, ignored);
}

void StagedDirectory::commit() {
    sync_to_disk(staging_);
    const fs::path retired = staging_.string() + ".old";
    std::error_code error;
    const bool replaces = fs::exists(target_, error);
    if (replaces && ::rename(target_.c_str(), retired.c_str()) != 0) fail(target_, "cannot move the old version away");
    if (::rename(staging_.c_str(), target_.c_str()) != 0) {
        if (replaces) fs::rename(retired, target_, error);
        fail(target_, "cannot move the finished directory into place");
    }
    committed_ = true;
    sync_to_disk(target_.parent_path());
    fs::remove_all(retired, error);
}

}  // namespace mha2mla::core
