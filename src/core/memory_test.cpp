#include "core/memory.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "core/file.h"

namespace mha2mla::core {
namespace {

TEST(Memory, ThePeakFollowsWhatIsUsedAndStaysBelowWhatThereIs) {
    const std::size_t before = peak_memory_bytes();
    constexpr std::size_t size = std::size_t{256} << 20;
    const std::vector<char> block(size, 1);
    EXPECT_EQ(block.back(), 1);
    EXPECT_GE(peak_memory_bytes(), size);
    EXPECT_GE(peak_memory_bytes(), before);
    EXPECT_LT(peak_memory_bytes(), physical_memory_bytes());
}

/// Pages of the mapping that this process holds.
std::size_t resident_bytes(std::span<const std::byte> mapped) {
    const std::string smaps = [] {
        std::ifstream file("/proc/self/smaps");
        return std::string(std::istreambuf_iterator<char>(file), {});
    }();
    const auto range = fmt::format("{:x}-", reinterpret_cast<std::uintptr_t>(mapped.data()));
    const auto place = smaps.find("\nRss:", smaps.find("\n" + range));
    return std::stoull(smaps.substr(place + 5)) * 1024;
}

std::size_t resident_bytes_of_process() {
    std::ifstream statm("/proc/self/statm");
    std::size_t size = 0, resident_pages = 0;
    statm >> size >> resident_pages;
    return resident_pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(Memory, FreedMemoryBetweenBlocksInUseGoesBackToTheSystem) {
#ifdef MHA2MLA_SANITIZED
    GTEST_SKIP() << "sanitizers have a heap of their own";
#endif
    constexpr std::size_t block_bytes = 64 << 10, blocks = 1024;  // below malloc's threshold for mappings
    std::vector<std::unique_ptr<char[]>> memory;
    for (std::size_t i = 0; i < blocks; ++i) {
        memory.push_back(std::make_unique<char[]>(block_bytes));  // zeroed: touched
    }
    for (std::size_t i = 0; i + 1 < blocks; ++i) memory[i].reset();  // the last one keeps the heap's end where it is
    const std::size_t before = resident_bytes_of_process();
    return_freed_memory();
    EXPECT_LT(resident_bytes_of_process() + block_bytes * blocks / 2, before);
}

TEST(Memory, ReleasedPagesAreNotHeldAndReadAgain) {
    const auto path = std::filesystem::path(testing::TempDir()) / "mha2mla_core_memory";
    constexpr std::size_t size = std::size_t{4} << 20;
    write_text(path, std::string(size, 'x'));
    const MappedFile file(path);
    const auto count = [&] { return std::count(file.bytes().begin(), file.bytes().end(), std::byte{'x'}); };
    EXPECT_EQ(count(), size);
    EXPECT_EQ(resident_bytes(file.bytes()), size);
    release_pages(file.bytes().subspan(1));  // all but the first page, of which one byte is outside
    EXPECT_LE(resident_bytes(file.bytes()), 1u << 16);
    EXPECT_EQ(count(), size);
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace mha2mla::core
